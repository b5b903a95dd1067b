"""A job: everything a run computes, as one Python value that the command line, Tune and MLflow share."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, cast

from torch import Tensor

from meta_service.adjoint.network import Network
from meta_service.algorithms.maml import MAML
from meta_service.algorithms.policy_gradient import PolicyGradient
from meta_service.episode import Signature, Split, TaskDistribution, Tasks
from meta_service.errors import UserError
from meta_service.objective import MetaGradient, Objective
from meta_service.outer.adam import Adam
from meta_service.params import Params
from meta_service.seeds import Stream, task_seeds
from meta_service.state import MetaState

TasksT = TypeVar("TasksT", bound=Tasks)


class Algorithm(Protocol):
    """The inner loop. Frozen dataclasses; one file each in `algorithms/`. How it is called depends on the tasks."""

    @property
    def inner_lr(self) -> float: ...

    @property
    def inner_steps(self) -> int: ...


class Outer(Protocol):
    """The outer loop. Frozen dataclasses; one file each in `outer/`."""

    def init(self, params: Params) -> MetaState: ...

    def step(self, state: MetaState, objective: Objective) -> tuple[MetaState, MetaGradient]: ...


class Model(Protocol):
    """f_theta. Frozen dataclasses; one file each in `models/`."""

    def init(self, seed: int, signature: Signature) -> Params: ...

    def apply(self, params: Params, x: Tensor, context: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Resources:
    """Where the blocks are computed; changes the time, never a bit of the result."""

    workers: int = 2
    """Ray actors; 0 computes in the driver's own process, without Ray."""
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0
    """GPUs of each worker; fractions share one."""
    patience_s: float = 60
    """A worker that has not answered for so many seconds, and for 20 times as long as others take, is replaced."""

    def __post_init__(self) -> None:
        if self.workers < 0 or self.cpus_per_worker < 0 or self.gpus_per_worker < 0:
            raise UserError(f"resources: numbers >= 0 are expected, {self} came; correct the override")
        if self.patience_s <= 0:
            raise UserError(f"resources.patience_s: seconds > 0 are expected, {self.patience_s:g} came; leave it out")


@dataclass(frozen=True)
class Evaluation:
    """One way of testing: how many tasks, adapted how far, judged on what. None means: as in training."""

    name: str
    num_tasks: int = 600
    steps: int = 10
    """Gradient steps of adaptation; the metric is reported after 0, 1, ... of them."""
    headline: int | None = None
    """The number of steps whose value stands for the result; none: the last."""
    shots: int | None = None
    query_shots: int | Literal["shots"] | None = None
    """Query examples a class; "shots": as many as support examples, the authors' code."""
    transductive: bool | None = None
    inner_lrs: tuple[float, ...] = ()
    """Step sizes of which the best on validation tasks is taken; empty: the algorithm's own."""
    numbered: bool = False
    """Test on the tasks of the seeds 0, 1, ... and not on such as the run's seed names: the same ones for all runs."""

    def __post_init__(self) -> None:
        if self.num_tasks < 2 or not 0 <= self.headline_step <= self.steps:
            raise UserError(f"evaluations: num_tasks >= 2 and 0 <= headline <= steps are expected, {self} came")

    @property
    def headline_step(self) -> int:
        """The number of steps whose value stands for the result."""
        return self.steps if self.headline is None else self.headline

    def tasks_of(self, tasks: TasksT) -> TasksT:
        """The training distribution under this evaluation's conditions."""
        query_shots = (self.shots or tasks.shots) if self.query_shots == "shots" else self.query_shots
        conditions = {"shots": self.shots, "query_shots": query_shots, "transductive": self.transductive}
        asked = {name: value for name, value in conditions.items() if value is not None}
        for name in asked:
            if not hasattr(tasks, name):
                raise UserError(f"evaluations.{self.name}.{name}: {type(tasks).__name__} has no {name}; leave it out")
        return cast(TasksT, dataclasses.replace(cast(Any, tasks), **asked))


@dataclass(frozen=True)
class Baseline:
    """The same job with some fields changed, trained beside it for comparison."""

    name: str
    overrides: tuple[str, ...]
    """As on the command line: `algorithm.inner_steps=0`."""
    iterations: int = 20_000
    """At most so many outer steps, and never more than the job's."""
    inner_lrs: tuple[float, ...] = ()
    """Step sizes to fine-tune with, of which the best on validation tasks is taken; empty: the algorithm's own."""
    trainer: Literal["outer", "rllib"] = "outer"
    """Who trains it: the job's outer update, or, for policies, RLlib's PPO; an iteration is then 20,000 steps."""


