# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A small language that selects things by what is known of them, as episodes of a dataset:

    outcome == 'success' and task ~ 'red'
    (duration_s < 5 or length >= 300) and not intervention
    2 <= index < 7 and source in ('monday', 'friday')

It knows fields, texts in quotes, numbers, `true` and `false`, the comparisons `==` `!=` `<` `<=`
`>` `>=` (which can be chained), `~` and `!~` (a regular expression that is found somewhere in a
text), `in` and `not in`, `and`, `or`, `not` and parentheses. Nothing is evaluated as Python.

A field may have several values, as the tasks of an episode. It then fulfils a comparison if one
of its values does; `!=`, `!~` and `not in` are the opposite of `==`, `~` and `in`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from koch_core.errors import KochError
from koch_core.options import did_you_mean

Value = str | float | bool
#: What is known of one thing: each field with its value or values.
Known = Mapping[str, Sequence[Value]]


class ExpressionError(KochError):
    """An expression means nothing, or not for what it is asked of."""

    def __init__(
        self, where: str, text: str, column: int, got: str, expected: str, hint: str = ""
    ) -> None:
        super().__init__(
            f"{where} {text!r}: column {column + 1}: got {got}, expected {expected}."
            f"{hint and ' ' + hint}"
        )
        self.column = column


class ValueKind(enum.Enum):
    """Type of a value, as messages call it."""

    TEXT = "a text"
    NUMBER = "a number"
    TRUTH = "true or false"

    @classmethod
    def of(cls, value: Value) -> ValueKind:
        """The type of a value."""
        if isinstance(value, bool):
            return cls.TRUTH
        return cls.TEXT if isinstance(value, str) else cls.NUMBER


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else self.text


@dataclass(frozen=True)
class _Operand:
    """A field, or the values that are written in its place."""

    column: int
    text: str
    field: str | None
    values: tuple[Value, ...] = ()

    def of(self, known: Known) -> Sequence[Value]:
        return self.values if self.field is None else known[self.field]

    def kind(self, fields: Mapping[str, ValueKind]) -> ValueKind:
        return ValueKind.of(self.values[0]) if self.field is None else fields[self.field]


@dataclass(frozen=True)
class _Comparison:
    left: _Operand
    operator: _Token
    right: _Operand

    def holds(self, known: Known) -> bool:
        compare, opposite = _COMPARISONS[self.operator.text]
        left, right = self.left.of(known), self.right.of(known)
        return any(compare(one, two) for one in left for two in right) is not opposite


_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<word>[^\W\d][\w.]*)
    | (?P<operator>==|!=|<=|>=|!~|[<>~])
    | (?P<mark>[()\[\],])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(r"""\\(['"\\])""")  # others belong to a regular expression
_DEEPEST = 50  # parentheses and negations; Python's own stack must not decide
_ORDERED = ("<", "<=", ">", ">=")
_COMPARISONS: Mapping[str, tuple[Callable[..., bool], bool]] = {
    "==": (lambda one, two: bool(one == two), False),
    "!=": (lambda one, two: bool(one == two), True),
    "<": (lambda one, two: bool(one < two), False),
    "<=": (lambda one, two: bool(one <= two), False),
    ">": (lambda one, two: bool(one > two), False),
    ">=": (lambda one, two: bool(one >= two), False),
    "~": (lambda one, two: re.search(two, one) is not None, False),
    "!~": (lambda one, two: re.search(two, one) is not None, True),
    "in": (lambda one, two: bool(one == two), False),
    "not in": (lambda one, two: bool(one == two), True),
}
_RESERVED = {"and", "or", "not", "in", "true", "false"}


