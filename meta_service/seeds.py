"""Names of tasks: counter-based seeds, so that no generator's state has to be kept or restored."""

from typing import Literal

import numpy as np

Stream = Literal["train", "validation", "test"]
_STREAMS: dict[Stream, int] = {"train": 0, "validation": 1, "test": 2}


def task_seeds(seed: int, stream: Stream, iteration: int, count: int) -> list[int]:
    """The seeds of `count` tasks: a function of its arguments alone; more tasks continue the same list."""
    sequence = np.random.SeedSequence((seed, _STREAMS[stream], iteration))
    return [int(word) for word in sequence.generate_state(count, np.uint64)]
