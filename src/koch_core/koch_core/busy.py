# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Whether this machine has more to do than it can: the usual cause of late samples and gaps."""

from __future__ import annotations

import os


def busy_words(load: float | None = None, cores: int | None = None) -> str:
    """A sentence that names the load where it is higher than the cores can bear; else nothing.

    Args:
        load: Processes that run or wait; the mean of the last minute when None.
        cores: Of those that this process may use when None.
    """
    load = os.getloadavg()[0] if load is None else load
    cores = len(os.sched_getaffinity(0)) if cores is None else cores
    if load <= 1.25 * cores:
        return ""
    return f"This machine is busy: load {load:.1f} on {cores} core{'s' if cores > 1 else ''}."
