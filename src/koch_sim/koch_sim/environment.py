# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The lockstep simulation as a Gymnasium environment, `KochTable-v0`.

    import gymnasium, koch_sim.environment
    env = gymnasium.make("KochTable-v0")
    observation, info = env.reset(seed=100_000)

`gymnasium.make("koch_sim.environment:KochTable-v0")` needs no import. Observations are laid out as
LeRobot's environments lay them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from koch_core.image import Crop, crop_rgb, resize_rgb
from koch_rig.model import share_folder
from koch_rig.units import Units
from koch_sim.errors import SimulationError
from koch_sim.lockstep import Lockstep
from koch_sim.settings import LockstepSettings
from koch_sim.tasks import BLOCK_IN_CUP, Wording
from koch_sim.truth import ENVIRONMENT_NAMES

ENVIRONMENT_ID = "KochTable-v0"
#: The same, with the words of the task on its outermost layer.
TOLD_ID = "KochTableTold-v0"
#: 16 s at 30 Hz: more than twice what the expert takes.
MAX_STEPS = 480
#: LeRobot's numbers: -100..100, the gripper 0..100. A little room for joints beyond their range.
_JOINT_RANGE = 120.0


class KochTable(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """One table; an action is the pose that the follower is commanded to, in LeRobot's numbers.

    Observation: `agent_pos` float32 (6,), `pixels` {camera: uint8 (H, W, 3)} and
    `environment_state` float32 (6,), the true poses of block and cup. Reward: 1 in the step in
    which the task is done, which ends the episode. Every action passes the guard.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012, Gymnasium's name

    def __init__(
        self,
        rig: Path | str | None = None,
        *,
        cameras: Sequence[str] = ("above", "wrist"),
        image_size: tuple[int, int] | None = None,
        crops: Mapping[str, Crop] | None = None,
        spread: float | None = None,
        randomise: str = "",
        task: str = BLOCK_IN_CUP.name,
        wording: str = Wording.FIRST.value,
        render_mode: str | None = "rgb_array",
    ) -> None:
        """Open the simulation.

        Args:
            rig: The rig file; config/rig.sim.yaml where absent.
            cameras: Cameras to observe; none makes steps cheap.
            image_size: (height, width) of the images; None: as the cameras deliver them.
            crops: Box per camera that is cut out first, as fractions of its image.
            spread: Part of the reachable area, 0..1; None takes the rig's.
            randomise: What varies besides poses: "all", or some of SWITCHES, comma-separated.
            task: A name of `koch_sim.tasks.TASKS`.
            wording: In which words the task is given: "first", "train" or "held-out".
            render_mode: "rgb_array" or None.

        Raises:
            SimulationError: The rig has no simulated table, or no such camera.
        """
        path = Path(rig) if rig is not None else share_folder() / "config/rig.sim.yaml"
        self.lockstep = Lockstep.of(
            LockstepSettings(path, spread, randomise, task=task, wording=Wording(wording))
        )
        known = self.lockstep.rig.cameras
        for name in (*cameras, *(crops or {})):
            if name not in known:
                raise SimulationError(
                    f"{path}: no camera {name!r}; this rig has {', '.join(known) or 'none'}."
                )
        self.render_mode = render_mode
        self.task = self.task_description = self.lockstep.world.setup.goal.sentence
        self._cameras, self._size, self._crops = tuple(cameras), image_size, dict(crops or {})
        self._units = self.lockstep.world.arms[self.lockstep.rig.follower.name].units
        self._joints = self._units.model.joints
        self.action_space = spaces.Box(
            -_JOINT_RANGE, _JOINT_RANGE, (len(self._joints),), np.float32
        )
        pixels: dict[str, spaces.Space[Any]] = {
            name: spaces.Box(0, 255, self._image(name).shape, np.uint8) for name in self._cameras
        }
        poses = (len(ENVIRONMENT_NAMES),)
        self.observation_space = spaces.Dict(
            {
                "agent_pos": spaces.Box(-np.inf, np.inf, (len(self._joints),), np.float32),
                "environment_state": spaces.Box(-np.inf, np.inf, poses, np.float32),
                **({"pixels": spaces.Dict(pixels)} if pixels else {}),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Lay out the table of a seed; without one, of the next seed that this environment draws.

        The seed is that of `koch eval` and `koch record`: it gives the same table there.
        """
        super().reset(seed=seed)
        table = int(self.np_random.integers(1 << 31)) if seed is None else seed
        self.lockstep.restart(table)
        self.task = self.task_description = self.lockstep.world.setup.goal.sentence
        self._begin_ns, self._steps = self.lockstep.time_ns, 0
        return self._observation(), {"seed": table, "is_success": False}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Command a pose and let one frame pass.

        Raises:
            ValueError: The action is not finite or has not one number per joint.
        """
        values = np.asarray(action, dtype=np.float64).reshape(-1)
        if values.shape != (len(self._joints),) or not np.isfinite(values).all():
            raise ValueError(
                f"action is {action}, expected {len(self._joints)} finite numbers for "
                f"{', '.join(self._joints)}"
            )
        lockstep = self.lockstep
        goal = self._units.to_rad(Units.LEROBOT, values)
        lockstep.command("policy", goal.tolist(), lockstep.time_ns)
        self._steps += 1
        lockstep.run_until(self._begin_ns + round(self._steps * 1e9 / lockstep.rig.fps))
        success = lockstep.world.succeeded()
        return self._observation(), float(success), success, False, {"is_success": success}

    def render(self) -> NDArray[np.uint8] | None:
        """Return an image of the whole table for people."""
        if self.render_mode is None or not self.lockstep.rig.cameras:
            return None
        names = self.lockstep.rig.cameras
        return self.lockstep.image("left" if "left" in names else next(iter(names))).rgb()

    def close(self) -> None:
        """Let the graphics memory go; may be called twice."""
        self.lockstep.close()

    def _observation(self) -> dict[str, Any]:
        poses = self.lockstep.world.environment_state()
        joints = self._units.rad_to(Units.LEROBOT, self.lockstep.joints())
        observation: dict[str, Any] = {
            "agent_pos": joints.astype(np.float32),
            "environment_state": poses.astype(np.float32),
        }
        if self._cameras:
            observation["pixels"] = {name: self._image(name) for name in self._cameras}
        return observation

    def _image(self, name: str) -> NDArray[np.uint8]:
        """Draw a camera; at twice the size that is asked for, then averaged, as training does."""
        image = self.lockstep.image(name)
        if self._size is None:
            whole = image.rgb()
            return crop_rgb(whole, self._crops[name]).copy() if name in self._crops else whole
        height, width = self._size
        _, _, wide, high = self._crops.get(name, (0.0, 0.0, 1.0, 1.0))
        camera = self.lockstep.rig.cameras[name]
        tall, broad = round(2 * height / high), round(2 * width / wide)
        drawn = image.rgb(min(camera.height, tall), min(camera.width, broad))
        if name in self._crops:
            drawn = crop_rgb(drawn, self._crops[name])
        return resize_rgb(drawn, height, width)


class Told(
    gymnasium.Wrapper[dict[str, Any], NDArray[np.float32], dict[str, Any], NDArray[np.float32]]
):
    """A table that says what its task is, without being unwrapped.

    LeRobot asks the outermost layer, and `gymnasium.make` wraps a table into layers that hide its
    attributes: a policy that follows sentences would be told nothing.
    """

    @property
    def task_description(self) -> str:
        """The sentence of the table that lies there now."""
        table = self.unwrapped
        assert isinstance(table, KochTable)
        return table.task


def told(episode_length: int = MAX_STEPS, **options: Any) -> Told:
    """Open a table whose episodes end after so many steps; options are those of `KochTable`."""
    return Told(gymnasium.make(ENVIRONMENT_ID, max_episode_steps=episode_length, **options))


def register() -> None:
    """Make the environment known to Gymnasium; harmless when it is."""
    if ENVIRONMENT_ID in gymnasium.registry:
        return
    gymnasium.register(
        ENVIRONMENT_ID,
        entry_point="koch_sim.environment:KochTable",
        max_episode_steps=MAX_STEPS,
    )
    gymnasium.register(
        TOLD_ID,
        entry_point="koch_sim.environment:told",
        order_enforce=False,
        disable_env_checker=True,
    )


register()