@dataclass(frozen=True)
class JobSpec:
    """What to meta-train, how, and how it is judged."""

    name: str
    tasks: Tasks
    model: Model
    algorithm: Algorithm = MAML()
    outer: Outer = Adam()
    iterations: int = 60_000
    """Outer steps."""
    meta_batch_size: int = 32
    """Tasks of one outer step."""
    tasks_per_block: int = 4
    """Tasks computed together by one worker. A number of the job, not of the cluster: it fixes the order of addition,
    and with it every bit of the result."""
    vectorize: Literal["adjoint", "vmap", "loop"] = "adjoint"
    """How a block is computed; each rounds differently. `adjoint`: derivatives written out by hand, the fastest, for
    the models and tasks that have them (MLP, Conv4; all supervised tasks), else as `vmap`: torch.func, all tasks at
    once; `loop`: torch.func, one task after the other, for any model."""
    compile: bool = False
    """Compile the adjoint of a network without normalisation by torch.compile: the sinusoid's block in a third of the
    time, after half a minute once; needs a C++ compiler. Rounds differently."""
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """What is multiplied. `bf16`: convolutions in products with the Hessian round their factors to 8 bits and add in
    float32; everything else is float32. For Conv4 with `vectorize=adjoint`: with 5 shots and AVX512-BF16 a fifth
    faster, and the meta-gradient changes by half a per cent. `tf32`: on a GPU, all products with 11 bits, which changes
    it much more (docs/performance.md); without a GPU, float32."""
    seed: int = 0
    """Names the run's initial theta and all its tasks."""
    start_from: str = ""
    """The run whose best theta is the initial one, in place of the seed's: its name, address or MLflow run id."""
    validate_every: int = 500
    """Outer steps between two looks at the validation tasks."""
    validation: Evaluation = Evaluation("validation", num_tasks=100, steps=1)
    checkpoint_every: int = 500
    """Outer steps between two checkpoints; also written at the end and when a run is stopped."""
    evaluations: tuple[Evaluation, ...] = (Evaluation("test"),)
    """The tests at the end, on test tasks, with the checkpoint that was best on validation tasks."""
    baselines: tuple[Baseline, ...] = ()
    resources: Resources = field(default=Resources())

    def __post_init__(self) -> None:
        positive = ("meta_batch_size", "tasks_per_block", "validate_every", "checkpoint_every")
        for name in positive:
            if getattr(self, name) < 1:
                raise UserError(f"{name}: at least 1 is expected, {getattr(self, name)} came; correct the override")
        layers = self.network.layers if self.network else ()
        if self.compile and (self.network is None or any(layer.norm for layer in layers)):
            raise UserError(
                "compile: vectorize=adjoint and a network without normalisation (whose passes are compiled loops as it "
                f"is) are expected, {self.vectorize} and {self.model} came; leave compile out"
            )
        if self.precision == "bf16" and not any(layer.convolution for layer in layers):
            raise UserError(
                "precision: bf16 is expected with vectorize=adjoint and a network of convolutions, "
                f"{self.vectorize} and {self.model} came; leave precision out"
            )
        if not self.evaluations:
            raise UserError("evaluations: at least one is expected, none came")
        if self.iterations < 0 or self.seed < 0:
            raise UserError(f"iterations and seed: at least 0 is expected, {self.iterations} and {self.seed} came")

        if self.explores != isinstance(self.algorithm, PolicyGradient):
            kind, expected = ("environments", "PolicyGradient") if self.explores else ("data sets", "MAML")
            raise UserError(f"algorithm: {expected} is expected for tasks that are {kind}, {self.algorithm} came")
        if self.explores and self.resources.gpus_per_worker:
            raise UserError(
                "resources.gpus_per_worker: 0 is expected for policies, which are simulated and adapted on CPUs, "
                f"{self.resources.gpus_per_worker:g} came; leave it out"
            )

    @property
    def explores(self) -> bool:
        """Whether the tasks are environments, whose data a policy has to gather itself."""
        return hasattr(self.tasks, "simulation")

    @property
    def data_sets(self) -> TaskDistribution:
        """The tasks of a job that does not explore."""
        if self.explores:
            raise UserError(f"job {self.name}: tasks that are data sets are expected, environments came")
        return cast(TaskDistribution, self.tasks)

    @property
    def maml(self) -> MAML:
        """The algorithm of a job that does not explore."""
        if not isinstance(self.algorithm, MAML):
            raise UserError(f"job {self.name}: MAML is expected, {type(self.algorithm).__name__} came")
        return self.algorithm

    @property
    def network(self) -> Network | None:
        """What is differentiated by hand; none where torch.func does it."""
        if self.vectorize != "adjoint" or not hasattr(self.tasks, "output_loss"):
            return None
        return cast(Network | None, getattr(self.model, "network", None))

    def init(self) -> MetaState:
        """The state before the first outer step: a function of the seed."""
        return self.outer.init(self.model.init(self.seed, self.tasks.signature))

    def prepare(self) -> str:
        """Makes the data ready, for training and every test; returns their SHA-256. UserError where they do not do."""
        self.init()  # a network that does not suit the tasks is refused, too
        digest = self.tasks.prepare()
        for evaluation in (self.validation, *self.evaluations):
            try:
                evaluation.tasks_of(self.tasks).prepare()
            except UserError as error:
                raise UserError(f"evaluations.{evaluation.name}: {error}") from error
        return digest

    def blocks(self, stream: Stream, iteration: int, count: int) -> list[list[int]]:
        """The seeds of `count` tasks, cut into blocks."""
        return self._cut(task_seeds(self.seed, stream, iteration, count))

    def blocks_of(self, evaluation: Evaluation, split: Split) -> list[list[int]]:
        """The seeds of the tasks of an evaluation on a split, cut into blocks."""
        if evaluation.numbered and split == "test":
            return self._cut(list(range(evaluation.num_tasks)))
        return self.blocks("test" if split == "test" else "validation", 0, evaluation.num_tasks)

    def _cut(self, seeds: list[int]) -> list[list[int]]:
        return [seeds[start : start + self.tasks_per_block] for start in range(0, len(seeds), self.tasks_per_block)]
