"""Pictures of a robot in given positions, drawn off-screen by a process of its own: graphics may be missing, or break.

python -m meta_service.rl.frames cheetah finn2017 < positions.npy > pictures.npy
"""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from meta_service.errors import UserError
from meta_service.rl.physics import Ant, HalfCheetah, Variant

HEIGHT, WIDTH = 240, 320
TIMEOUT_S = 60.0
BACKENDS = ("egl", "osmesa")
"""Of MUJOCO_GL, tried in this order where it is not set."""


def draw(robot: str, variant: Variant, positions: np.ndarray) -> np.ndarray:
    """uint8 [n, HEIGHT, WIDTH, 3] of positions [n, qpos]. UserError where nothing can draw."""
    given = io.BytesIO()
    np.save(given, positions)
    command = [sys.executable, "-m", "meta_service.rl.frames", robot, variant]
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    reason = ""
    for backend in (os.environ["MUJOCO_GL"],) if os.environ.get("MUJOCO_GL") else BACKENDS:
        env = os.environ | {"MUJOCO_GL": backend, "PYTHONPATH": path}
        try:
            done = subprocess.run(
                command, input=given.getvalue(), env=env, capture_output=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            reason = f"{backend}: nothing came in {TIMEOUT_S:g} s"
            continue
        if done.returncode == 0:
            pictures: np.ndarray = np.load(io.BytesIO(done.stdout))
            return pictures
        said = done.stderr.decode(errors="replace").strip().splitlines()
        reason = f"{backend}: {said[-1] if said else f'exit code {done.returncode}'}"
    raise UserError(f"the robot cannot be drawn here ({reason[:120]}); MUJOCO_GL=egl or osmesa needs its library")


def _draw(robot: str, variant: Variant) -> None:
    import mujoco

    model = (HalfCheetah if robot == "cheetah" else Ant)(1, variant).model
    data = mujoco.MjData(model)
    pictures = []
    with mujoco.Renderer(model, HEIGHT, WIDTH) as renderer:
        for position in np.load(io.BytesIO(sys.stdin.buffer.read())):
            data.qpos[:] = position
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera="track")
            pictures.append(renderer.render().copy())
    kept = io.BytesIO()
    np.save(kept, np.stack(pictures))
    sys.stdout.buffer.write(kept.getvalue())
    sys.stdout.flush()
    os._exit(0)  # some drivers fail while they are taken down


if __name__ == "__main__":
    _draw(sys.argv[1], "finn2017" if sys.argv[2] == "finn2017" else "gymnasium")
