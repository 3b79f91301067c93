# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Kinds by name: registered by a decorator, found in other packages by their entry points.

A registry belongs to the package that uses the kinds:

    CAMERAS: Registry[OpenSource] = Registry("camera scheme", "koch_vla.cameras")

    @CAMERAS.register("folder")
    class FolderCamera: ...

A package outside this tree names the module that registers a kind in its own metadata, so that
nothing of it is imported before someone asks for that kind:

    [project.entry-points."koch_vla.cameras"]
    folder = "my_package.folder_camera"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import TypeVar

from koch_core.errors import KochError

K = TypeVar("K")
Decorated = TypeVar("Decorated")


class UnknownKindError(KochError, KeyError):
    """Nothing registers a name."""

    def __init__(self, what: str, name: str, known: list[str]) -> None:
        self.text = (
            f"{what} {name!r}: nothing registers it; known are {', '.join(known) or 'none'}. "
            "Install the package that brings it, or run `./koch setup`: what is installed may be "
            "older than its sources."
        )
        super().__init__(self.text)

    def __str__(self) -> str:
        """The sentence; a KeyError's own text is in quotes."""
        return self.text


class Registry(Mapping[str, K]):
    """The kinds of one sort, a mapping of names to kinds.

    Args:
        what: What a name stands for, for the error of a name that is taken.
        group: Group of entry points; each entry's name is the name of the kind in its module.
        own: Kinds of the registry's own package, name to the module that registers it. It is
            imported when that kind is asked for: it imports the registry, and may be heavy.
    """

    def __init__(self, what: str, group: str, own: Mapping[str, str] | None = None) -> None:
        self.what = what
        self.group = group
        self._own = dict(own or {})
        self._kinds: dict[str, K] = {}

    def add(self, kind: K, *names: str) -> None:
        """Register a kind under some names.

        Raises:
            ValueError: A name is taken. Two packages would otherwise fight for it in silence.
        """
        for name in names:
            if self._kinds.setdefault(name, kind) is not kind:
                raise ValueError(f"{self.what} {name!r} is registered already")

    def register(self, *names: str) -> Callable[[Decorated], Decorated]:
        """Register what is decorated under some names; see `add`."""

        def decorate(kind: Decorated) -> Decorated:
            self.add(kind, *names)  # type: ignore[arg-type]  # a class is its own factory
            return kind

        return decorate

    def find(self, name: str) -> K | None:
        """Return the kind of a name, None where nothing registers it.

        The package that promises a kind is imported here; what it raises is not caught.
        """
        if name not in self._kinds and name in self._own:
            import_module(self._own[name])
        if name not in self._kinds:
            for promised in entry_points(group=self.group, name=name):
                promised.load()
        return self._kinds.get(name)

    def is_taken(self, name: str) -> bool:
        """Whether a kind is registered under a name; `in` also asks every installed package."""
        return name in self._kinds

    def names(self) -> list[str]:
        """Return the names of all kinds, promised ones too; imports nothing."""
        promised = {entry.name for entry in entry_points(group=self.group)}
        return sorted({*self._kinds, *self._own, *promised})

    def loaded(self) -> list[K]:
        """Return our own kinds and all that are registered by now, in order of registration."""
        for module in self._own.values():
            import_module(module)
        return list(dict.fromkeys(self._kinds.values()))

    def __getitem__(self, name: str) -> K:
        """Return the kind of a name.

        Raises:
            UnknownKindError: Nothing registers it.
        """
        kind = self.find(name)
        if kind is None:
            raise UnknownKindError(self.what, name, self.names())
        return kind

    def __contains__(self, name: object) -> bool:
        """Whether a name is registered or promised; imports nothing."""
        if name in self._kinds or name in self._own:
            return True
        return bool(entry_points(group=self.group, name=str(name)))

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self.names())

    def __len__(self) -> int:
        """Count the names."""
        return len(self.names())
