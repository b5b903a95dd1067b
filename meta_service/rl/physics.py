"""HalfCheetah and Ant on MuJoCo's batch simulation: how they are stepped and what is measured; not what is rewarded.

Facts of the variant `finn2017` are from the paper's code (cbfinn/maml_rl at 9c8e2eb, rllab's simulations); those of
`gymnasium` from Gymnasium's HalfCheetah-v5 and Ant-v5. Both start from Gymnasium's model files.
"""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import mujoco
import numpy as np
from mujoco.batch import Batch

Variant = Literal["finn2017", "gymnasium"]


class Measurement(NamedTuple):
    """Of n robots after a step."""

    observations: np.ndarray
    """[n, o]"""
    velocity: np.ndarray
    """[n] m/s along x: of the whole robot's centre of mass (finn2017), or of its torso, averaged over the step."""
    effort: np.ndarray
    """[n] sum of the squared actions, each in [-1, 1]."""
    contact: np.ndarray
    """[n] sum of the squared contact forces and torques, each cut off at 1 N or N m; 0 for HalfCheetah."""
    upright: np.ndarray
    """[n] bool: whether the torso's height is where the task goes on; always, for HalfCheetah."""


class HalfCheetah:
    """A planar robot of 7 bodies and 6 motors.

    finn2017: a step of 0.01 s; observed are qpos[1:] (m, rad), qvel (m/s, rad/s) and the centre of mass (m), 20
    numbers; reset noise N(0, 0.01) on qpos and N(0, 0.1) on qvel. gymnasium: a step of 0.05 s; without the centre of
    mass, 17; reset noise U(-0.1, 0.1) and N(0, 0.1).
    """

    action_size = 6

    def __init__(self, count: int, variant: Variant, threads: int = 1) -> None:
        self.paper = variant == "finn2017"
        self.model = _half_cheetah()
        self.substeps = 1 if self.paper else 5
        self.seconds = self.substeps * self.model.opt.timestep
        self.batch = Batch(self.model, count, threads)
        self.qpos, self.qvel, self.ctrl = (self.batch.bind(name) for name in ("qpos", "qvel", "ctrl"))
        self.mass_centre = _PlanarMassCentre(self.model)

    @staticmethod
    def observation_size(variant: Variant) -> int:
        return 20 if variant == "finn2017" else 17

    def reset(self, generators: Sequence[np.random.Generator], which: np.ndarray) -> np.ndarray:
        self.batch.reset(which, stage=mujoco.mjtStage.mjSTAGE_NONE)
        for index, generator in zip(which, generators, strict=True):
            noise = generator.standard_normal(9) * 0.01 if self.paper else generator.uniform(-0.1, 0.1, 9)
            self.qpos[index] = self.model.qpos0 + noise
            self.qvel[index] = generator.standard_normal(9) * 0.1
        return self._observe(self.mass_centre.of(self.qpos, self.qvel)[0] if self.paper else None)

    def step(self, actions: np.ndarray) -> Measurement:
        before = self.qpos[:, 0].copy()
        np.clip(actions, -1.0, 1.0, out=self.ctrl)
        self.batch.step(nstep=self.substeps)
        if self.paper:
            centre, velocity = self.mass_centre.of(self.qpos, self.qvel)
        else:
            centre, velocity = None, (self.qpos[:, 0] - before) / self.seconds
        effort = np.einsum("na,na->n", self.ctrl, self.ctrl)
        count = len(before)
        return Measurement(self._observe(centre), velocity, effort, np.zeros(count), np.ones(count, bool))

    def _observe(self, centre: np.ndarray | None) -> np.ndarray:
        parts = (self.qpos[:, 1:], self.qvel) if centre is None else (self.qpos[:, 1:], self.qvel, centre)
        return np.concatenate(parts, 1)


