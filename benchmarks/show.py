"""What the benchmark says while it works: one line of progress with the time left, and lines that stay."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

TICK_S = 1.0


class Show:
    """A bar that fills with the time planned. Used as a context."""

    def __init__(self, out: Console, planned_s: float) -> None:
        self.out, self.planned_s = out, planned_s
        columns = (TextColumn("{task.description}"), BarColumn(24), TaskProgressColumn(), TimeElapsedColumn())
        self._progress = Progress(
            *columns, TextColumn("[grey50]{task.fields[left]}"), console=out, refresh_per_second=2
        )
        self._task = self._progress.add_task("starting", total=planned_s, left="")
        self._done_s, self._since, self._stage_s = 0.0, time.monotonic(), 0.0

    def stage(self, planned_s: float) -> None:
        """A stage begins that is planned to take so long; the one before is over, however long it took."""
        self._done_s += self._stage_s
        self._since, self._stage_s = time.monotonic(), planned_s
        self.told("")

    def told(self, text: str) -> None:
        """What is being done now."""
        done = self._done_s + min(time.monotonic() - self._since, self._stage_s)
        minutes = max(self.planned_s - done, 0.0) / 60
        left = f"about {minutes:.0f} min left" if minutes >= 1.5 else "about a minute left"
        self._progress.update(self._task, completed=done, left=left)
        if text:
            self._progress.update(self._task, description=text.ljust(52)[:52])

    def say(self, text: str) -> None:
        """A line that stays."""
        self._progress.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> "Show":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
