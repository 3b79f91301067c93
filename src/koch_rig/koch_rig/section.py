# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One mapping of the rig file, read key by key with types, ranges and units checked."""

from __future__ import annotations

import difflib
import enum
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from koch_core.options import Option, WrongValue, did_you_mean, fitted
from koch_rig.errors import RigError
from koch_rig.rig import Vector3
from koch_rig.yaml_source import YamlSource

E = TypeVar("E", bound=enum.Enum)

_MISSING = object()
_NAME = re.compile(r"^[a-z][a-z0-9_]*$")
_UNIT_SUFFIX = re.compile(
    r"_(rad_s2|rad_s|deg_s2|deg_s|rad|deg|degrees|radians|ms|us|ns|s|sec|seconds|hz|fps|mm|cm|m"
    r"|px|ticks|percent|fraction)$"
)


IN_METRES = "That looks like millimetres: write metres."


def vector3(values: tuple[float, ...]) -> Vector3:
    """Three numbers, for the type checker too."""
    x, y, z = values
    return (x, y, z)


def closest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that a misspelt word most likely means, or None."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return found[0] if found else None


class Section:
    """A mapping under one key path; every `take` marks its key as known."""

    def __init__(self, source: YamlSource, key: str, value: object) -> None:
        self._source = source
        self.key = key
        if not isinstance(value, dict):
            raise self.error(key, value, "a mapping (key: value)")
        self._values: dict[str, Any] = value
        self._units: dict[str, str] = {}

    def error(self, key: str, got: object, expected: str, hint: str = "") -> RigError:
        """An error that names file, line, key, what was got and what is expected."""
        text = got if isinstance(got, ShownValue) else ShownValue.of(got)
        return RigError(
            self._source.path,
            key=key,
            line=self._source.lines.get(key),
            got=str(text),
            expected=expected,
            hint=hint,
        )

    def path_of(self, name: str) -> str:
        """Dotted key path of one of this section's keys."""
        return f"{self.key}.{name}" if self.key else name

    def names(self) -> list[str]:
        """All keys that stand in the file."""
        return list(self._values)

    def has(self, name: str) -> bool:
        """Whether the key is in the file with a value other than null."""
        return self._values.get(name) is not None

    def _take(self, name: str, expected: str, default: object, unit: str = "") -> Any:
        self._units[name] = unit
        value = self._values.get(name)
        if value is not None:
            return value
        if default is not _MISSING:
            return default
        # A misspelt key explains itself better than the missing one it stands for.
        self.refuse_unknown(partial=True)
        where = self.key if self.key in self._source.lines else ""
        raise RigError(
            self._source.path,
            key=self.path_of(name),
            line=self._source.lines.get(where),
            got="nothing",
            expected=expected,
            hint="This key is required.",
        )

    def text(self, name: str, *, default: Any = _MISSING) -> str:
        """A string."""
        value = self._take(name, "a text", default)
        if value is not default and not (isinstance(value, str) and value):
            raise self.error(self.path_of(name), value, "a text", "Quote it if it is one.")
        return value  # type: ignore[no-any-return]  # checked above, or the caller's default

    def file(self, name: str, folder: Path) -> Path:
        """A path; a relative one begins in the folder, ~ is somebody's home."""
        text = self.text(name)
        try:
            return folder / Path(text).expanduser()
        except RuntimeError as exc:  # ~name of nobody
            raise self.error(self.path_of(name), text, "a path", "Nobody has that home.") from exc

    def number(
        self,
        name: str,
        *,
        unit: str,
        low: float = -math.inf,
        high: float = math.inf,
        default: Any = _MISSING,
        hint: str = "",
    ) -> float:
        """A finite number within [low, high]; `hint` is shown where it is outside."""
        expected = f"a number {_range_text(low, high)}[{unit}]"
        value = self._take(name, expected, default, unit)
        if value is default:
            return value  # type: ignore[no-any-return]
        described = Option("", low=low, high=high, expected=expected, hint=hint)
        number: float = self._fitted(self.path_of(name), float, value, described)
        return number

    def _fitted(self, key: str, kind: Any, value: object, described: Option) -> Any:
        """The value as the type, by the checker of all options; its error gets file and line."""
        try:
            return fitted(kind, value, described, key)
        except WrongValue as wrong:
            hint = wrong.hint
            if kind is float and (isinstance(value, bool) or not isinstance(value, (int, float))):
                hint = "Write the bare number, without a unit."
            raise self.error(wrong.key, wrong.got, wrong.expected, hint) from wrong

    def whole(self, name: str, *, low: int, high: int, unit: str, default: Any = _MISSING) -> int:
        """A whole number within [low, high]."""
        expected = f"a whole number {_range_text(low, high)}[{unit}]"
        value = self._take(name, expected, default, unit)
        if value is default:
            return value  # type: ignore[no-any-return]
        described = Option("", low=low, high=high, expected=expected)
        number: int = self._fitted(self.path_of(name), int, value, described)
        return number

    def vector(
        self,
        name: str,
        *,
        unit: str,
        length: int = 3,
        limit: float,
        hint: str,
        default: Any = _MISSING,
    ) -> tuple[float, ...]:
        """A list of finite numbers, each within [-limit, limit]."""
        expected = f"{length} numbers [{unit}]"
        value = self._take(name, expected, default, unit)
        if value is default:
            return value  # type: ignore[no-any-return]
        key = self.path_of(name)
        if not isinstance(value, list) or len(value) != length:
            raise self.error(key, value, expected)
        each = f"a number {_range_text(-limit, limit)}[{unit}]"
        described = Option("", low=-limit, high=limit, expected=each, hint=hint)
        return tuple(
            self._fitted(f"{key}[{i}]", float, item, described) for i, item in enumerate(value)
        )

    def choice(self, name: str, kind: type[E], *, default: Any = _MISSING) -> E:
        """One of an enumeration's values."""
        expected = f"one of {', '.join(str(member.value) for member in kind)}"
        value = self._take(name, expected, default)
        if value is default:
            return value  # type: ignore[no-any-return]
        member: E = self._fitted(self.path_of(name), kind, value, Option("", expected=expected))
        return member

    def any_of(self, name: str, *, default: Any = _MISSING) -> Any:
        """A value that the caller checks itself."""
        return self._take(name, "a value", default)

    def section(self, name: str, *, optional: bool = False) -> Section:
        """The mapping under this key; an empty one where it is absent and optional."""
        value = self._take(name, "a mapping (key: value)", {} if optional else _MISSING)
        return Section(self._source, self.path_of(name), value)

    def sections(self, name: str, *, what: str, optional: bool = False) -> dict[str, Section]:
        """A mapping from names that we choose (arms, cameras) to sections."""
        holder = self.section(name, optional=optional)
        result = {}
        for key in holder.names():
            if not _NAME.match(key):
                raise self.error(
                    holder.path_of(key),
                    key,
                    f"a name for {what} of small letters, digits and _, starting with a letter",
                    "It becomes a ROS name.",
                )
            result[key] = holder.section(key)
        return result

    def refuse_unknown(self, *, partial: bool = False) -> None:
        """Raise at a key that no one took.

        Args:
            partial: Not all keys were taken yet: refuse only what is near a taken one.
        """
        for name in self._values:
            if name in self._units:
                continue
            hint = self._explain(name)
            if partial and not hint:
                continue
            raise self.error(
                self.path_of(name),
                ShownValue("an unknown key"),
                f"one of {', '.join(self._units)}",
                hint,
            )

    def _explain(self, name: str) -> str:
        """What the writer of an unknown key most likely meant."""
        stem = _UNIT_SUFFIX.sub("", name)
        for known, unit in self._units.items():
            if known != name and _UNIT_SUFFIX.sub("", known) == stem and unit:
                return f"Wrong unit? {known!r} is given in {unit}{_conversion(name, unit)}."
        return did_you_mean(name, self._units)