class Ant:
    """A four-legged robot with 8 motors.

    finn2017: a step of 0.02 s (Runge-Kutta), contacts as in rllab's model (solimp 0.8 0.8 0.01); observed are qpos
    (15), qvel (14), contact forces cut off at 1 (84), the torso's orientation matrix (9) and the centre of mass (3),
    125 numbers; reset noise as HalfCheetah's. gymnasium: a step of 0.05 s; qpos[2:], qvel and the contact forces
    without the world's, 105. Contact forces are those of the state that is observed (N, N m).
    """

    action_size = 8

    def __init__(self, count: int, variant: Variant, threads: int = 1) -> None:
        self.paper = variant == "finn2017"
        self.model = _ant(variant)
        self.substeps = 1 if self.paper else 5
        self.seconds = self.substeps * self.model.opt.timestep
        self.batch = Batch(self.model, count, threads)
        self.qpos, self.qvel, self.ctrl = (self.batch.bind(name) for name in ("qpos", "qvel", "ctrl"))
        self.forces = self.batch.bind("cfrc_ext")  # [n, bodies, 6]
        if self.paper:
            self.orientation, self.centre = self.batch.bind("xmat"), self.batch.bind("subtree_com")
            self.centre_velocity = self.batch.sensor("velocity").data
        self.start = self.model.numeric("init_qpos").data if self.paper else self.model.qpos0

    @staticmethod
    def observation_size(variant: Variant) -> int:
        return 125 if variant == "finn2017" else 105

    def reset(self, generators: Sequence[np.random.Generator], which: np.ndarray) -> np.ndarray:
        self.batch.reset(which, stage=mujoco.mjtStage.mjSTAGE_NONE)
        for index, generator in zip(which, generators, strict=True):
            noise = generator.standard_normal(15) * 0.01 if self.paper else generator.uniform(-0.1, 0.1, 15)
            self.qpos[index] = self.start + noise
            self.qvel[index] = generator.standard_normal(14) * 0.1
        self.batch.forward(which)
        return self._observe(np.clip(self.forces, -1.0, 1.0))

    def step(self, actions: np.ndarray) -> Measurement:
        before = self.qpos[:, 0].copy()
        np.clip(actions, -1.0, 1.0, out=self.ctrl)
        # up to the accelerations of the new state: its contact forces are observed, and its velocity is rewarded
        self.batch.step(nstep=self.substeps, stage=mujoco.mjtStage.mjSTAGE_ACC)
        forces = np.clip(self.forces, -1.0, 1.0)
        velocity = self.centre_velocity[:, 0].copy() if self.paper else (self.qpos[:, 0] - before) / self.seconds
        height = self.qpos[:, 2]
        return Measurement(
            self._observe(forces),
            velocity,
            np.einsum("na,na->n", self.ctrl, self.ctrl),
            np.einsum("nbf,nbf->n", forces, forces),
            (height >= 0.2) & (height <= 1.0),
        )

    def _observe(self, forces: np.ndarray) -> np.ndarray:
        count = len(forces)
        if self.paper:
            torso = self.orientation[:, 1].reshape(count, 9), self.centre[:, 1]
            return np.concatenate((self.qpos, self.qvel, forces.reshape(count, -1), *torso), 1)
        return np.concatenate((self.qpos[:, 2:], self.qvel, forces[:, 1:].reshape(count, -1)), 1)


class _PlanarMassCentre:
    """The centre of mass of a robot that moves in the x-z plane, in closed form.

    Every body turns about the y axis, so the centre is that of the torso plus one constant vector a body, turned by the
    body's angle. MuJoCo would have to compute all positions again after its step for the same three numbers.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        bodies = range(1, model.nbody)
        mass, total = model.body_mass, model.body_mass.sum()
        self.angles = np.zeros((model.nbody - 1, model.nbody - 1))  # [joint, body]: whose joints turn whom
        self.arm = np.zeros((model.nbody - 1, 2))  # [body, (x, z)], m
        subtree = model.body_subtreemass
        for body in bodies:
            self.arm[body - 1] += mass[body] * model.body_ipos[body, ::2] / total
            parent = model.body_parentid[body]
            if parent:
                self.angles[:, body - 1] = self.angles[:, parent - 1]
                self.arm[parent - 1] += subtree[body] * model.body_pos[body, ::2] / total
            self.angles[body - 1, body - 1] = 1
        self.origin = model.body_pos[1]

    def of(self, qpos: np.ndarray, qvel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The centre of mass [n, 3] (m) and its velocity along x [n] (m/s)."""
        angle, turning = qpos[:, 2:] @ self.angles, qvel[:, 2:] @ self.angles
        cos, sin = np.cos(angle), np.sin(angle)
        x, z = self.arm.T
        centre = np.zeros((len(qpos), 3))
        centre[:, 0] = self.origin[0] + qpos[:, 0] + cos @ x + sin @ z
        centre[:, 2] = self.origin[2] + qpos[:, 1] - sin @ x + cos @ z
        return centre, qvel[:, 0] - (turning * sin) @ x + (turning * cos) @ z


@cache
def _half_cheetah() -> mujoco.MjModel:
    spec = mujoco.MjSpec.from_file(str(_asset("half_cheetah.xml")))
    total = spec.compiler.settotalmass  # kg; MuJoCo 4 warns where it meets it, and wants it done as here
    spec.compiler.settotalmass = -1
    model = spec.compile()
    mujoco.mj_setTotalmass(model, total)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return _kept_when_unstable(model)


@cache
def _ant(variant: Variant) -> mujoco.MjModel:
    spec = mujoco.MjSpec.from_file(str(_asset("ant.xml")))
    if variant == "finn2017":
        spec.option.timestep = 0.02
        for geom in spec.geoms:
            geom.solimp[:3] = (0.8, 0.8, 0.01)
    torso: dict[str, object] = {"objtype": mujoco.mjtObj.mjOBJ_BODY, "objname": "torso"}
    spec.add_sensor(name="velocity", type=mujoco.mjtSensor.mjSENS_SUBTREELINVEL, **torso)
    # contact forces are computed for the sensors that need them, and for nobody else
    spec.add_sensor(name="acceleration", type=mujoco.mjtSensor.mjSENS_FRAMELINACC, **torso)
    return _kept_when_unstable(spec.compile())


def _kept_when_unstable(model: mujoco.MjModel) -> mujoco.MjModel:
    """A state that is not finite stays so and is seen; MuJoCo would start the simulation anew and say nothing."""
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    log = mujoco.MjLogConfig.get()
    log.logto_file = log.logto_console = False  # in the working folder's MUJOCO_LOG.TXT, for every one of them
    mujoco.MjLogConfig.set(log)
    return model


def _asset(name: str) -> Path:
    found = importlib.util.find_spec("gymnasium")  # without importing it, which takes a second
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "envs" / "mujoco" / "assets" / name
