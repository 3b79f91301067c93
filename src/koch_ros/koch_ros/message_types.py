# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Message classes by the name that bags and topics say."""

from __future__ import annotations

import importlib
from typing import Any


def message_class(message_type: str) -> type | None:
    """Import a message class; None where its package is not installed."""
    package, _, name = message_type.partition("/msg/")
    try:
        found = getattr(importlib.import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None
    return found if isinstance(found, type) else None


def has_header(kind: Any) -> bool:
    """Tell whether a message type begins with std_msgs/Header."""
    fields = list(kind.get_fields_and_field_types().values())
    return bool(fields) and fields[0] == "std_msgs/Header"
