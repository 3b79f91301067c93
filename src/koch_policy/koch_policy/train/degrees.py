# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""From dataset units to degrees, for errors that a person can judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from koch_policy.configs import ACTION
from koch_policy.errors import DatasetError
from koch_policy.train.data import Demonstrations
from koch_rig.action_layout import ActionLayout
from koch_rig.fingerprint import canonical, fingerprint
from koch_rig.joints import joint_of
from koch_rig.load import load_rig
from koch_rig.rig import Rig
from koch_rig.units import Units, joint_units


def degrees_per_unit(
    data: Demonstrations, units: str | None, rig_path: Path | None
) -> tuple[Demonstrations, NDArray[np.float64]]:
    """Return the data with units and fingerprint filled in, and degrees per unit, float64 (A,).

    Elements that are no joint of the rig, and the gripper of "degrees" datasets (which is in
    percent there), get NaN. LeRobot's -100..100 needs the rig's calibration; without a rig its
    factors are NaN.

    Args:
        data: The dataset.
        units: "lerobot", "degrees" or "radians"; None: what the dataset says, else "lerobot".
        rig_path: Rig file, or None.

    Raises:
        DatasetError: The dataset says that it has other units or was made with another rig.
    """
    if units is not None and data.units and units != data.units:
        raise DatasetError(data.name, f"is in {data.units}, not in {units}", "Leave --units out.")
    data = replace(data, units=units or data.units or "lerobot")
    names = [name.removesuffix(".pos") for name in data.names.get(ACTION, [])]
    factors = np.full(data.action_width, np.nan)
    plain = {"degrees": 1.0, "radians": float(np.degrees(1.0))}.get(data.units)
    if plain is not None:
        for index, name in enumerate(names):
            found = joint_of(name)
            if data.units == "radians" or found is None or found[1] not in found[0].percent:
                factors[index] = plain
    if rig_path is None:
        return data, factors
    rig = load_rig(rig_path)
    own = fingerprint(rig)
    if data.fingerprint and data.fingerprint != own:
        raise DatasetError(
            data.name,
            f"was recorded with another rig than {rig_path}",
            "Name the rig file it was recorded with, or leave --rig out.",
        )
    slopes = _slopes_deg(rig, Units(data.units))
    for index, name in enumerate(names):
        factors[index] = slopes.get(name, np.nan)
    return replace(data, fingerprint=own, rig=canonical(rig)), factors


def _slopes_deg(rig: Rig, kind: Units) -> dict[str, float]:
    """Return degrees per dataset unit of each joint of the followers."""
    layout = ActionLayout.of_rig(rig)
    units = joint_units(rig, layout.arms)
    # the maps are linear per joint; two values inside every range give the slope
    low, high = (layout.to_rad(units, kind, np.full(layout.width, v)) for v in (0.0, 1.0))
    return dict(zip(layout.names, np.abs(np.degrees(high - low)).tolist(), strict=True))
