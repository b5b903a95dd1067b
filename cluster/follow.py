"""A run in the terminal: one live line while it works, a table at its end."""

import time
from collections.abc import Iterable
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from cluster.sweep.table import progress_text as sweep_text
from cluster.sweep.table import sweep_table, trial_text, winner_text
from meta_service.evaluation import AdaptationCurve, format_metric
from meta_service.progress import Throttle, parse_event

PLAIN_S = 15.0  # between two progress lines where the output is no terminal


class _Live(Progress):
    """A progress line, and above it what is shown of a sweep."""

    above: RenderableType | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.above is not None:
            yield self.above
        yield from super().get_renderables()


class Follower:
    """Draws the events of a run, and passes on all other lines."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.error: str | None = None
        self.summary: dict[str, Any] | None = None
        self._progress = _Live(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar: TaskID | None = None
        self._title = ""
        self._plain = Throttle(PLAIN_S)
        self._sweep: dict[str, Any] | None = None

    def follow(self, lines: Iterable[str]) -> None:
        """Draws until the lines end."""
        with self._progress:
            for line in lines:
                event = parse_event(line)
                if event is None:
                    if line.strip():
                        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
                else:
                    getattr(self, f"_on_{event.pop('kind')}", lambda event: None)(event)

    def _on_say(self, event: dict[str, Any]) -> None:
        self.console.print(event["text"], markup=False, highlight=False, soft_wrap=True)

    def _on_error(self, event: dict[str, Any]) -> None:
        self.error = event["text"]

    def _on_progress(self, event: dict[str, Any]) -> None:
        self._draw("meta-training", event["iteration"], event["iterations"], progress_text(event))

    def _on_stage(self, event: dict[str, Any]) -> None:
        self._draw(event["title"], event["done"], event["total"], "")

    def _on_summary(self, event: dict[str, Any]) -> None:
        self.summary = event
        self._progress.stop()
        self.console.print(result_table(event))
        own = {name: curve["conditions"] for name, curve in event["results"].items() if "/" not in name}
        tuned = [f"{name} {c['conditions']['inner_lr']:g}" for name, c in event["results"].items() if name not in own]
        for name, conditions in own.items():
            self._on_say({"text": conditions_text(name, conditions)})
        if tuned:
            self._on_say({"text": f"alpha of the baselines, best on validation tasks: {', '.join(tuned)}"})
        where = event["tracking"] or "MLflow was not reached; what was measured is kept in the spool"
        self._on_say({"text": f"\ntheta       iteration {event['best_iteration']:,}, SHA-256 {event['sha256']}"})
        self._on_say({"text": f"MLflow run  {where}\nartifacts   {event['artifacts']}"})

    def _on_sweep(self, event: dict[str, Any]) -> None:
        before = {row[0]: row[4] for row in self._sweep["rows"]} if self._sweep else {}
        self._sweep = event
        if self.console.is_terminal:
            self._progress.above = sweep_table(event, self.console.height)
            self._progress.refresh()
            return
        for row in event["rows"]:
            if row[4] not in ("running", "waiting") and before.get(row[0]) != row[4]:
                self._on_say({"text": trial_text(event, row)})
        if self._plain.due():
            self._on_say({"text": sweep_text(event)})

    def _on_sweep_summary(self, event: dict[str, Any]) -> None:
        self._progress.above = None
        self._progress.stop()
        if self._sweep:
            self.console.print(sweep_table(self._sweep))
        self._on_say({"text": winner_text(event)})
        where = event["tracking"] or "MLflow was not reached; what was measured is kept in the spool"
        self._on_say({"text": f"\nMLflow run  {where}\nreport      {event['artifacts']}/report"})

    def _draw(self, title: str, done: int, total: int, text: str) -> None:
        if title != self._title:
            if self._bar is not None:
                self._progress.remove_task(self._bar)
            self._bar, self._title, self._plain = self._progress.add_task(title, text=text), title, Throttle(PLAIN_S)
        assert self._bar is not None
        self._progress.update(self._bar, completed=done, total=total, text=text)
        if not self.console.is_terminal and self._plain.due():
            self.console.print(f"{title} {done:,}/{total:,} {text}", markup=False, highlight=False, soft_wrap=True)


def progress_text(event: dict[str, Any]) -> str:
    """`412 tasks/s  ETA 0:03:10  loss 0.41  accuracy 21.3 % -> 95.1 %`."""
    minutes, seconds = divmod(round(event["eta_s"]), 60)
    parts = [
        f"{event['tasks_per_second']:,.0f} tasks/s",
        f"ETA {minutes // 60}:{minutes % 60:02}:{seconds:02}",
        f"loss {event['loss']:.3g}",
    ]
    if event["after"] is not None:
        metric = event["metric"]
        parts.append(f"{metric} {format_metric(metric, event['before'])} → {format_metric(metric, event['after'])}")
    return "  ".join(parts)


def result_table(event: dict[str, Any]) -> Table:
    """Test metrics before and after adaptation, each with its 95 % confidence interval."""
    curves = {name: AdaptationCurve(**curve) for name, curve in event["results"].items()}
    few = range(4 if all(len(c.mean) <= 4 for c in curves.values()) else 2)
    steps = sorted({k for c in curves.values() for k in (*few, 5, c.headline, len(c.mean) - 1) if k < len(c.mean)})
    metric = next(iter(curves.values())).metric if curves else ""
    table = Table(box=SIMPLE, title=f"{event['job']}: test {metric}, 95 % CI", title_justify="left")
    table.add_column("evaluation", no_wrap=True)
    for k in steps:
        table.add_column(f"{k} step{'' if k == 1 else 's'}", justify="right", no_wrap=True)
    for name, curve in curves.items():
        table.add_row(name, *(curve.wording(k) if k < len(curve.mean) else "" for k in steps))
    return table


def conditions_text(name: str, conditions: dict[str, Any]) -> str:
    """`paper: 600 test tasks, 1 + 1 examples a class, alpha 0.4, transductive batch norm, loss sum_over_k`."""
    tasks = f"{name}: {conditions['tasks']:,} {conditions['split']} tasks"
    if "seeds" in conditions:
        tasks += f" (seeds {conditions['seeds']})"
    if "horizon" in conditions:
        many = f"{conditions['steps']:,} steps in whole" if "steps" in conditions else conditions["trajectories"]
        later = conditions["later_lr"] * conditions["inner_lr"]
        return (
            f"{tasks}, {many} trajectories of up to {conditions['horizon']} steps for each step of adaptation, "
            f"alpha {conditions['inner_lr']:g}, after the first step {later:g}"
        )
    each = "a class" if "loss_scale" in conditions else "a task"
    text = (
        f"{tasks}, {conditions['shots']} support + {conditions['query_shots']} query examples {each}, "
        f"alpha {conditions['inner_lr']:g}"
    )
    if "batch_norm" in conditions:
        text += f", {conditions['batch_norm']} batch norm"
    return text + (f", loss {conditions['loss_scale']}" if "loss_scale" in conditions else "")


def ago(since: float) -> str:
    """How long ago, as people say it."""
    seconds = max(0.0, time.time() - since)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
