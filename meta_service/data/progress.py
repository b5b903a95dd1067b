"""What a person sees while data are fetched or prepared: a bar on a terminal, one line at each end elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress


def say(line: str) -> None:
    """One line to stderr, at once."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """Gives the function that is told by how much the work went on; all output goes to stderr."""
    start = time.monotonic()
    if sys.stderr.isatty():
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=total)
            yield lambda amount: bar.advance(task, amount)
    else:
        say(what)
        yield lambda amount: None
    say(f"{what}: done in {time.monotonic() - start:.1f} s")
