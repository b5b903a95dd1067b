"""A run from its first outer step to its report: training, tests, baselines and pictures."""

import dataclasses
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from meta_service import plots
from meta_service.artifacts import ArtifactStore
from meta_service.checkpoint import Checkpoints
from meta_service.dotted import override
from meta_service.driver import Stopped, meta_train
from meta_service.errors import UserError
from meta_service.evaluation import AdaptationCurve, evaluate
from meta_service.job import Baseline, JobSpec
from meta_service.journal import Journal
from meta_service.objective import MetaGradient
from meta_service.ownership import Owner
from meta_service.params import Params, shapes
from meta_service.pool import LocalPool, WorkerPool
from meta_service.ppo import PPO
from meta_service.progress import Emit, Throttle
from meta_service.seeds import task_seeds
from meta_service.serving import log_model
from meta_service.state import MetaState
from meta_service.status import NAME, RunStatus
from meta_service.tasks.sinusoid import Sinusoid
from meta_service.tracking import State, Tracker
from meta_service.training import train

REPORT = "report"  # the folder, in the run's store and in MLflow, of what the run came to
Results = dict[str, AdaptationCurve]
"""Adaptation curves on test tasks, by the evaluation's name; a baseline's is called `5-shot/pretrained`."""


def run(
    job: JobSpec,
    store: ArtifactStore,
    tracker: Tracker,
    pool: WorkerPool,
    emit: Emit,
    should_stop: Callable[[], bool],
    rescue: ArtifactStore,
    ppo: PPO | None = None,
    owner: Owner | None = None,
) -> State:
    """Trains from the latest checkpoint, or from the start, and then tests: FINISHED, or KILLED if it was stopped.

    What `store` does not take is kept in `rescue` on this machine, where a later run looks, too.
    """

    def test(state: MetaState, journal: Journal) -> None:
        theta = journal.checkpoints.best() or state
        conclude(job, theta, store, tracker, pool, interruptible(emit, should_stop), journal, ppo=ppo)

    return train(job, store, tracker, pool, emit, should_stop, rescue, then=test, owner=owner)


def retest(
    job: JobSpec,
    store: ArtifactStore,
    tracker: Tracker,
    pool: WorkerPool,
    emit: Emit,
    should_stop: Callable[[], bool],
    folder: str,
    ppo: PPO | None = None,
) -> State:
    """Tests the best checkpoint of a run that was trained before; the state its training had come to.

    The report is kept in `folder`; "report" replaces the one made after training.
    """
    checkpoints = Checkpoints(store, say=lambda text: emit("say", {"text": text}))
    state = checkpoints.best() or checkpoints.latest()
    if state is None:
        raise UserError(f"{store.address()} has no checkpoint yet to test; let the run train on")
    if shapes(state.params) != shapes(job.init().params):
        raise UserError(f"{store.address()}: theta is of another shape than this job's; keep its ways and model")
    said = RunStatus.from_bytes(store.read(NAME)).state
    with suppress(Stopped), Journal(job, store, tracker, checkpoints, emit) as journal:
        conclude(job, state, store, tracker, pool, interruptible(emit, should_stop), journal, folder, ppo)
    states: dict[str, State] = {"FINISHED": "FINISHED", "FAILED": "FAILED"}
    return states.get(said, "KILLED")  # a test does not end a training


def conclude(
    job: JobSpec,
    state: MetaState,
    store: ArtifactStore,
    tracker: Tracker,
    pool: WorkerPool,
    emit: Emit,
    journal: Journal,
    folder: str = REPORT,
    ppo: PPO | None = None,
) -> None:
    """Tests theta and the baselines, draws the pictures, and keeps and reports all of it."""
    results = _evaluate_all(job, pool, state.params, emit)
    for name, curve in results.items() if folder == REPORT else ():
        for step, (mean, ci95) in enumerate(zip(curve.mean, curve.ci95, strict=True)):
            tracker.metrics({f"test/{name}/{curve.metric}": mean, f"test/{name}/ci95": ci95}, step)
    models: dict[str, tuple[JobSpec, Params]] = {"MAML": (job, state.params)}
    for baseline in job.baselines:
        try:
            models[baseline.name], curves = _baseline(job, baseline, store, emit, ppo)
            results |= {f"{name}/{baseline.name}": curve for name, curve in curves.items()}
        except UserError as error:  # no reason to lose what is known of the run itself
            emit("say", {"text": f"baseline {baseline.name} is left out: {error}"})
    emit("summary", _summary(job, state, results, store, tracker))  # first: what comes now could fail
    kept = {"results.json": json.dumps({k: v._asdict() for k, v in results.items()}, indent=2).encode()}
    first = job.evaluations[0].name
    compared = {name: curve for name, curve in results.items() if "/" not in name or name.startswith(f"{first}/")}
    kept |= {
        "adaptation.png": plots.adaptation_picture(compared),
        "training.png": plots.training_picture(journal.history, journal.losses),
    }
    seed, another = task_seeds(job.seed, "test", 0, 2)
    if isinstance(job.tasks, Sinusoid):
        shown = {name: model for name, model in models.items() if name != "random"}
        kept |= {"sinusoid.png": plots.sinusoid_picture(shown, (seed, another), shots=5)}
    elif job.explores:
        try:
            kept |= plots.policy_pictures(job, state.params, task_seeds(job.seed, "test", 0, 3))
        except UserError as error:
            emit("say", {"text": f"a picture is left out: {error}"})
    else:
        last = job.evaluations[-1]  # the one with more query examples to show
        shown_job = dataclasses.replace(job, tasks=last.tasks_of(job.tasks))
        kept |= {"episode.png": plots.episode_picture(shown_job, state.params, seed, last.steps)}
    for name, data in kept.items():
        store.write(f"{folder}/{name}", data)
        tracker.artifact(f"{folder}/{name}", data)
    if folder == REPORT and not job.explores:  # MLflow serves what maps arrays to arrays; `load` gives a policy
        log_model(tracker, job, state, emit)


