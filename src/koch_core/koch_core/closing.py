# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a `with` block closes: ports, files, processes, threads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

_Closing = TypeVar("_Closing", bound="Closing")
_Opening = TypeVar("_Opening", bound="Opening")


class Closing(ABC):
    """Something that its constructor opens and the end of a `with` block closes."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held; harmless when called twice."""

    def __enter__(self: _Closing) -> _Closing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Opening(Closing):
    """Something that a `with` block opens as well."""

    @abstractmethod
    def open(self) -> object:
        """Take what `close` gives back."""

    def __enter__(self: _Opening) -> _Opening:
        self.open()
        return self
