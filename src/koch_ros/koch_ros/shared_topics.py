# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Topics with absolute names, and how a process moves into the namespace of its rig."""

from __future__ import annotations

import os

#: What ROS names absolutely; each rig that lives in a namespace has its own.
SHARED_TOPICS = ("/tf", "/tf_static", "/clock", "/diagnostics")
#: Environment variable with the namespace of the rig that `koch` talks to.
NAMESPACE_VARIABLE = "KOCH_NAMESPACE"


def chosen_namespace() -> str:
    """The namespace that the environment names, without slashes around; empty for the root."""
    return os.environ.get(NAMESPACE_VARIABLE, "").strip("/")


def namespace_arguments(namespace: str) -> list[str]:
    """The ROS arguments that move a node with relative names into a rig's namespace."""
    if not namespace:
        return []
    words = ["--ros-args", "-r", f"__ns:=/{namespace}"]
    for topic in SHARED_TOPICS:
        words += ["-r", f"{topic}:=/{namespace}{topic}"]
    return words
