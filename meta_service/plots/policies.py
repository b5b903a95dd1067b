"""What adaptation does to a policy: paths in the plane, or a robot moment by moment."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from meta_service.job import JobSpec
from meta_service.params import Params
from meta_service.plots.style import BLUE, GREEN, GREY, INK, ORANGE, new_figure, plain, plural, png
from meta_service.policy_learner import PolicyLearner
from meta_service.rl.frames import draw
from meta_service.rl.rollout import generator
from meta_service.rl.trajectories import Trajectories
from meta_service.tasks.locomotion import Locomotion, Robots
from meta_service.tasks.navigation import Navigation

MOMENTS = 6  # pictures of a trajectory
PATHS = 8  # trajectories drawn of a task
COLORS = (GREY, ORANGE, BLUE)


def policy_pictures(job: JobSpec, params: Params, seeds: Sequence[int]) -> dict[str, bytes]:
    """PNG files of the tasks with these seeds, by name. Raises UserError where a robot cannot be drawn."""
    steps = sorted({0, 1, job.evaluations[0].steps})
    if isinstance(job.tasks, Navigation):
        return {"paths.png": png(paths_figure(job, params, seeds, steps))}
    return {"robot.png": png(robot_figure(job, params, seeds[0], steps))}


def paths_figure(job: JobSpec, params: Params, seeds: Sequence[int], steps: Sequence[int]) -> Figure:
    """Of each task the paths before and after so many steps of adaptation, and its goal."""
    assert isinstance(job.tasks, Navigation)
    seen = _after(job, params, seeds, steps)
    title = ", ".join(f"after {plural(step, 'step')} {float(seen[step].returns().mean()):.1f}" for step in steps[1:])
    title = f"Return before adaptation {float(seen[0].returns().mean()):.1f}, {title}"
    figure = new_figure(title, 3.6, 3.0 * len(seeds))
    for panel, (seed, axes) in enumerate(zip(seeds, figure.subplots(1, len(seeds), squeeze=False)[0], strict=True)):
        plain(axes)
        for step, color in zip(steps, COLORS, strict=False):
            task = seen[step].of_task(panel)
            for k in range(min(PATHS, len(task.mask))):
                path = task.observations[k, task.mask[k] > 0, :2].numpy()
                label = ("before" if step == 0 else f"after {plural(step, 'step')}") if k == 0 else None
                axes.plot(path[:, 0], path[:, 1], color=color, alpha=0.55, linewidth=0.8, label=label)
        axes.plot(
            *job.tasks.goal(seed), "*", color=GREEN, markersize=15, markeredgecolor="white", label="goal", zorder=5
        )
        axes.plot(0, 0, "o", color=INK, markersize=4, zorder=5)
        axes.set_aspect("equal")
        axes.set(xlim=(-0.7, 0.7), ylim=(-0.7, 0.7), xlabel="x (m)", ylabel="y (m)" if panel == 0 else "")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def robot_figure(job: JobSpec, params: Params, seed: int, steps: Sequence[int]) -> Figure:
    """A contact sheet: one trajectory a row, before and after so many steps of adaptation. UserError: nothing draws."""
    tasks = job.tasks
    assert isinstance(tasks, Locomotion)
    seen = _after(job, params, [seed], steps)
    positions, moments, returns = [], [], []
    for step in steps:
        task = seen[step].of_task(0)
        moments.append(np.linspace(0, max(int(task.mask[0].sum()) - 1, 0), MOMENTS).round().astype(int))
        positions.append(_replayed(tasks, seed, step, task.actions[0].numpy())[moments[-1]])
        returns.append(float((task.rewards[0] * task.mask[0]).sum()))
    pictures = draw(tasks.robot, tasks.variant, np.concatenate(positions))
    goal = float(tasks.goal(seed)[0])
    wanted = ("forward" if goal > 0 else "backward") if tasks.kind == "direction" else f"at {goal:.2f} m/s"
    name = {"cheetah": "HalfCheetah", "ant": "Ant"}[tasks.robot]
    figure = new_figure(f"{name}, to run {wanted}", 1.75 * len(steps) + 0.4, 1.9 * MOMENTS)
    grid = figure.subplots(len(steps), MOMENTS, squeeze=False)
    seconds = tasks.simulation(np.array([[goal]])).robot.seconds
    for row, step in enumerate(steps):
        for column, moment in enumerate(moments[row]):
            axes = grid[row][column]
            axes.imshow(pictures[row * MOMENTS + column])
            axes.set(xticks=(), yticks=())
            axes.spines[:].set_visible(False)
            axes.set_title(f"{moment * seconds:.2f} s, x = {positions[row][column][0]:+.2f} m", fontsize=8, color=GREY)
        said = "before" if step == 0 else f"after {plural(step, 'step')}"
        grid[row][0].set_ylabel(f"{said}\nreturn {returns[row]:.0f}", fontsize=9, color=INK)
    return figure


def _after(job: JobSpec, params: Params, seeds: Sequence[int], steps: Sequence[int]) -> dict[int, Trajectories]:
    """What the policy does in these tasks after each of these numbers of steps."""
    reached = enumerate(PolicyLearner(job).adaptation(params, seeds, max(steps)))
    return {step: trajectories for step, trajectories in reached if step in steps}


def _replayed(tasks: Locomotion, seed: int, phase: int, actions: np.ndarray) -> np.ndarray:
    """The positions [H + 1, qpos] of a task's first trajectory, from its start and its actions [H, a]."""
    robots: Robots = tasks.simulation(tasks.goal(seed)[None])
    robots.reset([generator(seed, phase, 0)])
    positions = [robots.robot.qpos[0].copy()]
    for action in actions:
        robots.step(action[None])
        positions.append(robots.robot.qpos[0].copy())
    return np.stack(positions)
