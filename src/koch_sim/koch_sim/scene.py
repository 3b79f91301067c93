# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The MuJoCo model of the table: arms from our URDF, block, cup, cameras, light."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from koch_rig.model import robot_urdf
from koch_rig.rig import Role
from koch_sim.errors import NoMountError
from koch_sim.things import (
    BLOCK_HALF_M,
    CUP_FLOOR_M,
    CUP_HEIGHT_M,
    CUP_RADIUS_M,
    SQUARE_HALF_M,
    SQUARE_PAINT_M,
    Kind,
    Thing,
)

if TYPE_CHECKING:
    from koch_rig.rig import Arm, Camera, Rig

BLOCK_MASS_KG = 0.018
CUP_WALL_M = 0.0015
CUP_MASS_KG = 0.15  # weighted, so that it stands
CUP_SEGMENTS = 16
TABLE_HALF_M = (0.35, 0.40, 0.02)

#: 2 ms keeps a grasped block still with elliptic cones; 1 ms changed no success rate, at twice
#: the time.
TIMESTEP_S = 0.002
#: Rubber on wood. Below 0.7 the block slips out while the arm lifts.
PAD_FRICTION = (1.2, 0.02, 0.001)
#: Wood on wood, dry: 0.25 to 0.5. A block that sticks to the table (1.0) is wedged by a jaw that
#: closes from far, instead of pushed to the other finger.
WOOD_FRICTION = (0.4, 0.02, 0.001)
#: The links that carry the two fingers.
FINGER_BODIES = ("gripper_link", "jaw_link")
#: A stiff contact: 4 ms time constant, critically damped.
GRIP_SOLREF = (0.004, 1.0)
#: Collision bits: the follower touches the world, the leader touches nothing.
_WORLD_BIT = 1

#: Field of view of a camera whose rig entry gives none.
DEFAULT_FOVY_DEG = 45.0

_WHITE, _BLACK, _ACCENT = (0.85, 0.85, 0.85, 1.0), (0.12, 0.12, 0.12, 1.0), (0.95, 0.55, 0.1, 1.0)
# What cameras see of an arm are the shapes that collide, in the order of the URDF: its finer
# visual shapes would double the time of a frame. URDF gives colours to visual shapes alone.
_CHAIN_COLOURS = {
    "base_link": (_WHITE, _BLACK),
    "shoulder_link": (_BLACK,),
    "upper_arm_link": (_WHITE,),
    "forearm_link": (_WHITE,),
    "wrist_link": (_BLACK,),
    "jaw_link": (_ACCENT, _ACCENT),
}
_LINK_COLOURS = {
    Role.FOLLOWER: {**_CHAIN_COLOURS, "gripper_link": (_BLACK, _ACCENT)},
    Role.LEADER: {**_CHAIN_COLOURS, "gripper_link": (_BLACK, _WHITE)},
}


def build_spec(rig: Rig, things: Sequence[Thing]) -> mujoco.MjSpec:
    """Assemble the nominal world of a rig; `koch_sim.variation` varies the compiled model.

    Bodies are named as the TF frames are ("follower/gripper_link", "block", "cup"); joints and
    actuators "follower/shoulder_pan". Actuators take torques in [N m].

    Args:
        rig: The rig; each arm becomes a MuJoCo subtree at its base pose.
        things: What lies on the table.

    Returns:
        A spec that compiles into the model.
    """
    spec = mujoco.MjSpec()
    spec.modelname = rig.name
    option = spec.option
    option.timestep = TIMESTEP_S
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 10.0
    # Software rendering: multisampling and shadows cost 15 times the frame time.
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.numquads = 1  # enough under parallel light, and a third cheaper than 4
    spec.visual.map.znear = 0.01
    spec.visual.global_.offwidth = max([c.width for c in rig.cameras.values()] + [640])
    spec.visual.global_.offheight = max([c.height for c in rig.cameras.values()] + [480])
    for arm in rig.arms.values():
        _add_arm(spec, rig, arm)
    _add_table(spec)
    add = {Kind.BLOCK: _add_block, Kind.CUP: _add_cup, Kind.SQUARE: _add_square}
    for thing in things:
        add[thing.kind](spec, thing)
    for camera in rig.cameras.values():
        _add_camera(spec, camera)
    return spec