class Expression:
    """What a text says, ready to be asked of things.

    Args:
        text: The expression.
        where: What it was given to, for messages.

    Raises:
        ExpressionError: It cannot be read.
    """

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where = text, where
        self._comparisons: list[_Comparison] = []
        self._alone: list[_Operand] = []
        self._tokens = self._tokens_of(text)
        self._place = 0
        self._depth = 0
        self._holds = self._any()
        if self._next.kind != "end":
            raise self._error(self._next, "'and', 'or' or the end")

    def check(self, fields: Mapping[str, ValueKind], whose: str) -> None:
        """Check names and types.

        Args:
            fields: What is known, by name.
            whose: Owner of the fields, for messages: ``data/blocks``.

        Raises:
            ExpressionError: A field is not known, or its type does not fit what it is compared to.
        """
        compared = [each for one in self._comparisons for each in (one.left, one.right)]
        for operand in sorted([*compared, *self._alone], key=lambda each: each.column):
            if operand.field is not None and operand.field not in fields:
                raise self._unknown(operand, fields, whose)
        for operand in self._alone:
            if operand.kind(fields) is ValueKind.TEXT:
                expected = f"a comparison, like {operand.text} == '...'"
                raise self._wrong(operand, f"{operand.text} alone, which is a text", expected)
        for comparison in self._comparisons:
            self._check_kinds(comparison, fields)

    def holds(self, known: Known) -> bool:
        """Whether it is true of a thing, after `check` of its fields."""
        return self._holds(known)

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields that it asks for."""
        compared = [each for one in self._comparisons for each in (one.left, one.right)]
        return frozenset(
            each.field for each in [*compared, *self._alone] if each.field is not None
        )

    # -- reading ------------------------------------------------------------------------------

    def _tokens_of(self, text: str) -> list[_Token]:
        found, place = [], 0
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise self._cannot_begin(text, place)
            kind = str(match.lastgroup)
            if kind != "space":
                found.append(_Token(kind, match.group(), place))
            place = match.end()
        return [*found, _Token("end", "", len(text))]

    def _cannot_begin(self, text: str, place: int) -> ExpressionError:
        char = text[place]
        if char in "'\"":
            got, expected = f"a text without end ({char})", f"a closing {char} behind it"
            return ExpressionError(self.where, text, place, got, expected)
        hints = {"=": "Compare with '=='.", "&": "Write 'and'.", "|": "Write 'or'."}
        hint = hints.get(char, "Write 'not'." if char == "!" else "")
        return ExpressionError(
            self.where, text, place, repr(char), "a field, a text in quotes or an operator", hint
        )

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self, *texts: str) -> _Token | None:
        """The next token, if it is one of some words or marks."""
        token = self._next
        if token.kind not in ("word", "mark", "operator") or token.text not in texts:
            return None
        self._place += 1
        return token

    def _any(self) -> Callable[[Known], bool]:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda known: any(part(known) for part in parts)

    def _all(self) -> Callable[[Known], bool]:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda known: all(part(known) for part in parts)

    def _one(self) -> Callable[[Known], bool]:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error(self._next, f"at most {_DEEPEST} of them inside one another")
        try:
            if self._take("not"):
                inner = self._one()
                return lambda known: not inner(known)
            if self._take("("):
                inside = self._any()
                if not self._take(")"):
                    raise self._error(self._next, "')', 'and' or 'or'")
                return inside
            return self._compared()
        finally:
            self._depth -= 1

    def _compared(self) -> Callable[[Known], bool]:
        left = self._operand()
        found: list[_Comparison] = []
        while (operator := self._operator()) is not None:
            right = self._list() if operator.text.endswith("in") else self._operand()
            found.append(_Comparison(left, operator, right))
            left = right
        if found:
            self._comparisons += found
            return lambda known: all(each.holds(known) for each in found)
        if left.field is None and not isinstance(left.values[0], bool):
            raise self._error(self._next, f"a comparison of {left.text}")
        self._alone.append(left)
        return lambda known: any(bool(value) for value in left.of(known))

    def _operator(self) -> _Token | None:
        column = self._next.column
        if self._next.kind == "operator":
            self._place += 1
            return self._tokens[self._place - 1]
        if self._take("in"):
            return _Token("operator", "in", column)
        if self._take("not"):
            if not self._take("in"):
                raise self._error(self._next, "'in' behind 'not'")
            return _Token("operator", "not in", column)
        return None

    def _operand(self) -> _Operand:
        token = self._next
        self._place += 1
        if token.kind == "number":
            return _Operand(token.column, token.text, None, (float(token.text),))
        if token.kind == "text":
            plain = _ESCAPED.sub(r"\1", token.text[1:-1])
            return _Operand(token.column, token.text, None, (plain,))
        if token.kind == "word" and token.text.lower() in ("true", "false"):
            return _Operand(token.column, token.text, None, (token.text.lower() == "true",))
        if token.kind != "word" or token.text in _RESERVED:
            raise self._error(token, "a field, a text in quotes or a number")
        return _Operand(token.column, token.text, token.text)

    def _list(self) -> _Operand:
        begin = self._next
        closing = {"(": ")", "[": "]"}.get(begin.text)
        if begin.kind != "mark" or closing is None:
            raise self._error(begin, "a list, like ('red', 'blue') or (0, 3)")
        self._place += 1
        values: list[Value] = []
        while True:
            place = self._next
            item = self._operand()
            if item.field is not None:
                raise self._error(place, "a text in quotes or a number", f"Write '{place.text}'.")
            if values and ValueKind.of(values[0]) is not ValueKind.of(item.values[0]):
                raise self._error(place, ValueKind.of(values[0]).value)
            values += item.values
            if self._take(closing):
                return _Operand(begin.column, "the list", None, tuple(values))
            if not self._take(","):
                raise self._error(self._next, f"',' or '{closing}'")

    # -- checks -------------------------------------------------------------------------------

    def _check_kinds(self, comparison: _Comparison, fields: Mapping[str, ValueKind]) -> None:
        left, right = comparison.left.kind(fields), comparison.right.kind(fields)
        operator = comparison.operator.text
        if operator in ("~", "!~"):
            for operand, kind in ((comparison.left, left), (comparison.right, right)):
                if kind is not ValueKind.TEXT:
                    got = f"{operand.text} ({kind.value})"
                    raise self._wrong(operand, got, f"a text beside '{operator}'")
            self._check_pattern(comparison.right)
        elif left is not right and not self._is_bit(comparison, left, right):
            got = f"{comparison.right.text} ({right.value})"
            expected = f"{left.value}, as {comparison.left.text} is"
            raise self._wrong(comparison.right, got, expected)
        elif operator in _ORDERED and left is ValueKind.TEXT:
            got = f"'{operator}' between texts"
            raise self._wrong(comparison.operator, got, "==, !=, ~, !~, in or not in")

    def _is_bit(self, comparison: _Comparison, left: ValueKind, right: ValueKind) -> bool:
        """Whether true and false are compared to numbers, as 1 and 0: datasets store them so."""
        return {left, right} == {ValueKind.NUMBER, ValueKind.TRUTH}

    def _check_pattern(self, operand: _Operand) -> None:
        if operand.field is not None:
            got = f"{operand.text}, a field"
            raise self._wrong(operand, got, "a text in quotes behind '~'")
        try:
            re.compile(str(operand.values[0]))
        except re.error as exc:
            got = f"{operand.text} ({exc})"
            raise self._wrong(operand, got, "a regular expression") from exc

    # -- messages -----------------------------------------------------------------------------

    def _error(self, token: _Token, expected: str, hint: str = "") -> ExpressionError:
        got = str(token) if token.kind == "end" else repr(token.text)
        if token.text == "=":
            hint = "Compare with '=='."
        elif not hint and token.kind == "word":
            hint = did_you_mean(token.text, ("and", "or", "not", "in"))
        return ExpressionError(self.where, self.text, token.column, got, expected, hint)

    def _wrong(self, at: _Operand | _Token, got: str, expected: str) -> ExpressionError:
        return ExpressionError(self.where, self.text, at.column, got, expected)

    def _unknown(
        self, operand: _Operand, fields: Mapping[str, ValueKind], whose: str
    ) -> ExpressionError:
        hint = did_you_mean(operand.text, fields)
        if not hint and any(each.right == operand for each in self._comparisons):
            hint = f"Texts are in quotes: '{operand.text}'."
        got = f"the field {operand.text!r}, which {whose} does not hold"
        return ExpressionError(
            self.where, self.text, operand.column, got, f"one of {', '.join(fields)}", hint
        )
