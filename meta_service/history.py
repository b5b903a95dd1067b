"""What a run did, event by event: a file that can be checked afterwards, whatever happened to the run.

`META_HISTORY=FILE` switches it on. A line is one event, of this process, in the order it happened here:

    resumed    step, state, theta                                a driver begins from this state
    issued     step, theta, round, question, block, worker       a block was asked of a worker
    accepted   step, theta, round, question, block, worker       its first result was taken
    dropped    step, theta, round, question, block, worker       a later result of the same block, or of another round,
                                                                 was not
    updated    step, state, theta, before, blocks                an outer step led from the state `before` to `state`
    committed  step, state, where                                a store holds a checkpoint of it, its pointer included
    delivered  first, last                                       MLflow has all metrics between these two places of the
                                                                 spool
    owned      by                                                a driver became the one owner of the run

`step` is the number of outer steps that led to a state, or that will have led to the one that is being made: what is
accepted for step 1 makes the state of step 1. It is null where an evaluation asks. A driver counts its rounds: all
blocks are asked the same `question` once a round, and have one accepted answer in it. A step of supervised learning is
one round ("gradient"), one of policies many ("gradient" first). `state` and `theta` are SHA-256 digests; theta is a
part of the state it stands beside, or what an answer was computed for.
"""

import json
import os
import time
from typing import Any, Literal

Kind = Literal["resumed", "issued", "accepted", "dropped", "updated", "committed", "delivered", "owned"]
VARIABLE = "META_HISTORY"


def wanted() -> bool:
    """Whether anybody will look: digests that only the history needs are not worth computing otherwise."""
    return VARIABLE in os.environ


def record(kind: Kind, **fields: Any) -> None:
    """Appends an event; survives the death of this process, and its lines are never mixed with another's."""
    if not wanted():
        return
    line = json.dumps({"kind": kind, "pid": os.getpid(), "time": time.time()} | fields) + "\n"
    descriptor = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
