"""Why a worker is gone, and how far its block is to blame for it."""

from ray.exceptions import ActorUnavailableError, ObjectLostError, RayActorError, RayTaskError

MAX_DEATHS = 3  # a block with so many in one round is what they have in common
WITH_ITS_NODE = 0.25  # of a death: the node may have had other reasons, but not again and again


def reason_of(error: Exception) -> str:
    """What Ray says of a death, without the actor's particulars and its guesses; of an exception its last line."""
    if isinstance(error, ActorUnavailableError):
        return "it cannot be reached any more"
    if isinstance(error, RayTaskError):
        return str(error).strip().splitlines()[-1]
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
    return (lines[1] if len(lines) > 1 else str(error)).strip().partition(". ")[0]


def blame_of(error: Exception) -> float:
    """How much of a death is counted to the block: nothing where it was done and its result was lost on the way."""
    if isinstance(error, ObjectLostError):
        return 0.0
    if not isinstance(error, RayActorError):
        return 1.0
    # where the node is gone Ray cannot tell at once that the worker is, too, and says that it does not answer; and one
    # that was still starting there never ran
    said = str(error)
    gone = isinstance(error, ActorUnavailableError) or error.preempted
    with_its_node = gone or "node has died" in said or "never ran" in said
    return WITH_ITS_NODE if with_its_node else 1.0
