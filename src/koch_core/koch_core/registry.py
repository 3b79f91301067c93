# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Things of one kind by name, which other packages add to through entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K")


class Registry(Generic[T]):
    """What is registered for one kind: here at import, elsewhere when its name is asked for.

    Args:
        what: The kind, for messages: "camera scheme".
        group: Entry points of other packages. Each name is one that its module registers.
    """

    def __init__(self, what: str, group: str) -> None:
        self._what = what
        self._group = group
        self._known: dict[str, T] = {}

    def add(self, name: str, thing: T) -> None:
        """Register a thing.

        Raises:
            ValueError: The name is taken. Two packages would otherwise fight for it in silence.
        """
        if self._known.setdefault(name, thing) is not thing:
            raise ValueError(f"{self._what} {name!r} is registered already")

    def register(self, *names: str) -> Callable[[K], K]:
        """Decorator: register a class or function under these names."""

        def take(thing: K) -> K:
            for name in names:
                self.add(name, thing)  # type: ignore[arg-type]  # a K that is no T shows at its use
            return thing

        return take

    def find(self, name: str) -> T | None:
        """What is registered under a name; loads the package that offers it. None: nobody does."""
        if name not in self._known:
            for offered in entry_points(group=self._group, name=name):
                offered.load()
        return self._known.get(name)

    def names(self) -> list[str]:
        """All names, sorted, those of packages that are not loaded included."""
        return sorted({*self._known, *(found.name for found in entry_points(group=self._group))})

    def loaded(self) -> tuple[T, ...]:
        """What is registered by now, in order of registration."""
        return tuple(self._known.values())
