# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch completion SHELL`: what bash, zsh or fish need to complete subcommands and options.

The script is written once and knows every word: a shell that asked Python at each TAB would wait
a second for its imports. The words come from the parsers themselves, so none is declared here.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from koch_core.command_line import from_command_line
from koch_core.options import OptionModel, option
from koch_core.terminal import say

SHELLS = ("bash", "zsh", "fish")
OF_THE_SCRIPT = {"setup": "build everything", "test": "run all tests", "env": "print environment"}


class _ParserMet(Exception):  # not an error: it brings the parser
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


@contextmanager
def _parsers_show_themselves() -> Iterator[None]:
    """Let each parser hand itself over instead of parsing."""

    def hand_over(self: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        raise _ParserMet(self)

    before = argparse.ArgumentParser.parse_args
    argparse.ArgumentParser.parse_args = hand_over  # type: ignore[method-assign]
    try:
        yield
    finally:
        argparse.ArgumentParser.parse_args = before  # type: ignore[method-assign]


@dataclass(frozen=True)
class Words:
    """What may follow a subcommand.

    Attributes:
        summary: One line on it.
        options: Option strings and their help.
        choices: Values of options that have a fixed set.
        kinds: Subcommands of its own, and fixed values of its first argument.
    """

    summary: str
    options: dict[str, str]
    choices: dict[str, tuple[str, ...]]
    kinds: tuple[str, ...]


def words_of(parser: argparse.ArgumentParser, summary: str) -> Words:
    """Read a parser; options of its own subcommands count as its."""
    options: dict[str, str] = {}
    choices: dict[str, tuple[str, ...]] = {}
    kinds: list[str] = []
    for action in parser._actions:
        for flag in action.option_strings:
            options[flag] = action.help or ""
            if action.choices:
                choices[flag] = tuple(map(str, action.choices))
        if isinstance(action, argparse._SubParsersAction):
            kinds += list(action.choices)
            for inner in action.choices.values():
                found = words_of(inner, "")
                options, choices = {**found.options, **options}, {**found.choices, **choices}
        elif not action.option_strings and action.choices:
            kinds += map(str, action.choices)
    return Words(summary, options, choices, tuple(kinds))


def all_words() -> dict[str, Words]:
    """Every subcommand that is installed here, with its words."""
    from koch_vla.cli import VERBS, load

    found = {}
    with _parsers_show_themselves():
        for each in VERBS:
            try:
                load(each)([])
            except _ParserMet as met:
                found[each.name] = words_of(met.parser, each.summary)
            except Exception:  # a part that was left out, or no parser: its name is enough
                found[each.name] = Words(each.summary, {}, {}, ())
    found |= {name: Words(text, {}, {}, ()) for name, text in OF_THE_SCRIPT.items()}
    return found


def bash(words: dict[str, Words]) -> str:
    """A completion function for bash; zsh takes it as well."""
    cases = []
    for name, of in words.items():
        values = "".join(
            f"            {option}) words={shlex.quote(' '.join(chosen))} ;;\n"
            for option, chosen in of.choices.items()
        )
        plain = shlex.quote(" ".join((*of.kinds, *of.options)))
        cases.append(
            f"        {name}) case $prev in\n{values}            *) words={plain} ;;\n"
            "        esac ;;\n"
        )
    return (
        "_koch() {\n"
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=''\n"
        f"    if [ $COMP_CWORD -eq 1 ]; then words={shlex.quote(' '.join(words))}; else\n"
        "    case ${COMP_WORDS[1]} in\n" + "".join(cases) + "    esac; fi\n"
        '    COMPREPLY=($(compgen -W "$words" -- "$cur"))\n'
        '    [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "$cur"))\n'
        "}\n"
        "complete -o filenames -F _koch koch ./koch\n"
    )


def zsh(words: dict[str, Words]) -> str:
    """The same function, which zsh runs through its emulation of bash's completion."""
    load = "".join(f"autoload -U +X {name} && {name}\n" for name in ("compinit", "bashcompinit"))
    return load + bash(words)


def fish(words: dict[str, Words]) -> str:
    """One line for each word."""
    lines = ["complete -c koch -e"]
    for name, of in words.items():
        lines.append(
            f"complete -c koch -n __fish_use_subcommand -a {name} -d {shlex.quote(of.summary)}"
        )
        seen = f"complete -c koch -n '__fish_seen_subcommand_from {name}'"
        if of.kinds:
            lines.append(f"{seen} -a {shlex.quote(' '.join(of.kinds))}")
        for flag, text in of.options.items():
            kind = "-l" if flag.startswith("--") else "-s"
            values = of.choices.get(flag)
            chosen = f" -x -a {shlex.quote(' '.join(values))}" if values else ""
            told = f" -d {shlex.quote(text)}" if text else ""
            lines.append(f"{seen} {kind} {flag.lstrip('-')}{chosen}{told}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, kw_only=True)
class CompletionOptions(OptionModel):
    """What `koch completion` is asked for."""

    shell: str = option(..., "whose script", flags=("shell",), choices=SHELLS)


def main(argv: list[str]) -> int:
    """Run the subcommand."""
    options = from_command_line(
        CompletionOptions,
        "koch completion",
        "Print what a shell needs to complete koch: "
        'eval "$(koch completion bash)" in ~/.bashrc, the same with zsh in ~/.zshrc, '
        "koch completion fish | source in config.fish.",
        argv,
    )
    shell = options.shell
    say({"bash": bash, "zsh": zsh, "fish": fish}[shell](all_words()).rstrip("\n"))
    return 0
