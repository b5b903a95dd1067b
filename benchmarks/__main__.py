"""The command line: what `make bench` runs."""

import shlex
import signal
import sys
from pathlib import Path
from types import FrameType

import click
import torch
from rich.console import Console

from benchmarks import device, documents, machine, plan, tables, workloads
from benchmarks.contenders import ALL
from benchmarks.figures import Record
from benchmarks.pictures import pictures
from meta_service.errors import UserError

OUT = Console(width=None if sys.stdout.isatty() else 140, soft_wrap=not sys.stdout.isatty())
HELP = f"""Time of one meta-gradient, beside other libraries and the limit of this machine, in one run.

\b
make bench                                             all of it: half an hour or more on two cores
make bench ARGS=--quick                                three workloads, one round: under 10 minutes
make bench ARGS="--workloads W1,W3 --only ours,plain"  some of it
make bench ARGS="--workloads W4 --beside .bench/bench.json"  a part today, added to yesterday's
make bench ARGS="--again .bench/bench.json"            draw an earlier run again; measure nothing
make bench ARGS="--device cuda"                        all that can, on a GPU
make bench ARGS=--write-docs                           and bring docs/performance.md up to date

Every contender first computes a small version in float64, which has to be right; then all take turns, each in a process
of its own while the others sleep. Leave the machine alone meanwhile. Tables, pictures and the raw figures go to .bench.

\b
{chr(10).join(f"{name:<6}{title}" for name, title in workloads.TITLES.items())}

\b
{chr(10).join(f"{name:<14}{contender.title}" for name, contender in ALL.items())}
"""


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--workloads", "wanted", default="", metavar="W1,W3", help="Only these workloads; no growth, no service.")
@click.option("--only", default="", metavar="ours,plain", help="Only these contenders, also where they are hopeless.")
@click.option(
    "--device", "where", default="cpu", show_default=True, type=click.Choice(device.NAMES), help="Of all contenders."
)
@click.option("--quick", is_flag=True, help="W1, W2-1 and W3, one round each; no growth, no service.")
@click.option("--parts", default="", metavar="growth,service", help="Only these of: speed, growth, service.")
@click.option("--patience", default=100.0, show_default=True, help="Seconds a contender may take over one answer.")
@click.option("--into", default=".bench", show_default=True, type=click.Path(path_type=Path), help="Where results go.")
@click.option("--again", type=click.Path(path_type=Path), metavar="FILE", help="Show an earlier run's bench.json.")
@click.option("--beside", type=click.Path(path_type=Path), metavar="FILE", help="Add to an earlier run's bench.json.")
@click.option("--write-docs", is_flag=True, help="Put tables and pictures into docs/performance.md, too.")
def program(
    wanted: str,
    only: str,
    where: str,
    quick: bool,
    parts: str,
    patience: float,
    into: Path,
    again: Path | None,
    beside: Path | None,
    write_docs: bool,
) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _terminated)
    if where == "cuda" and not torch.cuda.is_available():
        raise UserError("--device: cuda is expected where torch sees a GPU, here it sees none; leave --device out")
    device.choose(where)
    if again:
        record = _read(again, "--again")
    else:
        command = shlex.join(["make bench", *([f"ARGS={shlex.join(sys.argv[1:])}"] if sys.argv[1:] else [])])
        record = Record(machine.about(command), [], [], [], {})
        earlier = _read(beside, "--beside") if beside else None
        if earlier:
            record.beside(earlier)  # where it cannot be added to that one, better now than after the measurement
        try:
            plan.run(OUT, _list(wanted), _list(only), _list(parts), quick, patience, record)
        except SystemExit:
            if record.figures:
                _keep(record.beside(earlier) if earlier else record, into)
                OUT.print(f"Interrupted; what was measured is in {into}")
            raise
        record = record.beside(earlier) if earlier else record
    written, drawn = _keep(record, into)
    if write_docs:
        documents.write(written, drawn)
    tables.show(OUT, record)
    OUT.print(f"Tables, pictures and raw figures: {into}" + (f", and {documents.PAGE.name}" if write_docs else ""))


def _keep(record: Record, into: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """Writes tables, pictures and raw figures into a folder; returns the first two."""
    written, drawn = tables.tables(record), pictures(record)
    into.mkdir(parents=True, exist_ok=True)
    (into / "bench.json").write_text(record.to_json())
    (into / "tables.md").write_text("\n\n".join(f"## {name}\n\n{text}" for name, text in written.items()) + "\n")
    for name, data in drawn.items():
        (into / name).write_bytes(data)
    return written, drawn


def _read(file: Path, option: str) -> Record:
    try:
        return Record.from_json(file.read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{option}: a bench.json of this benchmark is expected, {file} came: {error}") from error


def _list(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _terminated(number: int, frame: FrameType | None) -> None:
    for other in (signal.SIGTERM, signal.SIGINT):  # the contenders are being ended already
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> None:
    """Shows a user's mistake as one line, and an interruption as nothing at all."""
    try:
        program(prog_name="python -m benchmarks", standalone_mode=False)
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)


if __name__ == "__main__":
    main()
