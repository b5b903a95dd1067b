"""The benchmark of determinism compares sums of the same tasks."""

from benchmarks import determinism, workloads


def test_shares_are_all_tasks_in_as_many_parts_as_there_are_workers() -> None:
    for name in determinism.WORKLOADS:
        job = workloads.find(name)
        blocks = job.blocks("train", 0, job.meta_batch_size)
        parts = determinism.shares(blocks, determinism.WORKERS)
        assert len(parts) == determinism.WORKERS
        assert sorted(seed for part in parts for seed in part) == sorted(seed for block in blocks for seed in block)
