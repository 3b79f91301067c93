# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Draws docs/media/task.webp: the scripted expert doing the task in the lockstep simulation.

python docs/media/make_task.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from webp import save

from koch_sim import Lockstep, LockstepSettings

HERE = Path(__file__).resolve().parent
SEED = 100_000
FPS = 15
SIZE = (320, 480)  # height, width [px]
SKY = (236, 240, 244)  # the world has none, which draws black
MAX_BYTES = 1_500_000


def poses_of_a_demonstration(settings: LockstepSettings) -> tuple[Any, list[NDArray[np.float64]]]:
    """The world, and where everything in it was, FPS times per second."""
    lockstep = Lockstep.of(settings)
    lockstep.restart(SEED)
    poses: list[NDArray[np.float64]] = []
    last_ns = 0

    def remember(_stream: str, stamp_ns: int, _value: object) -> None:
        nonlocal last_ns
        if stamp_ns - last_ns >= 1e9 / FPS:
            last_ns = stamp_ns
            poses.append(lockstep.world.qpos())

    lockstep.listen(remember, ["follower/joint_states"])
    assert lockstep.demonstrate(), f"the expert fails on seed {SEED}; choose another"
    return lockstep.world, poses


def draw(model: Any, poses: list[NDArray[np.float64]]) -> list[Image.Image]:
    """An image per pose, from a place where a visitor would stand."""
    import mujoco  # behind koch_sim, which chooses how MuJoCo draws

    # The rig's cameras do without shadows and smooth edges, for speed; people like them.
    model.vis.quality.shadowsize = 4096
    model.vis.quality.offsamples = 8
    data, camera = mujoco.MjData(model), mujoco.MjvCamera()
    camera.lookat[:] = 0.12, -0.02, 0.105
    camera.distance, camera.azimuth, camera.elevation = 0.46, 140.0, -22.0
    images = []
    with mujoco.Renderer(model, *SIZE) as renderer:
        for pose in poses:
            data.qpos[:] = pose
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            image = renderer.render()
            image[~image.any(axis=-1)] = SKY
            images.append(Image.fromarray(image))
    return images


def main() -> None:
    """Write the file."""
    world, poses = poses_of_a_demonstration(
        LockstepSettings(HERE.parents[1] / "config/rig.sim.yaml")
    )
    images = draw(world.model, poses)
    durations = [1000 // FPS] * (len(images) - 1) + [1500]  # rest at the end
    save(HERE / "task.webp", images, durations, quality=60, most=MAX_BYTES)


if __name__ == "__main__":
    main()
