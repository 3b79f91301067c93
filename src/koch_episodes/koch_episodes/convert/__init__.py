# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Bags to LeRobot datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from koch_episodes.convert.options import ActionFrom, ConvertOptions, StampFrom

if TYPE_CHECKING:
    from koch_episodes.convert.run import ConvertResult, convert

__all__ = ["ActionFrom", "ConvertOptions", "ConvertResult", "StampFrom", "convert"]


def __getattr__(name: str) -> Any:
    """Import the whole conversion when it is asked for; its workers need only their part."""
    if name not in ("ConvertResult", "convert"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from koch_episodes.convert import run

    return getattr(run, name)
