# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Looks at the files that nodes will read, so that a missing one is said before any node starts.

A node would say it too, some seconds later and among the lines of all the others.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from koch_rig.calibration import load_calibration
from koch_vla.errors import ParameterFileError
from koch_vla.node_spec import NodeSpec

if TYPE_CHECKING:
    from koch_rig.rig import Rig


def check_files(rig: Rig, specs: Collection[NodeSpec], params_file: str = "") -> None:
    """Check the calibrations, the checkpoint and the parameter file that these nodes need.

    Raises:
        CalibrationError: An arm of one of the drivers has no calibration, or a wrong one.
        CheckpointError: The folder of --policy holds none.
        ParameterFileError: The parameter file would set nothing.
    """
    if params_file:
        _check_parameter_file(params_file, specs)
    for spec in specs:
        arm = rig.arms.get(str(spec.parameters.get("arm")))
        if spec.package == "koch_driver" and arm is not None:
            load_calibration(arm.calibration_path, arm.model.joints)
        checkpoint = str(spec.parameters.get("checkpoint") or "")
        if checkpoint:
            from koch_policy.files import is_address, resolve_checkpoint  # it may be left out

            if not is_address(checkpoint):
                resolve_checkpoint(Path(checkpoint))


def _check_parameter_file(path: str, specs: Collection[NodeSpec]) -> None:
    """Check that a parameter file can be read and says something to one of the nodes.

    ROS passes by a key that names no node, without a word.
    """
    import yaml  # here, because koch doctor runs without it

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParameterFileError(path, f"cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ParameterFileError(path, "holds no mapping of node names")
    names = sorted(spec.full_name for spec in specs)
    for key, value in content.items():
        # As rcl matches: ** is any number of names, * is one; a leading slash may be left out.
        pattern = f"/{str(key).lstrip('/')}"
        if not any(fnmatch.fnmatchcase(name, pattern.replace("**", "*")) for name in names):
            raise ParameterFileError(path, f"{key} names none of {', '.join(names)}")
        if not (isinstance(value, dict) and isinstance(value.get("ros__parameters"), dict)):
            raise ParameterFileError(path, f"{key} has no ros__parameters")
