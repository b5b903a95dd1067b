"""Dotted names: what a user may type, what is refused and how, and JSON that executes nothing."""

import json
from dataclasses import replace

import pytest

import jobs
from meta_service.dotted import flatten, from_json, override, to_json
from meta_service.errors import UserError

JOB = jobs.find("omniglot")


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("tasks.shots=5", "tasks.shots", 5),
        ("algorithm.first_order=true", "algorithm.first_order", True),
        ("algorithm.inner_lr=1", "algorithm.inner_lr", 1.0),
        ("outer.clip=none", "outer.clip", None),
        ("outer.meta_lr=1e-4", "outer.meta_lr", 1e-4),
        ("tasks.split=vinyals", "tasks.split", "vinyals"),
        ("algorithm.frozen=('norm*','conv*')", "algorithm.frozen", ("norm*", "conv*")),
        ("algorithm.frozen=norm*", "algorithm.frozen", ("norm*",)),
        ("evaluations.strict.num_tasks=100", "evaluations.strict.num_tasks", 100),
        ("evaluations.paper.query_shots=shots", "evaluations.paper.query_shots", "shots"),
    ],
)
def test_a_field_takes_the_value_given(assignment: str, name: str, value: object) -> None:
    changed = flatten(override(JOB, [assignment]))
    assert changed[name] == value
    assert type(changed[name]) is type(value)
    assert {k for k, v in flatten(JOB).items() if v != changed[k]} <= {name}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("tasks.shot=5", "there is no field 'tasks.shot'; the nearest is 'tasks.shots'"),
        ("inner_lr=0.1", "there is no field 'inner_lr'; the nearest is 'algorithm.inner_lr'"),
        ("tasks.shots=five", "tasks.shots: int is expected, 'five' came"),
        ("tasks.shots=1.5", "tasks.shots: int is expected, '1.5' came"),
        ("algorithm.first_order=1", "algorithm.first_order: bool is expected, '1' came"),
        ("tasks.loss_scale=sum", "tasks.loss_scale: one of sum_over_k, mean is expected, 'sum' came"),
        ("tasks.shots", "NAME=VALUE is expected"),
        ("tasks=5", "there is no field 'tasks'"),
        ("meta_batch_size=0", "meta_batch_size: at least 1 is expected, 0 came"),
        ("algorithm.inner_lr=-1", "inner_lr > 0"),
        ("resources.workers=-1", "numbers >= 0 are expected"),
    ],
)
def test_a_wrong_name_or_type_is_refused_with_what_would_be_right(assignment: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        override(JOB, [assignment])
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", jobs.names())
def test_every_job_survives_json(name: str) -> None:
    job = jobs.find(name)
    assert from_json(to_json(job)) == job


def test_json_may_not_name_classes_of_other_packages() -> None:
    text = json.dumps({"class": "subprocess:Popen", "args": "true"})
    with pytest.raises(UserError, match="not of this project"):
        from_json(text)


def test_json_may_not_name_anything_but_a_dataclass() -> None:
    with pytest.raises(UserError, match="no dataclass"):
        from_json(json.dumps({"class": "meta_service.dotted:from_json", "text": "{}"}))


def test_json_with_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(UserError, match="a job as written by this version is expected"):
        from_json(to_json(JOB).replace('"iterations": 60000', '"iterations": "many"'))


def test_an_unknown_job_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="there is no job 'omniglott'; the nearest is 'omniglot'"):
        jobs.find("omniglott")


def test_equal_jobs_have_equal_flat_fields() -> None:
    assert flatten(replace(JOB)) == flatten(JOB)
