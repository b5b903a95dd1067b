"""The runs of a store, whatever its files look like."""

from pathlib import Path

import jobs
from cluster.runs import Runs
from meta_service.artifacts import open_store


def test_a_run_whose_status_was_torn_is_lost_and_can_go_on(tmp_path: Path) -> None:
    runs = Runs(open_store(str(tmp_path)))
    runs.create("a", jobs.find("sinusoid"))
    assert runs.status("a").state == "QUEUED"
    for torn in (b"", runs.store("a").read("status.json")[:100]):
        runs.store("a").write("status.json", torn)
        assert runs.status("a").state == "LOST"
        assert runs.mlflow_run_id("a") is None
        runs.queue("a")
        assert runs.status("a").state == "QUEUED"
