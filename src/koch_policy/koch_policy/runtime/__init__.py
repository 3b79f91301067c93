# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Runtimes: `load_policy` returns a checkpoint ready to predict."""

from koch_policy.runtime.choose import load_policy, seed_draws

__all__ = ["load_policy", "seed_draws"]
