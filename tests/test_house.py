"""The plan of the house: who may import whom."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [path for folder in ("meta_service", "cluster", "jobs", "benchmarks") for path in (ROOT / folder).rglob("*.py")]


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Every module a file imports, anywhere in it; `from package import module` counts as the module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (below & MODULES) or {node.module}
    return names


MODULES = {module(path) for path in FILES}
GRAPH = {module(path): imports(path) for path in FILES}


def importers(package: str) -> set[str]:
    return {name for name, used in GRAPH.items() if any(f"{other}.".startswith(f"{package}.") for other in used)}


def test_there_are_no_import_circles() -> None:
    TopologicalSorter({name: used & MODULES - {name} for name, used in GRAPH.items()}).prepare()


def test_what_is_computed_knows_nothing_of_where() -> None:
    inside = {name for name in MODULES if name.startswith("meta_service")}
    assert not inside & (importers("ray") | importers("cluster") | importers("jobs"))


def test_jobs_do_not_see_the_cluster_but_through_the_command_line() -> None:
    assert {name for name in importers("cluster") if name.startswith("jobs")} == {"jobs.__main__"}
    assert not {name for name in importers("jobs") if name.startswith("cluster")}


@pytest.mark.parametrize(
    ("package", "places"),
    [
        (
            "ray",
            {
                "benchmarks.rl_sampler",
                "cluster.pool",
                "cluster.rllib",
                "cluster.submit",
                "cluster.sweep.executor",
                "cluster.sweep.trial",
            },
        ),
        ("boto3", {"meta_service.s3_store"}),
        ("optuna", {"meta_service.sweep.search", "meta_service.sweep.importance"}),
        ("mlflow", {"meta_service.delivery", "meta_service.serving"}),
    ],
)
def test_a_service_s_library_is_imported_in_its_place_alone(package: str, places: set[str]) -> None:
    assert importers(package) == places


def test_nothing_imports_the_benchmarks() -> None:
    assert {name.partition(".")[0] for name in importers("benchmarks")} == {"benchmarks"}


def test_a_contender_s_process_holds_no_more_of_the_project_than_the_allocator_setting() -> None:
    seen, waiting = set(), ["benchmarks.worker", "benchmarks.contenders.plain", "benchmarks.contenders.jax_im2col"]
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting += (GRAPH[name] & MODULES) - seen
    assert {name for name in seen if not name.startswith("benchmarks")} == {"meta_service.allocator"}


@pytest.mark.parametrize(
    ("package", "places"),
    [
        ("gymnasium", {"meta_service.environments", "benchmarks.rl_sampler"}),
        ("mujoco", {"meta_service.rl.physics", "meta_service.rl.frames"}),
    ],
)
def test_a_simulator_is_imported_in_its_place_alone(package: str, places: set[str]) -> None:
    assert importers(package) == places


def test_matplotlib_is_imported_by_the_plots_alone() -> None:
    plots = {name for name in importers("matplotlib") if not name.startswith("meta_service.plots.")}
    assert plots == {"benchmarks.pictures"}


@pytest.mark.parametrize("floor", ["algorithms", "outer", "tasks"])
def test_algorithms_outer_updates_and_tasks_do_not_know_each_other(floor: str) -> None:
    others = {"algorithms", "outer", "tasks"} - {floor}
    for name, used in GRAPH.items():
        if name.startswith(f"meta_service.{floor}."):
            assert not any(module.startswith(f"meta_service.{other}") for module in used for other in others), name
