"""A policy in a user's hands: it acts, and adapts to an environment or to trajectories."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

import jobs
import meta_service.environments  # noqa: F401 - registers them
from meta_service.artifacts import DirectoryStore
from meta_service.checkpoint import Checkpoints
from meta_service.dotted import to_json
from meta_service.errors import UserError
from meta_service.evaluation import AdaptationCurve
from meta_service.load import load
from meta_service.plots import adaptation_figure, training_figure
from meta_service.plots.policies import paths_figure, policy_pictures
from meta_service.policies import Policy, Trajectory
from meta_service.rl.frames import draw

JOB = jobs.find("navigation")
CHEETAH = jobs.find("cheetah_direction")


def policy_of(job: object = JOB) -> Policy:
    return Policy(job, job.init().params)  # type: ignore[attr-defined, arg-type]


def test_acting_gives_the_mean_action_within_its_limits_for_one_and_many() -> None:
    policy = policy_of()
    seen = np.random.default_rng(0).normal(size=(5, 2))
    many = policy.act(seen)
    mean = JOB.model.apply(policy.params, torch.from_numpy(seen).float()).numpy()
    assert many == pytest.approx(mean.clip(-1, 1))
    assert policy.act(seen[2]) == pytest.approx(many[2])
    assert policy.act(seen[2]).shape == (2,)


def test_exploring_draws_from_the_policy() -> None:
    policy, generator = policy_of(), np.random.default_rng(0)
    seen = np.zeros((4000, 2))
    drawn = policy.act(seen, explore=True, generator=generator)
    assert drawn.std(0) == pytest.approx(1.0, abs=0.05)
    assert np.abs(drawn).max() > 1


def test_adapting_in_an_environment_is_adapting_to_what_is_met_there() -> None:
    env, policy = gymnasium.make("meta_service/Navigation-v0", goal=(0.3, -0.2)), policy_of()
    adapted = policy.adapt(env, trajectories=4, seed=1)
    met = policy._met(env, 4, np.random.default_rng(1))
    again = policy.adapt(met)
    assert adapted.steps == again.steps == 1
    for name in policy.params:
        assert torch.equal(adapted.params[name], again.params[name])
    assert any(not torch.equal(adapted.params[name], policy.params[name]) for name in policy.params)


def test_an_environment_is_met_for_as_many_steps_as_in_training_where_the_job_counts_them() -> None:
    env, policy = gymnasium.make("meta_service/Navigation-v0", goal=(0.005, 0.0)), policy_of()
    policy.params = {name: torch.full_like(value, -4.0 * (name == "log_std")) for name, value in policy.params.items()}
    for by_steps in (True, False):
        policy.job = replace(JOB, tasks=replace(JOB.tasks, shots=3, horizon=20, by_steps=by_steps))
        lengths = [len(one.rewards) for one in policy._met(env, None, np.random.default_rng(5))]
        assert len(lengths) > 3 if by_steps else len(lengths) == 3
        assert sum(lengths) >= 60 > sum(lengths[:-1]) if by_steps else sum(lengths) < 60


def test_steps_after_the_first_are_of_half_the_size() -> None:
    policy = policy_of()
    met = [(np.random.default_rng(k).normal(size=(6, 2)), np.ones((6, 2)), np.arange(6.0) * k) for k in range(3)]
    first = policy.adapt(met)
    second = first.adapt(met)
    alone = Policy(JOB, first.params).adapt(met)
    change = {name: second.params[name] - first.params[name] for name in policy.params}
    whole = {name: alone.params[name] - first.params[name] for name in policy.params}
    assert all(torch.allclose(change[name], 0.5 * whole[name], atol=1e-6) for name in policy.params)


def test_trajectories_of_different_lengths_are_masked() -> None:
    policy, generator = policy_of(), np.random.default_rng(0)
    met = [Trajectory(generator.normal(size=(T, 2)), generator.normal(size=(T, 2)), np.ones(T)) for T in (3, 7)]
    batch = policy._batch(met)
    assert batch.mask.sum(1).tolist() == [3, 7]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "at least one"),
        ([(np.ones((3, 2)), np.ones((3, 1)), np.ones(3))], r"actions \[T, 2\]"),
        ([(np.ones((3, 2)), np.ones((3, 2)), np.array([1.0, np.nan, 1.0]))], "finite"),
    ],
)
def test_trajectories_that_cannot_be_are_refused_in_one_line(source: list[object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        policy_of().adapt(source)


def test_an_observation_of_another_size_is_refused() -> None:
    with pytest.raises(UserError, match=r"observation: \[2\] or \[n, 2\] is expected, \[3\] came"):
        policy_of().act(np.zeros(3))


def test_a_run_of_policies_loads_as_a_policy(tmp_path: object) -> None:
    store = DirectoryStore(tmp_path)  # type: ignore[arg-type]
    store.write("job.json", to_json(CHEETAH).encode())
    Checkpoints(store).save(CHEETAH.init())
    policy = load(str(tmp_path))
    env = gymnasium.make("meta_service/HalfCheetahDirectionFinn2017-v0", goal=1.0)
    adapted = policy.adapt(env, steps=1, trajectories=2)
    observation, _ = env.reset(seed=0)
    assert adapted.act(observation).shape == env.action_space.shape


SMALL = replace(JOB, tasks=replace(JOB.tasks, shots=3, horizon=10))  # type: ignore[type-var]


def test_paths_are_drawn_for_every_task_and_step() -> None:
    figure = paths_figure(SMALL, SMALL.init().params, [1, 2], [0, 1, 3])
    assert len(figure.axes) == 2
    for axes in figure.axes:
        labels = [line.get_label() for line in axes.get_lines()]
        assert [label for label in labels if not label.startswith("_")] == [
            "before",
            "after 1 step",
            "after 3 steps",
            "goal",
        ]
        assert len(labels) == 3 * 3 + 2


def test_where_no_robot_can_be_drawn_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(UserError, match="the robot cannot be drawn here") as refusal:
        draw("cheetah", "finn2017", np.zeros((1, 9)))
    assert "\n" not in str(refusal.value)


def test_the_robot_s_contact_sheet_is_a_picture() -> None:
    job = replace(CHEETAH, tasks=replace(CHEETAH.tasks, shots=2, horizon=12))  # type: ignore[type-var]
    try:
        kept = policy_pictures(job, job.init().params, [1])
    except UserError as error:
        pytest.skip(str(error))
    assert kept["robot.png"][:8] == b"\x89PNG\r\n\x1a\n"


def test_returns_are_drawn_as_they_come_negative_ones_included() -> None:
    curve = AdaptationCurve("return", (-40.0, -11.0, -3.0), (2.0, 1.0, 0.5), {"tasks": 40}, 1)
    figure = adaptation_figure({"paper": curve})
    assert figure.get_suptitle() == "paper: -40.0 → -11.0 in 1 gradient step"
    axes = figure.axes[0]
    assert axes.get_ylim()[0] < -42
    assert axes.get_ylabel() == "return of a trajectory"
    assert "best: -11.00" in str([text.get_text() for text in training_figure([(0, curve)], []).axes[0].texts])