def _add_arm(spec: mujoco.MjSpec, rig: Rig, arm: Arm) -> None:
    """Attach an arm's URDF; a leader is there to be moved, it collides with nothing."""
    child = mujoco.MjSpec.from_string(robot_urdf(rig, arm.name))
    # Frames without a joint (pads, tcp, camera mounts) stay bodies, so that they can be found.
    child.compiler.fusestatic = False
    prefix = f"{arm.name}/"
    # Links carry the prefix already; camera frames on the arm have names of their own.
    for joint in child.joints:
        joint.name = prefix + joint.name
    is_leader = arm.role is Role.LEADER
    for geom in child.geoms:
        collides = not is_leader and bool(geom.contype)
        geom.contype, geom.conaffinity = (_WORLD_BIT, _WORLD_BIT) if collides else (0, 0)
    for name, colours in _LINK_COLOURS[arm.role].items():
        for geom, colour in zip(child.body(prefix + name).geoms, colours, strict=True):
            geom.rgba = colour
    for name in FINGER_BODIES:
        for geom in child.body(prefix + name).geoms:
            geom.friction = PAD_FRICTION
            geom.condim = 4
            geom.solref = GRIP_SOLREF
    frame = spec.worldbody.add_frame()
    spec.attach(child, frame=frame)
    for element in (*spec.bodies, *spec.joints):
        element.name = element.name.removeprefix("/")  # attach insists on a prefix of its own
    for name in arm.model.joints:
        actuator = spec.add_actuator(
            name=prefix + name, target=prefix + name, trntype=mujoco.mjtTrn.mjTRN_JOINT
        )
        actuator.gainprm[0] = 1.0


def _add_table(spec: mujoco.MjSpec) -> None:
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=TABLE_HALF_M,
        pos=[0.15, 0.0, -TABLE_HALF_M[2]],
        rgba=[0.62, 0.52, 0.40, 1.0],
        friction=WOOD_FRICTION,
    )
    spec.worldbody.add_light(
        name="lamp",
        # Far away: light that is not parallel would be computed at a face's corners only.
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=[0.2, 0.3, 1.0],
        dir=[-0.05, -0.3, -1.0],
        diffuse=[0.7] * 3,
        ambient=[0.25] * 3,
        specular=[0.1] * 3,
        castshadow=False,
    )


def _add_block(spec: mujoco.MjSpec, thing: Thing) -> None:
    body = spec.worldbody.add_body(name=thing.name, pos=[0.17, 0.0, BLOCK_HALF_M[2]])
    body.add_freejoint(name=thing.name)
    body.add_geom(
        name=thing.name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=BLOCK_HALF_M,
        mass=BLOCK_MASS_KG,
        rgba=[*thing.rgb, 1.0],
        condim=4,
        solref=GRIP_SOLREF,
        friction=WOOD_FRICTION,
    )


def _add_square(spec: mujoco.MjSpec, thing: Thing) -> None:
    body = spec.worldbody.add_body(name=thing.name)
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[SQUARE_HALF_M, SQUARE_HALF_M, SQUARE_PAINT_M],
        rgba=[*thing.rgb, 1.0],
        contype=0,
        conaffinity=0,
    )


def _add_cup(spec: mujoco.MjSpec, thing: Thing) -> None:
    body = spec.worldbody.add_body(name=thing.name, pos=[0.1, 0.14, 0.0])
    body.add_freejoint(name=thing.name)
    rgba = [*thing.rgb, 1.0]
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=[CUP_RADIUS_M, CUP_FLOOR_M / 2.0, 0.0],
        pos=[0.0, 0.0, CUP_FLOOR_M / 2.0],
        mass=CUP_MASS_KG * 0.7,
        rgba=rgba,
    )
    # The walls end above the table: one contact patch under the floor, not one per segment.
    half_height = (CUP_HEIGHT_M - 0.003) / 2.0
    width = CUP_RADIUS_M * np.tan(np.pi / CUP_SEGMENTS)
    for angle in np.arange(CUP_SEGMENTS) * (2.0 * np.pi / CUP_SEGMENTS):
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[CUP_WALL_M, width, half_height],
            pos=[
                CUP_RADIUS_M * np.cos(angle),
                CUP_RADIUS_M * np.sin(angle),
                CUP_HEIGHT_M - half_height,
            ],
            quat=[np.cos(angle / 2.0), 0.0, 0.0, np.sin(angle / 2.0)],
            mass=CUP_MASS_KG * 0.3 / CUP_SEGMENTS,
            rgba=rgba,
        )


def _add_camera(spec: mujoco.MjSpec, camera: Camera) -> None:
    """Put a camera into its optical frame, which the arm's description brings along.

    The optical frame looks along +z with y down, MuJoCo's camera along -z with y up: half a turn
    about x.
    """
    if camera.mount is None:
        raise NoMountError(camera.name)
    spec.body(f"{camera.name}_optical_frame").add_camera(
        name=camera.name,
        quat=[0.0, 1.0, 0.0, 0.0],
        fovy=camera.fovy_deg if camera.fovy_deg is not None else DEFAULT_FOVY_DEG,
    )
