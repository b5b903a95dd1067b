"""The trials on Ray Tune, which places them, restarts those whose process dies, and keeps its own state in the bucket.

Which trial is next and which one is over is the ledger's: Tune's searcher asks it, so that a sweep goes on from the
ledger alone, and Tune's state is there to be looked at.
"""

import logging
import os
from collections.abc import Callable
from typing import Any

import ray
from ray import tune
from ray.tune.logger import JsonLoggerCallback
from ray.tune.search import Searcher

from cluster.sweep.board import INTERRUPTED, RUNNING, WAITING, Board
from cluster.sweep.placement import Bundle, bundles
from cluster.sweep.trial import Place, trainable
from meta_service.errors import UserError
from meta_service.progress import Throttle
from meta_service.sweep.book import Book
from meta_service.sweep.ledger import FAILED, Trial
from meta_service.sweep.settings import Sweep

RESTARTS = 2  # of a trial whose process died
SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # one of them is enough
    "RAY_AIR_NEW_OUTPUT": "0",  # the board is what is shown
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interruption is the driver's to handle
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}
NOBODY_S = 20.0  # without a running trial: then the sweep says what it waits for

Say = Callable[[str], None]


def connect() -> list[Bundle]:
    """Joins the cluster; what each of its nodes has."""
    os.environ.update(SETTINGS)  # Tune reads them when it is used
    if not ray.is_initialized():
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def execute(
    sweep: Sweep,
    book: Book,
    place: Place,
    board: Board,
    say: Say,
    should_stop: Callable[[], bool],
    ended: Callable[[Trial], None] = lambda trial: None,
) -> bool:
    """Runs all trials that are left; whether all are over now. `ended` is told of each one.

    Raises UserError where the store does not take what the trials have to keep; all others are asked to save first.
    """
    for trial in book.trials:
        board.put(trial)
    if book.complete:
        return True
    book.ledger.clear_stop()
    search = _Search(book, board, say, should_stop, ended)
    path, filesystem = _storage(f"{place.root}/{place.sweep}/tune")
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(trainable, sweep=sweep, place=place),
            tune.PlacementGroupFactory(bundles(sweep), strategy="PACK"),
        ),
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=-1,  # the searcher says when it is enough
            reuse_actors=False,  # a place is given back between two trials, so that sweeps beside this one get on
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            # Tune gathers its files in a folder of this name and of the second it was started in, whoever's they are
            name=f"{place.sweep}-from-{book.over:04d}",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
            callbacks=[_Watch(search), JsonLoggerCallback()],
            verbose=0,
        ),
    )
    board.tell(force=True)
    tuner.fit()
    board.tell(force=True)
    if search.fault:
        raise UserError(f"{search.fault}; then `make resume RUN={place.sweep}` goes on")
    return book.complete


def _name(trial: Any) -> str:
    return f"trial-{trial.config['trial']:04d}"


class _Live:
    """What Tune keeps beside its state without its contents: the ledger has them."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: Any) -> "_Live":
        return self


class _Search(_Live, Searcher):
    """Tune's searcher: hands out the book's trials, and has it read what became of them."""

    def __init__(
        self,
        book: Book,
        board: Board,
        say: Say,
        should_stop: Callable[[], bool],
        ended: Callable[[Trial], None],
    ) -> None:
        super().__init__()
        self.book, self.board, self.say, self.should_stop, self.ended = book, board, say, should_stop, ended
        self.fault = ""
        """Why the sweep cannot go on."""
        self.numbers: dict[str, int] = {}
        """Of which trial Tune's name stands."""
        self.stopping = False

    def suggest(self, trial_id: str) -> Any:
        """The next trial's number and setting; None: ask again; FINISHED: there is none to come."""
        if self.stopping or self.book.complete:
            return Searcher.FINISHED
        if len(self.book.running) >= (self.book.sweep.tune.concurrent or 1):
            return None
        trial = self.book.next()
        if trial is None:
            return None
        self.numbers[trial_id] = trial.number
        self.board.put(trial, WAITING)
        return {"trial": trial.number, "setting": trial.setting}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        index = self.numbers[trial_id]
        if "iteration" not in result:
            return
        self.board.progress(index, result["iteration"], result["value"])
        for text in result.get("said", ()):
            self.say(f"trial {index}: {text}")
        if result.get("fault"):
            self.fault = result["fault"]
            self.stop()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        index = self.numbers[trial_id]
        if index not in self.book.running:
            return
        trial = self.book.ledger.trial(index)
        if error and trial and not trial.over:
            self.book.ledger.end(index, FAILED, f"its process died {RESTARTS + 1} times", trial.tracking)
        trial = self.book.refresh(index)
        self.board.put(trial, INTERRUPTED)
        if trial.over:
            if trial.why and not trial.compared:
                self.say(f"trial {index}: {trial.state}: {trial.why}")
            self.ended(trial)
        self.board.tell(force=True)

    def stop(self) -> None:
        """Asks all trials to save and end."""
        if not self.stopping:
            self.stopping = True
            self.book.ledger.ask_to_stop()

    def save(self, checkpoint_path: str) -> None:
        with open(checkpoint_path, "w") as file:
            file.write(self.book.ledger.store.address())

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: all is in the ledger."""


class _Watch(_Live, tune.Callback):
    """Looks around after each event of Tune's loop."""

    def __init__(self, search: _Search) -> None:
        self.search = search
        self._nobody = Throttle(NOBODY_S)
        self._nobody.due()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        search = self.search
        if search.should_stop() and not search.stopping:
            search.say("saving; the trials end after the outer step they are at")
            search.stop()
        search.board.tell()
        if any(trial.status == "RUNNING" for trial in trials):
            self._nobody = Throttle(NOBODY_S)
            self._nobody.due()
        elif self._nobody.due() and trials:
            free = ray.available_resources()
            needed = sum(bundle["CPU"] for bundle in bundles(search.book.sweep))
            search.say(f"waiting for room: a trial needs {needed:g} CPU, {free.get('CPU', 0):g} are free")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        index = self.search.numbers[trial.trial_id]
        self.search.say(f"trial {index}: its process died; it is started again from its checkpoint")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        index = self.search.numbers[trial.trial_id]
        self.search.board.put(self.search.book.trials[index], RUNNING)


def _storage(address: str) -> tuple[str, Any]:
    """Tune's path and file system for an address of the artifact store."""
    _, separator, rest = address.partition("://")
    if not separator:
        return address, None
    from pyarrow.fs import S3FileSystem

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    settings: dict[str, Any] = {"endpoint_override": endpoint} if endpoint else {}
    if region:
        settings["region"] = region
    return rest, S3FileSystem(request_timeout=30, connect_timeout=5, **settings)
