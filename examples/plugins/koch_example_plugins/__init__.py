# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Kinds for koch_vla, each in one file: a camera, a policy, an arm model, a dataset format."""
