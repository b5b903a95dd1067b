"""A sweep in the terminal: a table of its trials while they run, the winner at the end."""

from typing import Any

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from meta_service.evaluation import AdaptationCurve, format_metric

STYLES = {
    "running": "cyan",
    "waiting": "dim",
    "finished": "green",
    "stopped early": "dim",
    "diverged": "red",
    "failed": "red",
    "interrupted": "yellow",
}
BESIDE = 9  # lines of a terminal that a table must leave


def sweep_table(event: dict[str, Any], height: int | None = None) -> Table:
    """A row a trial: its parameters, outer steps, metric and state. Where `height` has no room for all, old ones go."""
    rows = event["rows"]
    left = max(height - BESIDE, 4) if height else len(rows)
    table = Table(box=SIMPLE, title=progress_text(event), title_justify="left", title_style="bold")
    table.add_column("trial", justify="right")
    for name in _titles(list(rows[0][1])) if rows else ():
        table.add_column(name, justify="right", no_wrap=True)
    for title in ("iteration", event["metric"]):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for row in _shown(rows, event["best"], left):
        index, setting, iteration, value, state, _ = row
        mark = " ★" if index == event["best"] else ""
        shown = "" if value is None else format_metric(event["metric"], value)
        cells = [f"{index}", *setting.values(), f"{iteration:,}", shown]
        style = "bold green" if mark else ""
        table.add_row(*(Text(cell, style) for cell in cells), Text(state + mark, STYLES.get(state, "")))
    hidden = len(rows) - min(len(rows), left)
    if hidden > 0:
        table.caption = f"and {hidden} that are over"
    return table


def progress_text(event: dict[str, Any]) -> str:
    """`7 of 16 trials over, 2 running  best: trial 3, mse 0.412  ETA 0:02:10`."""
    running = sum(row[4] == "running" for row in event["rows"])
    parts = [f"{event['over']} of {event['size']} trials over, {running} running"]
    best = next((row for row in event["rows"] if row[0] == event["best"]), None)
    if best:
        parts.append(f"best: trial {best[0]}, {event['metric']} {format_metric(event['metric'], best[3])}")
    if event["eta_s"] is not None and event["over"] < event["size"]:
        minutes, seconds = divmod(round(event["eta_s"]), 60)
        parts.append(f"ETA {minutes // 60}:{minutes % 60:02}:{seconds:02}")
    return "  ".join(parts)


def trial_text(event: dict[str, Any], row: list[Any]) -> str:
    """`trial 3 finished after 600 iterations, mse 0.412: algorithm.inner_lr 0.1, outer.meta_lr 0.003`."""
    index, setting, iteration, value, state, why = row
    worth = "" if value is None else f", {event['metric']} {format_metric(event['metric'], value)}"
    values = ", ".join(f"{name} {text}" for name, text in setting.items())
    reason = f" ({why})" if why and state == "stopped early" else ""  # others are told as they come
    return f"trial {index} {state} after {iteration:,} iterations{worth}{reason}: {values}"


def winner_text(event: dict[str, Any]) -> str:
    """The winner, and what decided."""
    if event["best"] is None:
        return f"{event['job']}: no trial finished"
    lines = [f"best: trial {event['best']}, {', '.join(f'{n} {v}' for n, v in event['setting'].items())}"]
    curves = {name: AdaptationCurve(**curve) for name, curve in event["results"].items()}
    for name, curve in curves.items():
        default = curves.get(f"{name}/default")
        if "/" not in name:
            beside = f"; the job's default: {default.wording()}" if default else ""
            tasks = f"{curve.conditions['tasks']:,} test tasks"
            lines.append(f"{name}, {tasks}: {curve.metric} {curve.wording()}{beside}")
    if event["importance"]:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in event["importance"].items())
        lines.append(f"importance: {shares}")
    return "\n".join(lines)


def _titles(names: list[str]) -> list[str]:
    """The last words of dotted names where these tell them apart: a terminal is not wide."""
    words = [name.rpartition(".")[2] for name in names]
    return words if len(set(words)) == len(words) else names


def _shown(rows: list[list[Any]], best: int | None, count: int) -> list[list[Any]]:
    """The rows worth showing, in their order: the best, those that run, then the newest."""
    worth = sorted(rows, key=lambda row: (row[0] == best, row[4] in ("running", "waiting"), row[0]), reverse=True)
    return sorted(worth[:count])
