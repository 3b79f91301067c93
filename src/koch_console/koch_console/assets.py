# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The files of the page, read once: no request ever becomes a path."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

_FOLDER = Path(__file__).resolve().parent / "static"
_KINDS = {".js": "text/javascript", ".md": "text/plain"}


class _Asset(NamedTuple):
    content: bytes
    kind: str
    tag: str


class Assets:
    """Files by their name below `static/`."""

    def __init__(self) -> None:
        self._assets = {
            path.relative_to(_FOLDER).as_posix(): _read(path)
            for path in sorted(_FOLDER.rglob("*"))
            if path.is_file()
        }
        self.login = self._assets["login.html"].content.decode()

    def answer(
        self, request: web.Request, name: str, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """The file of a name.

        Raises:
            HTTPNotFound: There is none.
        """
        asset = self._assets.get(name)
        if asset is None or name == "login.html":
            raise web.HTTPNotFound(text="There is no such file.\n")
        kept = {**headers, "ETag": f'"{asset.tag}"', "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == f'"{asset.tag}"':
            return web.Response(status=304, headers=kept)
        return web.Response(body=asset.content, headers={**kept, "Content-Type": asset.kind})


def _read(path: Path) -> _Asset:
    content = path.read_bytes()
    kind = _KINDS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "text/plain"
    if kind.startswith("text/"):
        kind += "; charset=utf-8"
    return _Asset(content, kind, hashlib.sha256(content).hexdigest()[:20])
