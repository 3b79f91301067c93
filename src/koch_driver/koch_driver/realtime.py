# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The former place of `koch_core.realtime`, for scripts that emulate an arm in their process."""

from koch_core.realtime import request_realtime

__all__ = ["request_realtime"]
