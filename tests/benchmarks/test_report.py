"""What a record says as tables and pictures, and how it comes into the documentation."""

import re

import pytest

from benchmarks import tables
from benchmarks.documents import PAGE, filled
from benchmarks.figures import Figure, Record
from benchmarks.pictures import growth_figure, pictures, speed_figure
from meta_service.errors import UserError


def rows(table: str) -> dict[str, list[str]]:
    """The cells of each line by its first one."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    return {line[0]: line[1:] for line in lines}


def test_a_figure_is_the_median_over_turns_of_each_turn_s_median() -> None:
    walls = [[1.0, 9.0, 2.0], [4.0], [3.0, 3.0, 30.0]]
    assert Figure("W1", "plain", "kept", 1, 0.0, 0.0, 0.0, walls, walls).ms == 3.0


def test_a_record_is_the_same_after_it_was_written_and_read(record: Record) -> None:
    assert Record.from_json(record.to_json()) == record


def test_beside_an_earlier_run_a_workload_measured_again_is_of_the_later_one_alone(record: Record) -> None:
    later = record._replace(figures=[record.figures[0]._replace(wall=[[7.0]])], skipped=[], growth=[], service={})
    both = later.beside(record)
    assert [figure.ms for figure in both.figures if figure.workload == "W1"] == [7.0]
    assert both.workloads() == ["W3", "W1"]
    assert (both.growth, both.service, both.skipped) == (record.growth, record.service, record.skipped)
    assert both.about["command"] == "make bench; make bench"


def test_runs_of_different_machines_or_code_are_not_put_beside_each_other(record: Record) -> None:
    other = record._replace(about=record.about | {"processor": "another"})
    with pytest.raises(UserError, match="--beside: a run with the same processor is expected"):
        record.beside(other)


def test_the_speed_of_one_and_two_threads_stands_side_by_side_with_the_best_of_a_contender_bold(record: Record) -> None:
    found = rows(tables.speed(record))
    assert found["TorchOpt"] == ["40.0 / 36.0", "–"]
    assert found["TorchOpt, our allocator setting"] == ["**32.0** / –", "–"]
    assert found["plain loop, our allocator setting"] == ["–", "– / **4,000**"]


@pytest.mark.parametrize(
    ("title", "w1", "w3"),
    [
        ("2 workers: ahead of the best PyTorch peer as shipped", "9.00 x", "–"),
        ("2 workers: ahead of the best PyTorch peer given our allocator setting", "8.00 x", "–"),
        ("2 workers: ahead of JAX", "0.750 x", "–"),
        ("in process: ahead of the best PyTorch peer as shipped, one thread", "20.0 x", "–"),
        ("in process: share of the limit, one thread", "75%", "75%"),
        ("2 workers: ahead of 1", "2.00 x", "–"),
    ],
)
def test_the_ratios_are_of_the_settings_they_name(record: Record, title: str, w1: str, w3: str) -> None:
    assert rows(tables.ratios(record))[title] == [w1, w3]


def test_the_agreement_shows_the_error_and_the_first_call(record: Record) -> None:
    found = rows(tables.agreement(record))
    assert found["this project, in process"] == ["3e-16, 0.500 s", "1e-14, 0.500 s"]
    assert found["plain loop"][0] == "0, 0.500 s"
    assert found["this project, through Ray"] == ["0.500 s", "–"]


def test_who_did_not_run_is_named_with_the_reason(record: Record) -> None:
    text = tables.skipped(record)
    assert "- W3, JAX, jit + im2col: jax is not installed" in text
    ours = "this project, without a C compiler, this project, compile=true, this project, precision=bf16"
    assert f"- W1: not run in this record: {ours}, higher, JAX, jit + im2col" in text


def test_growth_and_service_have_their_numbers(record: Record) -> None:
    assert rows(tables.growth(record))["plain"] == ["30.0 ms, 101 MB", "150 ms, 105 MB"]
    assert rows(tables.service(record))["tracked in MLflow, checkpoints in S3"] == ["104", "100", "3.9%"]


def test_a_record_without_growth_and_service_says_so(record: Record) -> None:
    found = tables.tables(record._replace(growth=[], service={}))
    assert found["growth"] == found["service"] == "Not measured in this run."


@pytest.mark.parametrize("value", [(0.5641, "0.564"), (5.641, "5.64"), (36.91, "36.9"), (1304.9, "1,305")])
def test_numbers_have_three_figures(value: tuple[float, str]) -> None:
    assert tables.number(value[0]) == value[1]


def test_every_contender_has_a_bar_with_its_milliseconds_and_setting(record: Record) -> None:
    drawing = speed_figure(record)
    first = drawing.axes[0]
    texts = [text.get_text() for text in first.texts]
    assert len(first.patches) == len(texts) == 7
    assert "4.00 ms  (2 workers)" in texts
    assert "32.0 ms  (1 thread, our allocator)" in texts
    assert first.get_xscale() == "log"


def test_each_axis_of_growth_has_a_panel_and_the_inner_steps_one_for_memory(record: Record) -> None:
    drawing = growth_figure(record)
    titles = [axes.get_title(loc="left") for axes in drawing.axes]
    assert titles == ["time (ms) by inner steps", "peak memory (MB) by inner steps"]
    assert [line.get_ydata().tolist() for line in drawing.axes[0].lines] == [[10.0, 50.0], [30.0, 150.0]]  # type: ignore[union-attr]


def test_the_pictures_are_png_files_and_only_of_what_was_measured(record: Record) -> None:
    found = pictures(record)
    assert sorted(found) == ["bench_growth.png", "bench_speed.png"]
    assert all(data.startswith(b"\x89PNG") for data in found.values())
    assert sorted(pictures(record._replace(growth=[]))) == ["bench_speed.png"]


def test_the_documentation_has_a_place_for_every_table_and_keeps_its_prose(record: Record) -> None:
    written = tables.tables(record)
    before = PAGE.read_text()
    text = filled(before, written)
    assert all(f"<!-- bench: {name} -->\n{table}\n<!-- end -->" in text for name, table in written.items())
    assert filled(text, written) == text

    def prose(page: str) -> str:
        return re.sub(r"<!-- bench: .*?<!-- end -->", "", page, flags=re.DOTALL)

    assert prose(text) == prose(before)


def test_a_table_without_a_place_in_the_documentation_is_an_error() -> None:
    with pytest.raises(UserError, match="bench: speed"):
        filled("no marks", {"speed": "| |"})
