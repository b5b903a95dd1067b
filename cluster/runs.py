"""The runs there are, as their artifact store knows them: index/<run>, and a folder <run>/ each."""

import time
from dataclasses import replace

from meta_service.artifacts import ArtifactStore, MissingArtifact
from meta_service.dotted import from_json, to_json
from meta_service.errors import UserError
from meta_service.job import JobSpec
from meta_service.status import NAME, RunStatus, status_of
from meta_service.sweep.settings import Sweep


class Runs:
    """The runs below an artifact root."""

    def __init__(self, root: ArtifactStore) -> None:
        self.root = root

    def create(self, run: str, job: JobSpec) -> None:
        """Makes the run known; its driver reads the job from here."""
        self.store(run).write("job.json", to_json(job).encode())
        self.store(run).write(NAME, status_of(job, "QUEUED", 0, None, None).to_bytes())
        self.root.write(f"index/{run}", f"{time.time()}".encode())

    def create_sweep(self, run: str, sweep: Sweep) -> None:
        """Makes a sweep known, as a run whose iterations are trials."""
        self.store(run).write("sweep.json", sweep.to_json().encode())
        said = status_of(sweep.job, "QUEUED", 0, None, None)
        said = said._replace(iterations=sweep.size, workers=1, unit="trials")
        self.store(run).write("job.json", to_json(sweep.job).encode())
        self.store(run).write(NAME, said.to_bytes())
        self.root.write(f"index/{run}", f"{time.time()}".encode())

    def is_sweep(self, run: str) -> bool:
        return self.store(run).exists("sweep.json")

    def sweep(self, run: str) -> Sweep:
        """What the sweep searches. Raises UserError where the run is none."""
        self.job(run)
        try:
            return Sweep.from_json(self.store(run).read("sweep.json").decode())
        except MissingArtifact as error:
            raise UserError(f"{run} is not a sweep but a run; `make status` tells which are") from error

    def settle(self, run: str, concurrent: int) -> Sweep:
        """Fixes for good how many of a sweep's trials are tried at once; the sweep as it is from now on."""
        sweep = self.sweep(run)
        sweep = replace(sweep, tune=replace(sweep.tune, concurrent=concurrent))
        self.store(run).write("sweep.json", sweep.to_json().encode())
        return sweep

    def store(self, run: str) -> ArtifactStore:
        """The folder of one run."""
        return self.root.under(run)

    def job(self, run: str) -> JobSpec:
        """What the run computes."""
        try:
            job = from_json(self.store(run).read("job.json").decode())
        except MissingArtifact as error:
            raise UserError(f"there is no run '{run}' in {self.root.address()}; `make status` lists them") from error
        if not isinstance(job, JobSpec):
            raise UserError(f"{self.store(run).address('job.json')}: a job is expected, a {type(job).__name__} came")
        return job

    def names(self) -> list[str]:
        """All runs, the newest first."""
        created = {name: float(self.root.read(name)) for name in self.root.list("index/")}
        return [name.removeprefix("index/") for name in sorted(created, key=lambda name: -created[name])]

    def known(self, run: str) -> bool:
        """Whether there is such a run."""
        return self.root.exists(f"index/{run}")

    def choose(self, run: str | None) -> str:
        """The run of that name, or the newest; UserError where there is none."""
        if run:
            self.job(run)
            return run
        names = self.names()
        if not names:
            raise UserError(f"there is no run in {self.root.address()} yet; `make submit JOB=sinusoid` makes one")
        return names[0]

    def status(self, run: str) -> RunStatus:
        """What the run last said of itself."""
        return RunStatus.from_bytes(self.store(run).read(NAME))

    def queue(self, run: str) -> None:
        """Says that the run will go on."""
        self.tell(run, self.status(run)._replace(state="QUEUED", time=time.time()))

    def tell(self, run: str, said: RunStatus) -> None:
        """Says in a run's place where it is."""
        self.store(run).write(NAME, said.to_bytes())

    def check_data(self, run: str, sha256: str) -> None:
        """Refuses to go on with other data than the run began with."""
        store = self.store(run)
        try:
            begun_with = store.read("data.sha256").decode()
        except MissingArtifact:
            store.write("data.sha256", sha256.encode())
            return
        if sha256 != begun_with:
            raise UserError(
                f"{run} began with data of SHA-256 {begun_with[:12]}, here are others ({sha256[:12]}); "
                "give it the same DATA_ROOT, or submit a new run"
            )

    def mlflow_run_id(self, run: str) -> str | None:
        """The MLflow run that an earlier driver of this run reported to."""
        return self.status(run).mlflow_run_id
