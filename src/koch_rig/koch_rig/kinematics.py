# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Forward and inverse kinematics and the Jacobian of an arm, through Pinocchio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from koch_core.errors import ShapeError
from koch_rig.arm_model import KOCH_V1_1, ArmModel
from koch_rig.errors import ModelError
from koch_rig.fingertips import FingertipKinematics, Point
from koch_rig.geometry import constant
from koch_rig.inverse_kinematics import IkResult, IkSettings, Orientation, Search
from koch_rig.model import arm_urdf, urdf_limits
from koch_rig.rig import Role

Array = NDArray[np.float64]

__all__ = ["IkResult", "IkSettings", "Kinematics", "Orientation"]


class Kinematics:
    """Kinematics of one arm in the frame of its base_link; joints in the order of its model.

    Pinocchio is imported and the model built on first use; `tcp_position` and `opening`
    need neither. An instance keeps Pinocchio's work space: use one per thread.
    """

    def __init__(
        self, role: Role = Role.FOLLOWER, prefix: str = "", model: ArmModel = KOCH_V1_1
    ) -> None:
        """Take the arm's URDF; frames of `forward` carry the prefix, as in TF."""
        self.prefix = prefix
        self._role = role
        self._arm_model = model
        self._tips = FingertipKinematics.for_role(role, model)
        self._pinocchio: _PinocchioModel | None = None
        limits = urdf_limits(role, model).values()
        self.lower = constant([limit.lower for limit in limits])
        self.upper = constant([limit.upper for limit in limits])

    @classmethod
    def for_arm(
        cls, prefix: str = "", *, role: Role = Role.FOLLOWER, model: ArmModel = KOCH_V1_1
    ) -> Kinematics:
        """The kinematics of an arm whose link names carry this prefix, such as "follower/"."""
        return cls(role, prefix, model)

    @property
    def _model(self) -> _PinocchioModel:
        if self._pinocchio is None:
            urdf = arm_urdf(self._role, self.prefix, self._arm_model)
            self._pinocchio = _PinocchioModel(urdf, self.prefix, self._arm_model.joints)
        return self._pinocchio

    def forward(self, q: ArrayLike) -> dict[str, Array]:
        """Poses T_base_frame, (4, 4), of all links and frames for joint angles [rad], (J,)."""
        return self._model.forward(self._vector(q))

    def tcp(self, q: ArrayLike) -> Array:
        """Pose T_base_tcp, float64 (4, 4), for joint angles [rad], (J,)."""
        return self._model.tcp(self._vector(q))

    def jacobian(self, q: ArrayLike) -> Array:
        """Jacobian of the TCP, float64 (6, J): linear over angular velocity, base axes."""
        return self._model.tcp_and_jacobian(self._vector(q))[1]

    def inverse(
        self,
        T_base_tcp: ArrayLike,
        q_seed: ArrayLike,
        *,
        orientation: Orientation = Orientation.APPROACH,
        settings: IkSettings | None = None,
        bounds: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> IkResult:
        """Joint angles that bring the TCP to a pose.

        Joints fewer than six cannot reach every pose. Position comes first: it is met exactly
        where it is in reach, and the orientation as nearly as the position leaves room. The
        gripper keeps its angle of `q_seed`.

        Args:
            T_base_tcp: Wanted pose, (4, 4). Of its rotation, `orientation` says what counts.
            q_seed: Joint angles to start at, (J,) [rad]; the result is near where it can be.
            orientation: NONE, APPROACH (direction of the TCP's z axis only) or FULL.
            settings: Tolerances and effort; the defaults where None.
            bounds: Least and greatest joint angles [rad], each (J,); the URDF's where None.
        """
        target = np.array(T_base_tcp, dtype=np.float64)
        if target.shape != (4, 4):
            raise ShapeError("T_base_tcp", got=target.shape, expected="(4, 4)")
        lower, upper = map(self._vector, bounds or (self.lower, self.upper))
        search = Search(
            self._model.tcp_and_jacobian,
            target,
            lower,
            upper,
            orientation,
            settings or IkSettings(),
        )
        return search.solve(self._vector(q_seed))

    def _vector(self, q: ArrayLike) -> Array:
        """Check joint angles: one per joint."""
        array = np.asarray(q, dtype=np.float64)
        if array.shape != self.lower.shape:
            raise ShapeError("joint angles", got=array.shape, expected=f"({self.lower.size},)")
        return array

    def tcp_position(self, q: Sequence[float]) -> Point:
        """Position of the TCP in base_link [m], in plain floats: some 5 us."""
        return self._tips.tcp(q)

    def opening(self, q_gripper: float) -> float:
        """Gap between the finger tips [m] at a gripper angle [rad]."""
        return self._tips.opening(q_gripper)


class _PinocchioModel:
    """Pinocchio's model with its joints sorted into the order of the arm's."""

    def __init__(self, urdf: str, prefix: str, joints: Sequence[str]) -> None:
        try:
            import pinocchio
        except ImportError as exc:
            raise ModelError(
                "kinematics",
                got=f"no Pinocchio ({exc})",
                expected="the Python module pinocchio",
                hint="`./koch setup` installs it; in a ROS home install the package pinocchio.",
            ) from exc
        self._pin: Any = pinocchio
        self._model: Any = pinocchio.buildModelFromXML(urdf)
        self._data: Any = self._model.createData()
        ids = [self._model.getJointId(name) for name in joints]
        self._order = np.array([self._model.joints[i].idx_q for i in ids])
        bodies = [
            (str(frame.name), i)
            for i, frame in enumerate(self._model.frames)
            if frame.type == pinocchio.FrameType.BODY and frame.name not in ("world", "universe")
        ]
        self._frames = dict(bodies)
        self._tcp = self._frames[f"{prefix}tcp"]

    def _native(self, q: Array) -> Array:
        """Joint angles in Pinocchio's order."""
        native = np.empty(self._order.shape)
        native[self._order] = q
        return native

    def forward(self, q: Array) -> dict[str, Array]:
        self._pin.framesForwardKinematics(self._model, self._data, self._native(q))
        return {name: np.array(self._data.oMf[i].homogeneous) for name, i in self._frames.items()}

    def tcp(self, q: Array) -> Array:
        self._pin.forwardKinematics(self._model, self._data, self._native(q))
        placement = self._pin.updateFramePlacement(self._model, self._data, self._tcp)
        return np.array(placement.homogeneous)

    def tcp_and_jacobian(self, q: Array) -> tuple[Array, Array]:
        native = self._native(q)
        jacobian = self._pin.computeFrameJacobian(
            self._model, self._data, native, self._tcp, self._pin.LOCAL_WORLD_ALIGNED
        )
        placement = self._pin.updateFramePlacement(self._model, self._data, self._tcp)
        return np.array(placement.homogeneous), np.array(jacobian[:, self._order])
