# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Expressions select what they say, and tell where and why they mean nothing."""

from __future__ import annotations

import pytest

from koch_core.expression import Expression, ExpressionError, Known, ValueKind

FIELDS = {
    "index": ValueKind.NUMBER,
    "duration_s": ValueKind.NUMBER,
    "task": ValueKind.TEXT,
    "outcome": ValueKind.TEXT,
    "intervention": ValueKind.TRUTH,
    "next.reward": ValueKind.NUMBER,
}
KNOWN: Known = {
    "index": [3.0],
    "duration_s": [7.5],
    "task": ["Pick up the red block.", "Nimm den Würfel 'A'"],
    "outcome": ["success"],
    "intervention": [False, True],
    "next.reward": [0.0, 0.5],
}


def asked(text: str) -> bool:
    expression = Expression(text, "--episodes")
    expression.check(FIELDS, "data/blocks")
    return expression.holds(KNOWN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("outcome == 'success'", True),
        ('outcome == "failure"', False),
        ("'success' == outcome", True),
        ("outcome != 'failure'", True),
        ("outcome == 'success' and task ~ 'red'", True),
        ("outcome == 'success' and task ~ '^red'", False),
        ("task ~ 'RED'", False),
        ("task ~ '(?i)RED'", True),
        ("task !~ 'red'", False),
        ("task !~ 'blue'", True),
        ("task ~ 'Würfel \\'A\\''", True),
        ("task ~ \"'A'\"", True),
        ("task ~ '\\bred\\b'", True),
        ("task == 'Pick up the red block.'", True),
        ("task != 'Pick up the red block.'", False),
        ("index == 3", True),
        ("2 <= index < 3", False),
        ("2 <= index <= 3", True),
        ("index in (1, 3)", True),
        ("index in [1, 2]", False),
        ("index not in (1, 3)", False),
        ("outcome in ('success', 'failure')", True),
        ("duration_s > 7.4 and duration_s < 7.6e0", True),
        ("index > -1", True),
        ("intervention", True),
        ("not intervention", False),
        ("intervention == true", True),
        ("intervention != true", False),
        ("intervention == 1", True),
        ("next.reward > 0.4", True),
        ("next.reward", True),
        ("not (outcome == 'failure' or index > 5)", True),
        ("outcome == 'failure' or index == 3 and task ~ 'red'", True),
        ("(outcome == 'failure' or index == 3) and task ~ 'blue'", False),
        ("not outcome == 'failure' and index == 3", True),
        ("index < duration_s", True),
        ("true", True),
        ("not false and true", True),
    ],
)
def test_it_selects_what_it_says(text: str, expected: bool) -> None:
    assert asked(text) is expected


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "got the end, expected a field, a text in quotes or a number"),
        ("outcome = 'success'", 9, "Compare with '=='"),
        ("outcme == 'success'", 1, "'outcme', which data/blocks does not hold, expected one of "
         "index, duration_s, task, outcome, intervention, next.reward. Did you mean 'outcome'?"),
        ("outcome == success", 12, "Texts are in quotes: 'success'"),
        ("outcome == 'success", 12, "a text without end"),
        ("outcome == 'success' an task ~ 'x'", 22, "Did you mean 'and'?"),
        ("outcome == 'success' && index == 3", 22, "Write 'and'."),
        ("index == 'three'", 10, "'three' (a text), expected a number, as index is"),
        ("outcome > 3", 11, "3 (a number), expected a text"),
        ("outcome > 'a'", 9, "'>' between texts, expected =="),
        ("index ~ 'x'", 1, "index (a number), expected a text beside '~'"),
        ("task ~ '('", 8, "expected a regular expression"),
        ("task ~ outcome", 8, "expected a text in quotes behind '~'"),
        ("(index == 3", 12, "got the end, expected ')'"),
        ("index == 3)", 11, "got ')', expected 'and', 'or' or the end"),
        ("index in 3", 10, "expected a list"),
        ("index in (1, 'a')", 14, "expected a number"),
        ("index in (1, outcome)", 14, "Write 'outcome'."),
        ("index not 3", 11, "expected 'in' behind 'not'"),
        ("outcome", 1, "outcome alone, which is a text, expected a comparison"),
        ("3", 2, "expected a comparison of 3"),
        ("__import__('os')", 11, "expected 'and', 'or' or the end"),
        ("task.upper() == 'X'", 11, "expected 'and', 'or' or the end"),
        ("index == 1; index == 2", 11, "';'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(text: str, column: int, message: str) -> None:
    with pytest.raises(ExpressionError) as told:
        asked(text)
    assert str(told.value).startswith(f"--episodes {text!r}: column {column}: got ")
    assert message in str(told.value)


def test_depth_is_bounded() -> None:
    for text in ("(" * 5000 + "true", "not " * 5000 + "true"):
        with pytest.raises(ExpressionError, match="at most 50"):
            asked(text)


def test_types_are_checked_where_the_answer_does_not_depend_on_them() -> None:
    with pytest.raises(ExpressionError, match="column 20"):
        asked("outcome == 'x' and nothing")
