"""How much of a worker's death its block, or its own start, is to blame for."""

import pytest
from ray.exceptions import ActorUnavailableError, ObjectLostError, RayActorError, RayError

from cluster.deaths import MAX_DEATHS, WITH_ITS_NODE, blame_of


@pytest.mark.parametrize(
    ("error", "blame"),
    [
        (RayActorError(None, "The actor is dead because its worker process has died. Exit type: SYSTEM_ERROR"), 1.0),
        (RayActorError(None, "The actor died because its node has died. Node Id: 0f1d"), WITH_ITS_NODE),
        (RayActorError(None, "The actor never ran - it was cancelled before it started running."), WITH_ITS_NODE),
        (ActorUnavailableError("The actor is temporarily unavailable: RPC error: Socket closed", None), WITH_ITS_NODE),
        (ObjectLostError("ab" * 14, None, ""), 0.0),
    ],
)
def test_a_death_counts_a_quarter_if_the_node_went_with_it_and_nothing_if_the_block_was_done(
    error: RayError, blame: float
) -> None:
    assert blame_of(error) == blame


def test_nodes_may_be_lost_under_a_worker_more_often_than_it_may_die_by_itself() -> None:
    assert MAX_DEATHS / WITH_ITS_NODE == 12
