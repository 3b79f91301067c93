# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Looks at the files that nodes will read, so that a missing one is said before any node starts.

A node would say it too, some seconds later and among the lines of all the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from koch_rig.calibration import load_calibration
from koch_vla.errors import PolicyFolderError
from koch_vla.node_spec import NodeSpec

if TYPE_CHECKING:
    from koch_rig.rig import Rig


def check_files(rig: Rig, specs: Iterable[NodeSpec]) -> None:
    """Check the calibrations and the checkpoint that these nodes of the rig need.

    Raises:
        CalibrationError: An arm of one of the drivers has no calibration, or a wrong one.
        PolicyFolderError: The policy's checkpoint is no folder.
    """
    for spec in specs:
        arm = rig.arms.get(str(spec.parameters.get("arm")))
        if spec.package == "koch_driver" and arm is not None:
            load_calibration(arm.calibration_path)
        checkpoint = spec.parameters.get("checkpoint")
        if checkpoint and not Path(str(checkpoint)).is_dir():
            raise PolicyFolderError(checkpoint)
