# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The life of the console node in its process."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.ros


def threads() -> int:
    """Of this process, those of DDS as well."""
    return len(list(Path("/proc/self/task").iterdir()))


def test_a_closed_console_leaves_the_graph(bench, wait_for):
    """Also where someone still holds it, as aiohttp's cache of handlers does."""
    bench().close()
    before = threads()
    held = bench()
    assert threads() >= before + 5
    held.close()
    assert wait_for(lambda: threads() <= before)
