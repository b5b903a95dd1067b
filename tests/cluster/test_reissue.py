"""Answers that come late, twice, to the wrong question or never, on real actors: the same bits, and nothing waits."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.crew import Member
from cluster.pool import RayPool
from meta_service.driver import meta_train
from meta_service.job import JobSpec, Resources
from meta_service.objective import MetaGradient
from meta_service.params import sha256
from meta_service.pool import LocalPool
from meta_service.state import MetaState
from tests.cluster.hostile import Confused, Counting, Holder, Hostile
from tests.cluster.small import POLICIES, SINUSOID, Nobody, digest, pool_of

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What was recorded, by kind."""
    file = tmp_path / "history"
    monkeypatch.setenv("META_HISTORY", str(file))

    def of_kind(kind: str) -> list[dict[str, Any]]:
        return [event for event in map(json.loads, file.read_text().splitlines()) if event["kind"] == kind]

    return of_kind


JOB = replace(SINUSOID, iterations=12, validate_every=4)


def hostile(deed: str, folder: Path) -> JobSpec:
    return replace(JOB, tasks=Hostile(deed, str(folder)))


def look(pool: RayPool) -> None:
    """Asks something of its workers."""
    pool.curves(JOB.init().params, JOB.blocks("validation", 0, 4), "validation", JOB.validation)


def everybody(pool: RayPool) -> RayPool:
    """Waits until no worker is still starting: the first to come would set the pace."""
    while pool.crew.starting:
        look(pool)
    return pool


