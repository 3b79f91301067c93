# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The list of modules with node parameters names each one, so that shared files may hold them."""

from __future__ import annotations

import ast

from repository import ROOT

from koch_ros.parameters import PARAMETER_MODULES


def test_every_module_with_node_parameters_is_on_the_list() -> None:
    found = set()
    for path in ROOT.glob("src/koch_*/koch_*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
                called = node.value.func
                if isinstance(called, ast.Name) and called.id == "parameter":
                    found.add(".".join(path.with_suffix("").relative_to(ROOT).parts[2:]))
    assert found == set(PARAMETER_MODULES)
