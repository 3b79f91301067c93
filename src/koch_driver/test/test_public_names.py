# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The packages offer what they promise."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "name", ["koch_driver", "koch_driver.emulator", "koch_driver.bus.dynamixel"]
)
def test_all_names_resolve(name: str) -> None:
    module = importlib.import_module(name)
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    for public in module.__all__:
        assert getattr(module, public) is not None


def test_the_core_imports_neither_ros_nor_torch() -> None:
    code = (
        "import sys; sys.path[:] = sys.argv[1:];"
        "import koch_driver, koch_driver.emulator, koch_driver.setup.calibrate_cli;"
        "import koch_driver.setup.motors_cli;"
        "print({'rclpy', 'torch', 'mujoco'} & set(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, *sys.path], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "set()"