def eventually(what: str, seconds: float = 60) -> Iterator[None]:
    """Turns of a loop that its body leaves when it is so."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
    pytest.fail(f"not so within {seconds:g} s: {what}")


def test_a_slow_worker_s_blocks_are_done_by_others_and_its_late_answers_dropped(tmp_path: Path, events: Any) -> None:
    job, expected = hostile("slow", tmp_path), digest(JOB, LocalPool.of(JOB))
    pool = everybody(pool_of(job, 3))
    os.truncate(os.environ["META_HISTORY"], 0)
    assert meta_train(job, pool, job.init(), Nobody()).sha256() == expected
    slow = next(m.number for m in pool.crew.members if process_of(m) == int((tmp_path / "done").read_text()))
    assert [event["step"] for event in events("updated")] == list(range(1, 13))
    accepted = Counter((event["round"], event["block"]) for event in events("accepted"))
    assert set(accepted.values()) == {1}
    assert len(accepted) == sum(event["blocks"] for event in events("updated")) + 4 * 4  # and the validation's
    late = next(event for event in events("dropped") if event["worker"] == slow and event["step"])
    assert late["time"] > next(event["time"] for event in events("updated") if event["step"] == late["step"])
    assert len({event["theta"] for event in events("accepted") if event["step"]}) == 12
    for _ in eventually("it works on, when it is forgiven"):
        look(pool)
        if any(event["worker"] == slow and event["time"] > late["time"] for event in events("accepted")):
            break
    pool.close()


def test_a_hung_worker_holds_nothing_up_where_there_are_others(tmp_path: Path, events: Any) -> None:
    job, said = hostile("hang once", tmp_path), list[str]()
    pool = pool_of(job, 2, said)
    assert meta_train(job, pool, job.init(), Nobody()).sha256() == digest(JOB, LocalPool.of(JOB))
    assert not said, "nobody has lost patience yet"
    assert is_stopped(int((tmp_path / "done").read_text()))
    pool.close()
    gone(int((tmp_path / "done").read_text()))


def test_a_hung_worker_that_was_alone_is_killed_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.pace.UNKNOWN", 3)
    job, said = hostile("hang once", tmp_path), list[str]()
    job = replace(job, resources=Resources(workers=1, cpus_per_worker=2.5, patience_s=1))  # of 4: there is room for one
    pool = RayPool(job, job.init().params, said.append)
    assert meta_train(job, pool, job.init(), Nobody()).sha256() == digest(JOB, LocalPool.of(JOB))
    assert "a worker has not answered for" in said[0]
    gone(int((tmp_path / "done").read_text()))
    pool.close()


def test_trajectories_at_a_hung_worker_are_gathered_by_another_to_the_same_bits() -> None:
    blocks, theta = POLICIES.blocks("train", 0, 7), POLICIES.init().params
    pool, here = pool_of(POLICIES, 2), LocalPool.of(POLICIES).objective(blocks)
    objective: Any = pool.objective(blocks)
    gradient = objective.gradient(theta).mean().grads
    objective.curvature(theta, gradient)
    hung = objective.homes[0]
    os.kill(process_of(hung), signal.SIGSTOP)
    assert sha256(objective.curvature(theta, gradient)) == sha256(here.curvature(theta, gradient))  # type: ignore[attr-defined]
    assert hung not in objective.homes.values()
    pool.close()


def test_an_answer_to_another_question_is_dropped_and_asked_for_again(events: Any) -> None:
    class Pool(RayPool):
        worker = Confused

    job = replace(SINUSOID, iterations=1, resources=Resources(workers=1, cpus_per_worker=0.5))
    pool = Pool(job, job.init().params, print)
    assert digest(job, pool) == digest(job, LocalPool.of(job))
    assert len(events("dropped")) == 1
    pool.close()


def test_a_worker_for_which_there_is_room_later_is_used_from_then_on(events: Any) -> None:
    holder = ray.remote(Holder).options(num_cpus=2).remote()  # type: ignore[attr-defined]
    ray.get(holder.here.remote())
    job = replace(JOB, iterations=10**6, resources=Resources(workers=2, cpus_per_worker=1.5))  # of 4: room for one
    pool = RayPool(job, job.init().params, print)
    workers: list[set[int]] = []  # of each step

    class Watching(Nobody):
        def stepped(self, state: MetaState, mean: MetaGradient) -> None:
            workers.append({event["worker"] for event in events("accepted")})
            os.truncate(os.environ["META_HISTORY"], 0)
            if state.iteration == 1:
                ray.kill(holder)

    turns = eventually("both do blocks of three steps")
    meta_train(job, pool, job.init(), Watching(), lambda: next(turns) or workers.count({0, 1}) == 3)
    assert len(workers[0]) == 1
    pool.close()


def test_tasks_drawn_in_advance_are_used_and_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pool(RayPool):
        worker = Counting

    monkeypatch.setattr("cluster.pool.AHEAD_S", 0.0)
    job = replace(JOB, resources=Resources(workers=2, cpus_per_worker=0.5))
    pool = everybody(Pool(job, job.init().params, print))
    assert digest(job, pool) == digest(job, LocalPool.of(job))
    ahead = [ray.get(m.actor.__ray_call__.remote(lambda worker: worker.ahead)) for m in pool.crew.members]
    assert 0 < sum(ahead) <= 2 * (job.iterations - 1)
    assert max(ahead) >= job.iterations // 4
    pool.close()


def process_of(member: Member) -> int:
    """Its id."""
    return int(ray.get(member.actor.__ray_call__.remote(lambda worker: os.getpid())))


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def gone(pid: int) -> None:
    """Returns when there is no such process."""
    for _ in eventually("a hung worker is ended"):
        if not Path(f"/proc/{pid}/stat").exists() or ") Z" in Path(f"/proc/{pid}/stat").read_text():
            break
        time.sleep(0.1)


def test_a_worker_that_hangs_while_it_starts_is_replaced(tmp_path: Path) -> None:
    job = replace(SINUSOID, tasks=Hostile("hang at start", str(tmp_path)))
    job = replace(job, resources=Resources(1, cpus_per_worker=0.5, patience_s=1.5))
    pool = RayPool(job, job.init().params, print)
    assert digest(replace(SINUSOID, tasks=Hostile()), pool) == digest(SINUSOID, LocalPool.of(SINUSOID))
    pool.close()
