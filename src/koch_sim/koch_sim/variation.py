# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Puts one draw of the randomisation into a compiled model, without compiling it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mujoco
import numpy as np

from koch_sim.things import BLOCK_HALF_M, SQUARE_PAINT_M, Kind, Thing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from koch_sim.draw import WorldSetup

#: Of a thing's origin over what it lies on, [m].
_ORIGIN_HEIGHT_M = {Kind.BLOCK: BLOCK_HALF_M[2], Kind.CUP: 0.0, Kind.SQUARE: SQUARE_PAINT_M}


class Variation:
    """Remembers a model's nominal values, so that draws do not add up."""

    def __init__(self, model: mujoco.MjModel, things: Sequence[Thing]) -> None:
        self._model = model
        self._things = tuple(things)
        self._scratch = mujoco.MjData(model)
        self._camera_position = model.cam_pos.copy()
        self._camera_turn = model.cam_quat.copy()
        self._camera_fovy = model.cam_fovy.copy()
        self._friction = model.geom_friction.copy()
        self._bodies = [model.body(thing.name).id for thing in things]
        self._masses = model.body_mass[self._bodies].copy()
        self._inertias = model.body_inertia[self._bodies].copy()

    def apply(self, data: mujoco.MjData, setup: WorldSetup) -> None:
        """Place all things at rest and set looks and friction; the arms stay as they are."""
        model = self._model
        for thing in self._things:
            place = setup.places[thing.name]
            height = place.floor_m + _ORIGIN_HEIGHT_M[thing.kind]
            _place(model, data, thing, (place.x_m, place.y_m, height), place.yaw_rad)
            body = model.body(thing.name).id
            model.geom_rgba[model.geom_bodyid == body, :3] = setup.rgb[thing.name]
        model.geom("table").rgba[:3] = setup.table_rgb
        light = model.light("lamp")
        light.pos[:] = setup.light_xyz_m
        light.dir[:] = np.subtract((0.15, 0.0, 0.0), setup.light_xyz_m)
        light.diffuse[:] = setup.light_diffuse
        model.cam_pos[:] = self._camera_position
        if setup.camera_offsets_m:
            model.cam_pos += np.asarray(setup.camera_offsets_m)
        self._turn_cameras(setup)
        model.body_mass[self._bodies] = self._masses * setup.mass_scale
        model.body_inertia[self._bodies] = self._inertias * setup.mass_scale
        model.geom_friction[:] = self._friction
        model.geom_friction[:, 0] *= setup.friction_scale
        # What follows from masses; on data of its own, which it puts into the model's zero pose.
        mujoco.mj_setConst(model, self._scratch)
        mujoco.mj_forward(model, data)

    def _turn_cameras(self, setup: WorldSetup) -> None:
        """Turn each camera about its own axes and change its field of view."""
        model = self._model
        model.cam_quat[:], model.cam_fovy[:] = self._camera_turn, self._camera_fovy
        for camera, turn in enumerate(setup.camera_turns_rad):
            about = np.zeros(4)
            mujoco.mju_euler2Quat(about, np.asarray(turn), "xyz")
            mujoco.mju_mulQuat(model.cam_quat[camera], self._camera_turn[camera], about)
        if setup.camera_zooms:
            model.cam_fovy *= np.asarray(setup.camera_zooms)


def _place(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    thing: Thing,
    xyz: tuple[float, float, float],
    yaw: float,
) -> None:
    """Put a thing somewhere, at rest."""
    turn = (np.cos(yaw / 2.0), 0.0, 0.0, np.sin(yaw / 2.0))
    if thing.kind is Kind.SQUARE:  # painted on the table
        body = model.body(thing.name)
        body.pos[:], body.quat[:] = xyz, turn
        return
    joint = model.joint(thing.name)
    start, velocity = int(joint.qposadr[0]), int(joint.dofadr[0])
    data.qpos[start : start + 3] = xyz
    data.qpos[start + 3 : start + 7] = turn
    data.qvel[velocity : velocity + 6] = 0.0
