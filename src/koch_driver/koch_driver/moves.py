# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The driver's own motions of ``koch_driver.trajectory``, under the name that scripts import."""

from koch_driver.trajectory.moves import *  # noqa: F403  # all of it, as before