class ShownValue(str):
    """How a value from the file looks in a message."""

    @classmethod
    def of(cls, value: object) -> ShownValue:
        """Short form of any value."""
        if isinstance(value, dict):
            return cls(f"a mapping with {', '.join(map(str, value)) or 'nothing'}")
        text = repr(value)
        return cls(text if len(text) <= 80 else f"{text[:77]}...")


def _range_text(low: float, high: float) -> str:
    """'from 0 to 5 ', or nothing where there is no bound."""
    if low == -math.inf and high == math.inf:
        return ""
    if high == math.inf:
        return f"of at least {low:g} "
    return f"from {low:g} to {high:g} "


def _conversion(name: str, unit: str) -> str:
    """The factor from the unit in a key's name to the expected one."""
    if "rad" in unit and re.search(r"deg", name):
        return ": multiply degrees by pi/180 = 0.01745"
    if unit.startswith("deg") and re.search(r"rad", name):
        return ": multiply radians by 180/pi = 57.3"
    if unit == "ms" and re.search(r"_s(ec|econds)?$", name):
        return ": multiply seconds by 1000"
    if unit == "s" and name.endswith("_ms"):
        return ": divide milliseconds by 1000"
    if unit == "m" and name.endswith(("_mm", "_cm")):
        return ": write metres"
    return ""
