# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What holds for the QoS of every node of the project."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2]


def _argument(call: ast.Call) -> str | None:
    """The name that the keyword for the QoS of services is given, or its dictionary."""
    for keyword in call.keywords:
        if keyword.arg in ("qos_profile", None) and isinstance(keyword.value, ast.Name):
            return keyword.value.id
    return None


def test_every_server_keeps_more_requests_than_rclpys_ten() -> None:
    """Of forty requests at once thirty would be dropped without a word."""
    wanted = {"create_service": "SERVICES", "ActionServer": "ACTION_SERVICES"}
    found = dict.fromkeys(wanted, 0)
    for path in SOURCES.glob("*/koch_*/**/*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name in wanted:
                found[name] += 1
                assert _argument(call) == wanted[name], f"{path}:{call.lineno}"
    assert all(found.values()), found
