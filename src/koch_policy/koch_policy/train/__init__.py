# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Training: data windows, augmentation, optimisation, the loop and its figures."""
