# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Names and numbers that come from outside, for a sentence that a person reads."""

from __future__ import annotations

from collections.abc import Sequence

_LISTED = 6
_LONGEST = 40


def listed(names: Sequence[str]) -> str:
    """Names from outside for a sentence: the first few, shortened, without control characters.

    Anybody may send fifty thousand of them, or one that writes over the reader's terminal.
    """
    shown = [
        "".join(char if char.isprintable() else "?" for char in name[:_LONGEST])
        + "..." * (len(name) > _LONGEST)
        for name in names[:_LISTED]
    ]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def is_whole(text: str) -> bool:
    """Whether a text can be written; JSON may bring halves of characters, which UTF-8 lacks."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def fixed(value: float, digits: int = 3) -> str:
    """A number from outside with so many decimals, or in short where it has many digits."""
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.3g}"
