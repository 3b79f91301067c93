# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Load is named where it is too much, and only there."""

from __future__ import annotations

import pytest

from koch_core.busy import busy_words


@pytest.mark.parametrize(
    ("load", "cores", "words"),
    [
        (14.43, 2, "This machine is busy: load 14.4 on 2 cores."),
        (3.0, 1, "This machine is busy: load 3.0 on 1 core."),
        (2.5, 2, ""),
        (0.0, 8, ""),
    ],
)
def test_load_is_named_beside_the_cores(load, cores, words):
    assert busy_words(load, cores) == words


def test_the_machines_own_load_is_the_default():
    assert busy_words(cores=10**6) == ""
