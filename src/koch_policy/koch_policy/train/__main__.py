# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m koch_policy.train`, for torchrun and `accelerate launch`."""

from koch_policy.train.cli import run

run()
