"""What a sweep came to: the best trial tested once, a table, and pictures."""

import json
from collections.abc import Sequence
from typing import Any

from meta_service.artifacts import ArtifactStore
from meta_service.checkpoint import Checkpoints
from meta_service.errors import UserError
from meta_service.evaluation import AdaptationCurve, evaluate, format_metric
from meta_service.plots.heatmap import heatmap_picture, plane
from meta_service.plots.importance import importance_picture
from meta_service.plots.parallel import parallel_picture
from meta_service.plots.trials import trials_picture
from meta_service.pool import WorkerPool
from meta_service.progress import Emit
from meta_service.sweep.importance import importances
from meta_service.sweep.ledger import FINISHED, Ledger, Trial
from meta_service.sweep.ranking import best_of, ranked
from meta_service.sweep.settings import Sweep
from meta_service.sweep.space import short
from meta_service.tracking import Tracker

REPORT = "report"
Tests = dict[str, AdaptationCurve]
"""Adaptation curves on test tasks, by evaluation; those of the job's own setting are called `paper/default`."""


def conclude(
    sweep: Sweep,
    trials: Sequence[Trial],
    ledger: Ledger,
    store: ArtifactStore,
    tracker: Tracker,
    pool: WorkerPool,
    emit: Emit,
) -> None:
    """Tests the best trial and the default one on test tasks; keeps and reports it, the table and the pictures.

    Raises UserError, after the report is kept, where no trial finished.
    """
    best = best_of(trials, sweep.metric)
    tests: Tests = {}
    if best is not None:
        tests = tested(sweep, best, ledger, pool, emit)
        default = default_of(sweep, trials)
        if default is not None and default.number != best.number:
            tests |= {f"{name}/default": c for name, c in tested(sweep, default, ledger, pool, emit).items()}
    shares = importances(sweep, trials)
    table = markdown(sweep, trials, tests, shares)
    kept = {"results.json": results(sweep, trials, tests, shares), "report.md": table.encode()}
    emit("sweep_summary", summary(sweep, trials, tests, shares, store, tracker))  # first: what comes now could fail
    _log(sweep, best, tests, table, tracker)
    for name, data in (kept | pictures(sweep, trials, shares)).items():
        store.write(f"{REPORT}/{name}", data)
        tracker.artifact(f"{REPORT}/{name}", data)
    if best is None:
        first = next((trial for trial in trials if trial.why), None)
        reason = f"; trial {first.number}: {first.why}" if first else ""
        raise UserError(f"none of the {len(trials)} trials finished{reason}; choose a narrower space")


def default_of(sweep: Sweep, trials: Sequence[Trial]) -> Trial | None:
    """The trial of the job's own setting, if there is one and it finished."""
    return trials[0] if sweep.tune.default and trials and trials[0].state == FINISHED else None


def tested(sweep: Sweep, trial: Trial, ledger: Ledger, pool: WorkerPool, emit: Emit) -> Tests:
    """The trial's checkpoint that was best on validation tasks, on test tasks."""
    checkpoints = Checkpoints(ledger.folder(trial.number))
    state = checkpoints.best() or checkpoints.latest()
    assert state is not None
    job = sweep.trial_job(trial.setting)
    curves: Tests = {}
    for evaluation in job.evaluations:

        def progress(done: int, total: int, name: str = evaluation.name) -> None:
            emit("stage", {"title": f"testing trial {trial.number}: {name}", "done": done, "total": total})

        curves[evaluation.name] = evaluate(job, pool, state.params, evaluation, "test", progress)
    return curves


def pictures(sweep: Sweep, trials: Sequence[Trial], shares: dict[str, float]) -> dict[str, bytes]:
    """The report's pictures, as PNG, by file name."""
    drawn = {"parallel.png": parallel_picture(sweep, trials), "trials.png": trials_picture(sweep, trials)}
    names = plane(sweep, list(shares))
    if names:
        drawn["heatmap.png"] = heatmap_picture(sweep, trials, names)
    if shares:
        drawn["importance.png"] = importance_picture(shares, len(trials))
    return drawn


