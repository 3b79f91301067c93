# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Options declared once: a dataclass whose fields say what a value means and may be.

From such a model follow the command line, the ROS parameters (`koch_ros.parameters`), the launch
arguments, the checks of files, and the tables in the documents:

    @dataclass(frozen=True, kw_only=True)
    class Wave(OptionModel):
        times: int = option(3, "how often", low=1)

    Wave(times=0)  # OptionError: --times: got 0, expected 1 or more.
    read(Wave, values_of_a_file, refuse)  # `refuse` makes the error: it knows file and line

`koch_core.command_line` makes the command line and the tables. Dataclasses and argparse, because
both are imported anyway: docs/decisions.md has the times that pydantic, cattrs and tyro would add
to every call of `koch`.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from koch_core.errors import KochError

if TYPE_CHECKING:
    import argparse

M = TypeVar("M")
_KEY = "option"
#: Makes the error of a wrong value from its dotted key, what was got, what is expected, a hint.
Refuse = Callable[[str, object, str, str], Exception]


class OptionError(KochError):
    """An option has a value that means nothing."""

    def __init__(self, option: str, got: object, expected: str, hint: str = "") -> None:
        super().__init__(f"{option}: got {got!r}, expected {expected}.{hint and ' ' + hint}")


class WrongValue(KochError):
    """A value does not fit its declaration. Its reader knows the origin and makes the message."""

    def __init__(self, key: str, got: object, expected: str, hint: str = "") -> None:
        super().__init__(f"{key}: got {got!r}, expected {expected}")
        self.key, self.got, self.expected, self.hint = key, got, expected, hint


@dataclass(frozen=True)
class UnknownKey:
    """What is "got" where a key is not known.

    Attributes:
        known: The keys there are.
    """

    known: tuple[str, ...]

    def __repr__(self) -> str:
        return "an unknown key"


@dataclass(frozen=True)
class Option:
    """What is known of an option besides its name, type and default.

    Attributes:
        text: What it means, with the unit.
        low: Least value; of each element where the option holds several.
        high: Greatest value.
        above: The value is greater than this.
        below: The value is less than this.
        choices: Allowed values; empty for all. Those of an enumeration follow from its type.
        expected: What an error says instead of the range.
        hint: What an error adds.
        required: Of a node: the default stands for nothing and is refused.
        live: Of a node: may be set while it runs.
        flags: Words of the command line, the first for messages; by default --the-name.
        metavar: How the help calls the value; a word for each where there are several.
        bare: Value of the flag where none follows it.
        needs_words: Of a text: an empty one is a slip.
        parse: Turns a word of the command line or launch file into the value, or an element.
    """

    text: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    expected: str = ""
    hint: str = ""
    required: bool = False
    live: bool = False
    flags: tuple[str, ...] = ()
    metavar: str = ""
    bare: Any = None
    needs_words: bool = False
    parse: Callable[[str], Any] | None = None

    def range_text(self) -> str:
        """The range in words; empty where there is none."""
        if self.expected:
            return self.expected
        low = "" if self.low is None else f"{self.low:g}"
        high = "" if self.high is None else f"{self.high:.10g}"
        if low and high:
            return f"{low} to {high}"
        if low:
            return f"{low} or more" + ("" if self.below is None else f", below {self.below:g}")
        parts = [] if self.above is None else [f"above {self.above:g}"]
        if high or self.below is not None:
            parts.append(f"at most {high}" if high else f"below {self.below:g}")
        return ", ".join(parts)

    def holds(self, value: float) -> bool:
        """Whether a number is in the range."""
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def option(default: Any, text: str, **more: Any) -> Any:
    """A field of a model: its default (`...` for none), what it means, and more of Option."""
    described = Option(text, **more)
    if default is ...:
        return dataclasses.field(metadata={_KEY: described})
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata={_KEY: described})
    return dataclasses.field(default=default, metadata={_KEY: described})


def same_as(declared_option: Option, default: Any, **changes: Any) -> Any:
    """A field whose Option several models share, perhaps with another flag."""
    return dataclasses.field(
        default=default, metadata={_KEY: dataclasses.replace(declared_option, **changes)}
    )


