# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Leaves the tests of this extra out of a workspace that was set up without it."""

from importlib.metadata import entry_points
from importlib.util import find_spec

_IS_BUILT = bool(entry_points(group="koch_policy.backbones")) and find_spec("cffi") is not None
collect_ignore_glob = [] if _IS_BUILT and find_spec("torch") else ["test_*.py"]
