# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m koch_vla` is the `koch` command line."""

from koch_vla.cli import console

console()