@dataclass(frozen=True)
class Declared:
    """A field of a model: name, type and Option together.

    Attributes:
        name: Of the field.
        kind: Its type, resolved.
        default: MISSING where it must be given.
        option: What else is known.
    """

    name: str
    kind: Any
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """The word of the command line, as messages name it."""
        flags = self.option.flags
        return flags[0] if flags else f"--{self.name.replace('_', '-')}"

    @property
    def word(self) -> str:
        """Its name in a parsed command line and among launch arguments: the flag, as a name."""
        return self.flag.lstrip("-").replace("-", "_")

    @property
    def element(self) -> Any:
        """Type of one value: of a tuple's elements, or of what may be None."""
        kind = _without_none(self.kind)
        return typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind

    def from_word(self, word: Any) -> Any:
        """The value, or an element of it, from a word of the command line."""
        if self.option.parse is not None:
            return self.option.parse(word)
        element = self.element
        is_enum = isinstance(element, type) and issubclass(element, enum.Enum)
        return element(word) if is_enum else word

    @property
    def choices(self) -> tuple[Any, ...]:
        """The plain values that are allowed; empty for all."""
        if isinstance(self.element, type) and issubclass(self.element, enum.Enum):
            return tuple(member.value for member in self.element)
        return self.option.choices

    @property
    def is_list(self) -> bool:
        """Whether it holds any number of values."""
        return typing.get_args(_without_none(self.kind))[1:] == (...,)

    @property
    def count(self) -> int:
        """How many values it always holds; 1 for a plain one and for any number."""
        kind = _without_none(self.kind)
        is_fixed = typing.get_origin(kind) is tuple and not self.is_list
        return len(typing.get_args(kind)) if is_fixed else 1


_MODELS: dict[type[Any], Mapping[str, Declared]] = {}


def declared(model: type[Any]) -> Mapping[str, Declared]:
    """The options of a model by field name, in order."""
    if model not in _MODELS:
        hints = typing.get_type_hints(model)
        found: dict[str, Declared] = {}
        for item in dataclasses.fields(model):
            if _KEY in item.metadata:
                make, described = item.default_factory, item.metadata[_KEY]
                default = item.default if make is MISSING else make()
                found[item.name] = Declared(item.name, hints[item.name], default, described)
        _MODELS[model] = types.MappingProxyType(found)
    return _MODELS[model]


class OptionModel:
    """Base of models: checks itself when made, and comes from a command line."""

    def __post_init__(self) -> None:
        """Check each value.

        Raises:
            OptionError: One does not fit its declaration; see `refuse`.
        """
        for name, item in declared(type(self)).items():
            value = getattr(self, name)
            if value is item.default or value == item.default:
                continue  # a default may stand outside the range, as 0 for "no limit"
            try:
                fitted(item.kind, value, item.option, name)
            except WrongValue as wrong:
                raise self.refuse(wrong.key, wrong.got, wrong.expected, wrong.hint) from wrong

    @classmethod
    def refuse(cls, name: str, got: object, expected: str, hint: str = "") -> Exception:
        """The error of a wrong value; models of files and nodes have errors of their own."""
        item = declared(cls).get(name)
        return OptionError(item.flag if item else name, got, expected, hint)

    @classmethod
    def of(cls: type[M], words: argparse.Namespace, **given: Any) -> M:
        """Make the model from a parsed command line and the fields that are no options.

        Raises:
            OptionError: A value is out of its range, or does not go with another.
        """
        options = declared(cls).items()
        found = {name: _from_words(item, getattr(words, item.word)) for name, item in options}
        return cls(**found, **given)


def _from_words(item: Declared, value: Any) -> Any:
    """The value of an option from what argparse made of it."""
    if value is None or value is item.default:
        return item.default if item.is_list else value
    if isinstance(value, list):
        return tuple(item.from_word(word) for word in value)
    return item.from_word(value)


# -- values -----------------------------------------------------------------------------------


def read(model: type[M], values: object, refuse: Refuse, **given: Any) -> M:
    """Make a model from the plain values of a file, every key and type checked.

    Args:
        model: Dataclass of options.
        values: A mapping, as YAML or JSON give it.
        refuse: Makes the error; it knows the file and the line of a key.
        given: Fields that the file does not hold.
    """
    options = declared(model)
    try:
        found = _fitted_fields(options, values)
        for name, item in options.items():
            if item.default is MISSING and name not in (*found, *given):
                expected = item.option.expected or item.option.text
                raise WrongValue(name, None, expected, "This key is required.")
        return model(**given, **found)
    except WrongValue as wrong:
        raise refuse(wrong.key, wrong.got, wrong.expected, wrong.hint) from wrong


def read_some(model: type[Any], values: object, refuse: Refuse) -> dict[str, Any]:
    """The checked values of a file that overrides part of a model."""
    try:
        return _fitted_fields(declared(model), values)
    except WrongValue as wrong:
        raise refuse(wrong.key, wrong.got, wrong.expected, wrong.hint) from wrong


