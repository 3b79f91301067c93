# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The control tables of ``koch_driver.bus``, under the name that scripts of users import."""

from koch_driver.bus.control_table import *  # noqa: F403  # all of it, as before
