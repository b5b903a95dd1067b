"""Whether a history keeps the promise: nothing lost, nothing counted twice, whatever was done to the run."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

Event = Mapping[str, Any]
"""As `meta_service.history` describes them, in the order they happened."""


def violations(events: Iterable[Event]) -> list[str]:
    """What the history of one run does not keep, a line each; nothing where all is well.

    - Of every block one answer is taken in a round of questions, and it had been asked for. A step is made of rounds
      that have all of its blocks, each for the theta of the state before it.
    - The steps of a driver are one chain from the state it resumed from.
    - A driver resumes from a state that was reached before, and never from before the last checkpoint.
    - A step leads to one digest, however often it is made, and its checkpoint holds that digest. A step whose
      checkpoint is stored is not made again.
    - Only the owner stores checkpoints. What was delivered has no gap.
    """
    past = _Past()
    for event in events:
        past.take(event)
    return past.wrong


class _Past:
    """What is known at a moment of the history."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.at: tuple[int, str] | None = None  # step and state of the driver at work,
        self.theta = ""  # and its theta
        self.digests: dict[int, str] = {}  # of the state after each step
        self.committed = 0  # the last step with a checkpoint
        self.asked: set[tuple[Any, ...]] = set()  # (round, block, theta) of this driver
        self.rounds: dict[int, list[int]] = defaultdict(list)  # blocks accepted for the step that is being made
        self.evaluated: set[tuple[int, int]] = set()  # (round, block) accepted outside of steps
        self.owner: int | None = None
        self.delivered = 0  # up to this place of the spool

    def take(self, event: Event) -> None:
        handlers = {
            "resumed": self.resumed,
            "issued": self.issued,
            "accepted": self.accepted,
            "updated": self.updated,
            "committed": self.stored,
            "delivered": self.sent,
            "owned": self.owned,
        }
        if event["kind"] in handlers:
            handlers[event["kind"]](event)

    def resumed(self, event: Event) -> None:
        step = event["step"]
        if step < self.committed:
            self.say(step, f"is resumed from, although there is a checkpoint of step {self.committed}")
        if step and step not in self.digests:
            self.say(step, "is resumed from, but was never reached")
        self.reached(event)
        self.at, self.theta = (step, event["state"]), event["theta"]
        self.asked, self.evaluated = set(), set()
        self.rounds.clear()

    def issued(self, event: Event) -> None:
        self.asked.add((event["round"], event["block"], event["theta"]))

    def accepted(self, event: Event) -> None:
        step, number, block, theta = (event[name] for name in ("step", "round", "block", "theta"))
        if (number, block, theta) not in self.asked:
            self.say(step, f"takes an answer of block {block}, round {number}, that nobody was asked for")
        if step is None:
            if (number, block) in self.evaluated:
                self.say(step, f"takes block {block} twice in round {number}")
            self.evaluated.add((number, block))
            return
        if self.at and step != self.at[0] + 1:
            self.say(step, f"gets an answer of block {block} while step {self.at[0] + 1} is made")
        if block in self.rounds[number]:
            self.say(step, f"takes block {block} twice in round {number}")
        self.rounds[number].append(block)
        if theta != self.theta:
            self.say(step, f"takes block {block} for theta {theta[:8]}, the state before has {self.theta[:8]}")

    def updated(self, event: Event) -> None:
        step, before = event["step"], event["before"]
        if self.at is None:
            self.say(step, "is made by a driver that did not say where it begins")
        elif (step - 1, before) != self.at:
            self.say(step, f"is made from state {before[:8]}, after step {self.at[0]} with state {self.at[1][:8]}")
        if step <= self.committed:
            self.say(step, f"is made again, although there is a checkpoint of step {self.committed}")
        if not self.rounds:
            self.say(step, "is made of no block")
        for number, blocks in self.rounds.items():
            if sorted(set(blocks)) != list(range(event["blocks"])):
                self.say(step, f"has blocks {sorted(blocks)} in round {number}, of {event['blocks']}")
        self.reached(event)
        self.at, self.theta = (step, event["state"]), event["theta"]
        self.rounds.clear()

    def stored(self, event: Event) -> None:
        if event["step"] and event["step"] not in self.digests:
            self.say(event["step"], "has a checkpoint, but was never reached")
        if self.owner is not None and event["pid"] != self.owner:
            self.say(event["step"], f"is stored by process {event['pid']}; {self.owner} owns the run")
        self.reached(event)
        self.committed = max(self.committed, event["step"])

    def sent(self, event: Event) -> None:
        if event["first"] > self.delivered:
            self.wrong.append(f"delivery goes on at {event['first']} of the spool, it had come to {self.delivered}")
        self.delivered = max(self.delivered, event["last"])

    def owned(self, event: Event) -> None:
        self.owner = event["pid"]

    def reached(self, event: Event) -> None:
        step, state = event["step"], event["state"]
        if self.digests.setdefault(step, state) != state:
            self.say(step, f"has state {state[:8]}, and had {self.digests[step][:8]} before")

    def say(self, step: int | None, what: str) -> None:
        self.wrong.append(f"{'an evaluation' if step is None else f'step {step}'} {what}")