def _fitted_fields(
    options: Mapping[str, Declared], values: object, folder: str = ""
) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise WrongValue(folder.rstrip("."), values, "a mapping (key: value)")
    for name in values:
        if name not in options:
            expected, hint = f"one of {', '.join(options)}", did_you_mean(name, options)
            raise WrongValue(f"{folder}{name}", UnknownKey(tuple(options)), expected, hint)
    return {
        key: fitted(options[key].kind, value, options[key].option, f"{folder}{key}")
        for key, value in values.items()
    }


def did_you_mean(word: object, choices: Iterable[object]) -> str:
    """The sentence that names the choice a misspelt word most likely stands for, or nothing."""
    import difflib  # here, because only mistakes need it

    found = difflib.get_close_matches(str(word), [str(choice) for choice in choices], n=1)
    return f"Did you mean {found[0]!r}?" if found else ""


def fitted(kind: Any, value: Any, described: Option, key: str = "") -> Any:
    """Return a plain value as the type that an option has.

    Whole numbers become floats, lists tuples, texts paths and members of enumerations.

    Args:
        kind: bool, int, float, str, Path, an Enum, a model, X | None, tuples and mappings of them.
        value: The value.
        described: Range and choices, which hold for the elements of tuples and mappings.
        key: Dotted key of the value, for the error.

    Raises:
        WrongValue: It does not fit.
    """
    if value is None and type(None) in typing.get_args(kind):
        return None
    kind = _without_none(kind)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        fit = value
    elif origin is tuple:
        fit = tuple(_fitted_items(parts, value, described, key))
    elif origin is list:
        fit = _fitted_items((*parts, ...), value, described, key)
    elif origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise WrongValue(key, value, described.expected or "a mapping (key: value)")
        fit = {k: fitted(parts[1], v, described, f"{key}.{k}") for k, v in value.items()}
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
        is_made = isinstance(value, kind)
        fit = value if is_made else kind(**_fitted_fields(declared(kind), value, f"{key}."))
    else:
        fit = _fitted_scalar(kind, value, described, key)
    return fit


def _fitted_items(parts: tuple[Any, ...], value: Any, described: Option, key: str) -> list[Any]:
    endless = parts[-1] is ...
    count = "" if endless else f"{len(parts)} "
    if not isinstance(value, (list, tuple)) or not (endless or len(value) == len(parts)):
        got = tuple(value) if isinstance(value, list) else value
        expected = described.expected or f"a list of {count}{_NOUNS[parts[0]]}"
        raise WrongValue(key, got, expected)
    kinds = [parts[0]] * len(value) if endless else parts
    pairs = enumerate(zip(kinds, value, strict=True))
    try:
        return [fitted(part, item, described, f"{key}[{k}]") for k, (part, item) in pairs]
    except WrongValue as wrong:
        if not described.expected:
            raise
        # The text speaks of the value as a whole.
        raise WrongValue(key, tuple(value), wrong.expected, wrong.hint) from wrong


_NOUNS = {int: "whole numbers", float: "numbers", str: "texts", Path: "paths", Any: "values"}
_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}


def _fitted_scalar(kind: Any, value: Any, described: Option, key: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        members = {member.value: member for member in kind}
        if value in members.values():
            return value
        return members[_chosen(value, tuple(members), key, described)]
    if kind is Path:
        kind, value = str, str(value) if isinstance(value, Path) else value
        return Path(_fitted_scalar(kind, value, described, key))
    allowed = (int, float) if kind is float else (kind,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        hint = described.hint
        if kind is float and isinstance(value, str) and "e" in value:
            hint = "In YAML write 1.0e-4, not 1e-4."
        raise WrongValue(key, value, _expected(kind, described), hint)
    if kind is float and not math.isfinite(value):
        raise WrongValue(key, value, _expected(kind, described), described.hint)
    if kind in (int, float) and not described.holds(value):
        raise WrongValue(key, value, described.range_text(), described.hint)
    if described.needs_words and not str(value).strip():
        raise WrongValue(key, value, "a text with words", described.hint)
    if described.choices:
        _chosen(value, described.choices, key, described)
    return float(value) if kind is float else value


def _chosen(value: Any, choices: tuple[Any, ...], key: str, described: Option) -> Any:
    if value in choices:
        return value
    listed = ", ".join(str(choice) if choice != "" else '""' for choice in choices)
    hint = did_you_mean(value, choices) or described.hint
    raise WrongValue(key, value, described.expected or f"one of {listed}", hint)


def _expected(kind: Any, described: Option) -> str:
    """What a value of another type should have been."""
    if described.expected:
        return described.expected
    range_text = described.range_text()
    return f"{_WORDS[kind]}, {range_text}" if range_text else _WORDS[kind]


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    rest = [part for part in typing.get_args(kind) if part is not type(None)]
    return rest[0] if len(rest) == 1 else Any
