# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Puts one draw of the randomisation into a compiled model, without compiling it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mujoco
import numpy as np

from koch_sim.scene import BLOCK_HALF_M

if TYPE_CHECKING:
    from koch_sim.randomisation import WorldSetup


class Variation:
    """Remembers a model's nominal values, so that draws do not add up."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._camera_position = model.cam_pos.copy()
        self._friction = model.geom_friction.copy()

    def apply(self, data: mujoco.MjData, setup: WorldSetup) -> None:
        """Place block and cup at rest and set looks and friction; the arms stay as they are."""
        model = self._model
        _place(model, data, "block", (*setup.block_xy_m, BLOCK_HALF_M[2]), setup.block_yaw_rad)
        _place(model, data, "cup", (*setup.cup_xy_m, 0.0), 0.0)
        model.geom("table").rgba[:3] = setup.table_rgb
        model.geom("block").rgba[:3] = setup.block_rgb
        cup = model.body("cup").id
        model.geom_rgba[model.geom_bodyid == cup, :3] = setup.cup_rgb
        light = model.light("lamp")
        light.pos[:] = setup.light_xyz_m
        light.dir[:] = np.subtract((0.15, 0.0, 0.0), setup.light_xyz_m)
        light.diffuse[:] = setup.light_diffuse
        model.cam_pos[:] = self._camera_position
        if setup.camera_offsets_m:
            model.cam_pos += np.asarray(setup.camera_offsets_m)
        model.geom_friction[:] = self._friction
        model.geom_friction[:, 0] *= setup.friction_scale
        mujoco.mj_forward(model, data)


def _place(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    name: str,
    xyz: tuple[float, float, float],
    yaw: float,
) -> None:
    """Put a free body somewhere, at rest."""
    joint = model.joint(name)
    start, velocity = int(joint.qposadr[0]), int(joint.dofadr[0])
    data.qpos[start : start + 3] = xyz
    data.qpos[start + 3 : start + 7] = (np.cos(yaw / 2.0), 0.0, 0.0, np.sin(yaw / 2.0))
    data.qvel[velocity : velocity + 6] = 0.0
