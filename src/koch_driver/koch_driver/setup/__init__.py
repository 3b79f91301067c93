# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a person does once: give motors their ids, calibrate, find the zero pose."""