def interruptible(emit: Emit, should_stop: Callable[[], bool]) -> Emit:
    """`emit`, but a stage that reports its progress ends where the run is asked to."""

    def told(kind: str, fields: dict[str, Any]) -> None:
        if kind == "stage" and should_stop():
            raise Stopped
        emit(kind, fields)

    return told


def _evaluate_all(job: JobSpec, pool: WorkerPool, params: Params, emit: Emit, title: str = "testing") -> Results:
    results: Results = {}
    for evaluation in job.evaluations:

        def progress(done: int, total: int, name: str = evaluation.name) -> None:
            emit("stage", {"title": f"{title}: {name}", "done": done, "total": total})

        results[evaluation.name] = evaluate(job, pool, params, evaluation, "test", progress)
    return results


def _baseline(
    job: JobSpec, baseline: Baseline, store: ArtifactStore, emit: Emit, ppo: PPO | None
) -> tuple[tuple[JobSpec, Params], Results]:
    """Trains a baseline in this process, unless its theta is kept already, and tests it.

    Returns its job, with the fine-tuning step size found best, its theta and its curves.
    """
    evaluations = tuple(dataclasses.replace(e, inner_lrs=baseline.inner_lrs) for e in job.evaluations)
    iterations = min(job.iterations, baseline.iterations)
    spec = dataclasses.replace(job, iterations=iterations, evaluations=evaluations, baselines=())
    spec = override(spec, baseline.overrides)
    pool, checkpoints = LocalPool.of(spec), Checkpoints(store.under(f"baselines/{baseline.name}"), keep=1)
    state = checkpoints.latest() or spec.init()
    if state.iteration < spec.iterations and baseline.trainer == "rllib":
        if ppo is None:
            raise UserError("RLlib needs Ray; make resources.workers at least 1")
        title = f"training baseline {baseline.name}"
        for trained in ppo(spec, state.params):
            emit("stage", {"title": title, "done": trained.iteration, "total": spec.iterations})
            state = MetaState(trained.iteration, trained.params, {})
        checkpoints.save(state)
    elif state.iteration < spec.iterations:
        state = meta_train(spec, pool, state, _BaselineProgress(spec, baseline.name, emit))
        checkpoints.save(state)
    results = _evaluate_all(spec, pool, state.params, emit, f"testing {baseline.name}")
    inner_lr = next(iter(results.values())).conditions["inner_lr"]
    return (override(spec, [f"algorithm.inner_lr={inner_lr}"]), state.params), results


class _BaselineProgress:
    """A progress line for the training of a baseline; nothing of it is kept."""

    def __init__(self, job: JobSpec, name: str, emit: Emit) -> None:
        self.job, self.name, self.emit, self.throttle = job, name, emit, Throttle(0.5)

    def stepped(self, state: MetaState, mean: MetaGradient) -> None:
        if self.throttle.due():
            title = f"training baseline {self.name}"
            self.emit("stage", {"title": title, "done": state.iteration, "total": self.job.iterations})

    def validated(self, state: MetaState, curve: AdaptationCurve) -> None:
        pass


def _summary(
    job: JobSpec, state: MetaState, results: Results, store: ArtifactStore, tracker: Tracker
) -> dict[str, Any]:
    return {
        "job": job.name,
        "best_iteration": state.iteration,
        "sha256": state.sha256(),
        "results": {name: curve._asdict() for name, curve in results.items()},
        "tracking": tracker.address,
        "artifacts": store.address(),
    }
