# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Command lines and tables of documents, from models of options.

    from_command_line(Wave, "koch wave", "Wave.", argv)

Nodes take their options as parameters and never import this.
"""

from __future__ import annotations

import argparse
import enum
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from koch_core.options import Declared, OptionError, OptionModel, declared
from koch_core.terminal import complain

M = TypeVar("M")
_CHOSEN = "subcommand"


class CommandLine(argparse.ArgumentParser):
    """A parser that breaks what it says of a mistake between words, as `complain` does.

    Attributes:
        elsewhere: Flags that are no options of this command -> what says the same.
    """

    elsewhere: Mapping[str, str] = MappingProxyType({})

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and which flag was meant, and end with exit code 2."""
        self.print_usage(sys.stderr)
        head, marker, words = message.partition("unrecognized arguments: ")
        meant = [self._meant(word) for word in words.split() if word.startswith("-")]
        complain(" ".join([f"{self.prog}: error: {head}{marker}{words}", *filter(None, meant)]))
        raise SystemExit(2)

    def _meant(self, word: str) -> str:
        """The sentence that names the flag for which a wrong one most likely stands."""
        import difflib  # here, because only mistakes need it

        flag = word.partition("=")[0].replace("_", "-")
        known = {name: name for name in self._flags()} | dict(self.elsewhere)
        found = difflib.get_close_matches(flag, known, n=1)
        return f"Did you mean `{known[found[0]]}`?" if found else ""

    def _flags(self) -> list[str]:
        """The long flags of this parser and of its subcommands."""
        parsers: list[argparse.ArgumentParser] = [self]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
        flags = [flag for parser in parsers for flag in parser._option_string_actions]
        return [flag for flag in flags if flag.startswith("--")]


def command_line(prog: str, description: str, *models: type[Any], epilog: str = "") -> CommandLine:
    """A parser with the options of some models; each model takes its own with `of`."""
    parser = CommandLine(prog=prog, description=description, epilog=epilog)
    for model in models:
        add_options(parser, model)
    return parser


def from_command_line(
    model: type[M], prog: str, description: str, argv: Sequence[str], *, epilog: str = ""
) -> M:
    """Parse a command line of one model; it ends the process as argparse does."""
    made: M = parsed(command_line(prog, description, model, epilog=epilog), argv, model)
    return made


def add_options(
    parser: argparse.ArgumentParser, model: type[Any], without: tuple[str, ...] = ()
) -> None:
    """Add the options of a model to a parser, but for some that the caller sets."""
    for item in declared(model).values():
        if item.name in without:
            continue
        described = item.option
        flags = described.flags or (item.flag,)
        words: dict[str, Any] = {"help": _help(item)}
        if flags[0].startswith("-"):
            words |= {"dest": item.word, "default": item.default}
            if item.default is MISSING:
                words |= {"default": None, "required": True}
        if item.element is bool:
            plain = item.default is False
            words["action"] = "store_true" if plain else argparse.BooleanOptionalAction
        else:
            words |= _value_words(item)
            if not flags[0].startswith("-"):
                words |= _place_words(item)
        parser.add_argument(*flags, **words)


def _place_words(item: Declared) -> dict[str, Any]:
    """What argparse is told of an option that has a place instead of a flag."""
    if item.default is MISSING:
        return {"nargs": "+"} if item.is_list else {}
    return {"nargs": "*" if item.is_list else "?", "default": item.default}


def _value_words(item: Declared) -> dict[str, Any]:
    """What argparse is told of an option that takes a value."""
    described, element = item.option, item.element
    words: dict[str, Any] = {}
    if element in (int, float, Path):
        words["type"] = element
    if item.choices:
        words["choices"] = [choice for choice in item.choices if choice != ""]
    if described.metavar or not item.choices:
        words["metavar"] = described.metavar or item.word.upper()
    if described.bare is not None:
        words |= {"nargs": "?", "const": described.bare}
    if item.count > 1:
        words |= {"nargs": item.count, "metavar": tuple(words["metavar"].split())}
    if item.is_list:
        if item.flag.startswith("-"):
            words |= {"action": "append", "default": None}
    elif isinstance(item.default, enum.Enum):
        words["default"] = item.default
    return words


