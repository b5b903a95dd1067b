"""`block`: what a worker would compute, in this process."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from click.testing import CliRunner, Result

import jobs
from cluster.local import Surroundings
from cluster.runs import Runs
from jobs.__main__ import program
from meta_service.artifacts import open_store
from meta_service.checkpoint import Checkpoints
from meta_service.driver import meta_train
from meta_service.job import Evaluation
from meta_service.params import norm
from meta_service.pool import LocalPool, learner_of
from meta_service.state import MetaState
from tests.cluster.small import Nobody

RUN = "sinusoid-of-blocks"
JOB = replace(
    jobs.find("sinusoid"),
    iterations=3,
    meta_batch_size=6,
    tasks_per_block=2,
    validation=Evaluation("validation", num_tasks=4, steps=1),
    evaluations=(Evaluation("numbered", num_tasks=4, steps=1, numbered=True),),
)


@pytest.fixture(scope="module")
def state(surroundings: Surroundings) -> Iterator[MetaState]:
    """The latest checkpoint of a run of three steps, that goes on."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in surroundings.env.items():
            patch.setenv(name, value)
        runs = Runs(open_store(surroundings.artifacts))
        runs.create(RUN, replace(JOB, iterations=10))
        state = meta_train(JOB, LocalPool.of(JOB), JOB.init(), Nobody())
        Checkpoints(runs.store(RUN)).save(state)
        yield state


def block(*arguments: str) -> Result:
    return CliRunner().invoke(program, ["block", RUN, *arguments])


def test_a_block_of_the_next_outer_step_gives_the_loss_and_gradient_that_a_worker_would_send(state: MetaState) -> None:
    seeds = JOB.blocks("train", 3, 6)[1]
    expected = learner_of(JOB).meta_gradient(state.params, seeds).mean()
    output = block("--block", "1").output
    assert f"job sinusoid (seed 0), outer step 4, block 1 with the task seeds {seeds}" in output
    assert f"loss {expected.loss:.6g}, norm of the meta-gradient {norm(expected.grads):.6g}" in output


def test_a_block_of_an_evaluation_gives_its_adaptation_curve(state: MetaState) -> None:
    seeds = JOB.blocks("validation", 0, 4)[1]
    curve = learner_of(JOB).curves(state.params, seeds, "validation", JOB.validation).mean(0)
    output = block("--block", "1", "--evaluation", "validation", "--split", "validation").output
    assert f"evaluation validation, block 1 with the task seeds {seeds}" in output
    assert f"{curve[0]:.4g} {curve[1]:.4g}" in output


def test_a_block_of_numbered_tests_is_found_by_its_numbers(state: MetaState) -> None:
    output = block("--block", "1", "--evaluation", "numbered", "--split", "test").output
    assert "evaluation numbered, block 1 with the task seeds [2, 3]" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--block", "3"], "--block: one of 0 to 2 is expected, 3 came"),
        (["--block", "0", "--evaluation", "tests"], "--evaluation: one of validation, "),
    ],
)
def test_a_block_there_is_none_of_is_refused_in_one_line(state: MetaState, arguments: list[str], message: str) -> None:
    result = block(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
