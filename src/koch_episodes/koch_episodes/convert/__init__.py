# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Bags to LeRobot datasets."""

from koch_episodes.convert.options import ActionFrom, ConvertOptions, StampFrom
from koch_episodes.convert.run import ConvertResult, convert

__all__ = ["ActionFrom", "ConvertOptions", "ConvertResult", "StampFrom", "convert"]
