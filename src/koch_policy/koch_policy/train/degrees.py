# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""From dataset units to degrees, for errors that a person can judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from koch_policy.configs import ACTION
from koch_policy.train.data import Demonstrations


def degrees_per_unit(
    data: Demonstrations, units: str, rig_path: Path | None
) -> tuple[Demonstrations, NDArray[np.float64]]:
    """Return the data with units (and the rig's fingerprint) and degrees per unit, float64 (A,).

    Elements that are no joint of the rig, and the gripper of "degrees" datasets (which is in
    percent there), get NaN. LeRobot's -100..100 needs the rig's calibration; without a rig its
    factors are NaN.

    Args:
        data: The dataset.
        units: "lerobot", "degrees" or "radians", what the converter was told.
        rig_path: Rig file, or None.
    """
    names = [name.removesuffix(".pos") for name in data.names.get(ACTION, [])]
    factors = np.full(data.vectors[ACTION].shape[1], np.nan)
    plain = {"degrees": 1.0, "radians": float(np.degrees(1.0))}.get(units)
    if plain is not None:
        for index, name in enumerate(names):
            if units == "radians" or name != "gripper":
                factors[index] = plain
    data = replace(data, units=units)
    if rig_path is None:
        return data, factors
    from koch_rig.calibration import load_calibration
    from koch_rig.fingerprint import fingerprint
    from koch_rig.joints import JOINT_NAMES
    from koch_rig.load import load_rig
    from koch_rig.units import JointUnits, Units

    rig = load_rig(rig_path)
    arm = rig.follower
    converter = JointUnits(arm, load_calibration(arm.calibration_path))
    kind = {"lerobot": Units.LEROBOT, "degrees": Units.DEGREES, "radians": Units.RADIANS}[units]
    # the maps are linear per joint; two values inside every range give the slope
    low, high = (converter.to_rad(kind, np.full(6, value)) for value in (0.0, 1.0))
    slopes = dict(zip(JOINT_NAMES, np.abs(np.degrees(high - low)), strict=True))
    for index, name in enumerate(names):
        factors[index] = slopes.get(name, np.nan)
    return replace(data, fingerprint=fingerprint(rig)), factors
