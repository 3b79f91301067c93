# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What all answers to a browser have in common: headers, the role of who asks, JSON. No ROS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any, TypeVar

from aiohttp import web

from koch_console.access import PageRole

_T = TypeVar("_T")
BODY_S = 10.0  # 4 kB at most
ROLE = web.RequestKey("role", PageRole)
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'; object-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def json_answer(content: Any) -> web.Response:
    """Answer with JSON; a text is JSON already. A browser must ask again each time."""
    text = content if isinstance(content, str) else json.dumps(content, default=str)
    headers = {**HEADERS, "Cache-Control": "no-store"}
    return web.Response(text=text, content_type="application/json", headers=headers)


def must_operate(request: web.Request) -> None:
    """Refuse who may look only.

    Raises:
        HTTPForbidden: The role is not enough.
    """
    if request[ROLE] < PageRole.OPERATE:
        raise web.HTTPForbidden(text="You may look only.\n")


async def in_time(body: Awaitable[_T]) -> _T:
    """The body of a request.

    Raises:
        HTTPRequestTimeout: Its sender is slow: half a body must not hold a place for ever.
    """
    try:
        return await asyncio.wait_for(body, BODY_S)
    except asyncio.TimeoutError as exc:
        raise web.HTTPRequestTimeout(text="The message did not come in time.\n") from exc


async def asked_of(request: web.Request) -> dict[str, Any]:
    """The JSON object that a page of ours has sent; a form of another site cannot send that.

    Raises:
        HTTPForbidden, HTTPBadRequest, HTTPUnsupportedMediaType, HTTPRequestTimeout: It may not, or
            did not.
    """
    must_operate(request)
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="Expected application/json.\n")
    try:
        content = json.loads(await in_time(request.text()))
    except (ValueError, RecursionError) as exc:
        raise web.HTTPBadRequest(text="The message is no JSON.\n") from exc
    if not isinstance(content, dict):
        raise web.HTTPBadRequest(text="Expected an object.\n")
    return content