def _help(item: Declared) -> str:
    """The help of an option; it names the default where the text does not."""
    text, default = item.option.text, item.default
    nothing = default is MISSING or default is None or isinstance(default, bool) or not default
    if not nothing and "default" not in text:
        text = f"{text} (default: {plain(default)})"
    return text.replace("%", "%%")


def plain(value: object) -> str:
    """A default as a person would type it."""
    if isinstance(value, (bool, enum.Enum)):
        return str(value.value if isinstance(value, enum.Enum) else value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(map(plain, value)) if isinstance(value, tuple) else str(value)


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str], *models: type[Any]) -> Any:
    """Parse a command line into its models; a wrong value ends the process as argparse does."""
    words = parser.parse_args(argv)
    try:
        made = [model.of(words) for model in models]
    except OptionError as error:
        parser.error(str(error))
    return made[0] if len(made) == 1 else made


def subcommands(
    prog: str, description: str, kinds: Mapping[str, type[Any]], otherwise: str = ""
) -> argparse.ArgumentParser:
    """A parser whose first word chooses a model; the model's first line is its help.

    Args:
        prog: What is typed before that word.
        description: Of all.
        kinds: The models by word.
        otherwise: The word that is meant where none is given, of a model without places; empty:
            one must be given.
    """
    parser = command_line(prog, description, *([kinds[otherwise]] if otherwise else []))
    places = parser.add_subparsers(
        dest=_CHOSEN, required=not otherwise, metavar="{" + ",".join(kinds) + "}"
    )
    for word, model in kinds.items():
        text = (model.__doc__ or "").partition("\n")[0].rstrip(".")
        add_options(places.add_parser(word, help=text, description=text), model)
    parser.set_defaults(**{_CHOSEN: otherwise})
    return parser


def parsed_subcommand(
    parser: argparse.ArgumentParser, argv: Sequence[str], kinds: Mapping[str, type[Any]]
) -> tuple[str, Any]:
    """Parse a command line of `subcommands`: the word, and its model."""
    word = getattr(parser.parse_args(argv), _CHOSEN)
    return word, parsed(parser, argv, kinds[word])


def command_words(model: OptionModel) -> list[str]:
    """The words of a command line from which `of` makes this model again.

    Values at their defaults need none.
    """
    words: list[str] = []
    for name, item in declared(type(model)).items():
        value = getattr(model, name)
        if value == item.default:
            continue
        if isinstance(value, bool):
            words.append(item.flag if value else f"--no-{item.flag.removeprefix('--')}")
            continue
        for each in value if item.is_list else (value,):
            words += [item.flag, str(each.value if isinstance(each, enum.Enum) else each)]
    return words


# -- documents --------------------------------------------------------------------------------


def markdown(*models: type[Any], parameters: bool = False) -> str:
    """The options of models as a table for a document.

    Args:
        models: What is listed, in order.
        parameters: Call them by their names, as a node's parameters are; else by their words of
            the command line.
    """
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for model in models:
        for item in declared(model).values():
            words = item.option.flags or (item.flag,)
            if not words[0].startswith("-"):
                words = (item.option.metavar or words[0],)
            name = item.name if parameters else ", ".join(words)
            shown = item.default
            empty = shown is MISSING or shown is False or shown in (None, "", ())
            default = "" if empty else f"`{plain(shown)}`"
            lines.append(f"| `{name}` | {default} | {_meaning(item)} |")
    return "\n".join(lines) + "\n"


def _meaning(item: Declared) -> str:
    listed = ", ".join(f"`{choice}`" for choice in item.choices if choice != "")
    range_text = item.option.range_text()
    notes = [note for note in (item.option.text, listed, range_text) if note]
    return "; ".join(notes).replace("|", "\\|")
