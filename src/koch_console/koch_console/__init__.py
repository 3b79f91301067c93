# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The console in the browser: a web page for people, and the server behind it."""

from koch_console.access import Access, AccessError, PageRole
from koch_console.commands import COMMANDS, PageRequest, WrongRequest, read_request
from koch_console.slot import LatestImage

__all__ = [
    "COMMANDS",
    "Access",
    "AccessError",
    "LatestImage",
    "PageRequest",
    "PageRole",
    "WrongRequest",
    "read_request",
]
