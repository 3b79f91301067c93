# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Each module with node parameters is an entry point, so that shared files may hold them."""

from __future__ import annotations

import ast
import re

from repository import ROOT

from koch_ros.parameters import PARAMETERS_GROUP

_ENTRY = re.compile(rf"{re.escape(PARAMETERS_GROUP)}[\s\":=\[]+\w+ = ([\w.]+)")


def test_every_module_with_node_parameters_is_an_entry_point_of_its_package() -> None:
    declared = {
        module
        for path in (*ROOT.glob("src/koch_*/setup.py"), *ROOT.glob("src/koch_*/setup.cfg"))
        for module in _ENTRY.findall(path.read_text(encoding="utf-8"))
    }
    found = set()
    for path in ROOT.glob("src/koch_*/koch_*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
                called = node.value.func
                if isinstance(called, ast.Name) and called.id == "parameter":
                    found.add(".".join(path.with_suffix("").relative_to(ROOT).parts[2:]))
    assert found == declared