def results(sweep: Sweep, trials: Sequence[Trial], tests: Tests, shares: dict[str, float]) -> bytes:
    """All numbers of the report, as JSON."""
    best = best_of(trials, sweep.metric)
    kept = {
        "best": best and best.number,
        "setting": best and best.setting,
        "metric": sweep.metric,
        "tests": {name: curve._asdict() for name, curve in tests.items()},
        "importance": shares,
        "trials": [trial._asdict() for trial in trials],
    }
    return json.dumps(kept, indent=1).encode()


def markdown(sweep: Sweep, trials: Sequence[Trial], tests: Tests, shares: dict[str, float]) -> str:
    """The report's words: which setting won, by how much, and every trial."""
    best, default = best_of(trials, sweep.metric), default_of(sweep, trials)
    lines = []
    if best:
        setting = ", ".join(f"{name} = {short(value)}" for name, value in best.setting.items())
        lines += [f"**Trial {best.number} is the best: {setting}**", ""]
        if tests:
            lines += _tests_table(best, default, tests)
    if shares:
        lines += ["Importance: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items()), ""]
    names = list(sweep.space)
    lines.append(f"| trial | {' | '.join(names)} | iterations | validation {sweep.metric} | state |")
    lines.append("|---" * (len(names) + 4) + "|")
    order = [trial.number for trial in ranked(trials, sweep.metric)]
    for trial in [trials[i] for i in order] + [trial for trial in trials if trial.number not in order]:
        values = " | ".join(short(trial.setting[name]) for name in names)
        value = _value(sweep, trial)
        mark = " (default)" if sweep.tune.default and trial.number == 0 else ""
        state = f"{trial.state}: {trial.why}" if trial.why and not trial.compared else trial.state
        lines.append(f"| {trial.number}{mark} | {values} | {trial.iteration:,} | {value} | {state} |")
    return "\n".join(lines) + "\n"


def summary(
    sweep: Sweep,
    trials: Sequence[Trial],
    tests: Tests,
    shares: dict[str, float],
    store: ArtifactStore,
    tracker: Tracker,
) -> dict[str, Any]:
    """The event from which a terminal draws the end of a sweep."""
    best = best_of(trials, sweep.metric)
    return {
        "job": sweep.job.name,
        "best": best and best.number,
        "setting": best and {name: short(value) for name, value in best.setting.items()},
        "results": {name: curve._asdict() for name, curve in tests.items()},
        "importance": shares,
        "tracking": tracker.address,
        "artifacts": store.address(),
    }


def _tests_table(best: Trial, default: Trial | None, tests: Tests) -> list[str]:
    own = {name: curve for name, curve in tests.items() if "/" not in name}
    first = next(iter(own.values()))
    lines = [
        f"Tested once on test tasks ({first.metric} after adaptation, 95 % CI), after as many steps as a trial has:",
        "",
        f"| | {' | '.join(own)} |",
        "|---" * (len(own) + 1) + "|",
        f"| trial {best.number}, the best | {' | '.join(curve.wording() for curve in own.values())} |",
    ]
    if default and f"{next(iter(own))}/default" in tests:
        texts = " | ".join(tests[f"{name}/default"].wording() for name in own)
        lines.append(f"| trial {default.number}, the job's default | {texts} |")
    return [*lines, ""]


def _value(sweep: Sweep, trial: Trial) -> str:
    return format_metric(sweep.metric, trial.value) if trial.looks else ""


def _log(sweep: Sweep, best: Trial | None, tests: Tests, table: str, tracker: Tracker) -> None:
    note = f"{table}\nPictures: Artifacts, report/"
    tracker.tags({"mlflow.note.content": note, "meta.best_trial": "" if best is None else best.number})
    if best is None:
        return
    tracker.params({f"best.{name}": value for name, value in best.setting.items()})
    for name, curve in tests.items():
        for step, (mean, ci95) in enumerate(zip(curve.mean, curve.ci95, strict=True)):
            tracker.metrics({f"test/{name}/{curve.metric}": mean, f"test/{name}/ci95": ci95}, step)
