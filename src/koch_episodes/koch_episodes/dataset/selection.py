# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which episodes `--episodes` means: numbers like ``0,3-5``, or an expression over their fields.

    reader.chosen("outcome == 'success' and task ~ 'red'")

`koch_core.expression` tells the language. This module knows what episodes can be asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koch_core.expression import Expression, Value, ValueKind
from koch_episodes.dataset.layout import DEFAULT_FEATURES
from koch_episodes.errors import DatasetEditError

if TYPE_CHECKING:
    import numpy.typing as npt

    from koch_episodes.dataset.format import DatasetInfo, Episode

#: What the help says of an option that takes one.
NUMBERS_OR_EXPRESSION = (
    "numbers of episodes, like 0,3-5, or an expression, like \"outcome == 'success'\""
)
#: Values of one field for each episode.
Values = Sequence[Sequence[Value]]
#: Values of a frame column over all frames of the episodes.
Column = Callable[[str], "npt.NDArray[Any]"]
#: What the recorded episodes of bags can be asked for.
WINDOW_KINDS = {
    "index": ValueKind.NUMBER,
    "length": ValueKind.NUMBER,
    "duration_s": ValueKind.NUMBER,
    "task": ValueKind.TEXT,
    "outcome": ValueKind.TEXT,
    "source": ValueKind.TEXT,
    "intervention": ValueKind.TRUTH,
}


@dataclass(frozen=True)
class EpisodeField:
    """What can be asked of each episode.

    Attributes:
        kind: Type of its values.
        values: Reads them, in the order of the episodes; only fields that are asked for are read.
    """

    kind: ValueKind
    values: Callable[[], Values]

    @classmethod
    def of(cls, kind: ValueKind, values: Sequence[Value]) -> EpisodeField:
        """A field of one known value for each episode."""
        return cls(kind, lambda: [(value,) for value in values])


class NothingSelectedError(DatasetEditError):
    """An expression is true of no episode."""

    def __init__(self, text: str, whose: str, option: str = "--episodes") -> None:
        super().__init__(
            f"{option} {text!r} selects no episode of {whose}",
            "'koch dataset info DATASET --episodes EXPRESSION' shows what one selects.",
        )


class NoSuchEpisodeError(DatasetEditError):
    """A number that no episode has."""

    def __init__(
        self, text: str, number: int, whose: str, known: Sequence[int], option: str = "--episodes"
    ) -> None:
        listed = ", ".join(map(str, known)) if len(known) < 20 else ""
        usual = f"0 to {max(known, default=0)}"
        super().__init__(
            f"{option} {text}: there is no episode {number}",
            f"There are {listed or usual} in {whose}.",
        )


def is_expression(text: str) -> bool:
    """Whether a text is an expression, and no list of numbers."""
    return re.search(r"[^\w\s,-]", text) is not None or not re.search(r"[\d,-]", text)


def chosen_numbers(
    where: Path,
    known: Sequence[int],
    text: str | None,
    *,
    fields: Callable[[], Mapping[str, EpisodeField]],
    option: str = "--episodes",
) -> list[int]:
    """Return the episodes of a text like ``0,3-5`` or an expression; None stands for all of them.

    Args:
        where: Dataset or bag, for messages.
        known: Numbers of its episodes.
        text: The text.
        fields: What an expression can ask for, in the order of `known`.
        option: What the text was given to, for messages.

    Raises:
        DatasetEditError: It is no such text, names an episode that is not there, or selects none.
        ExpressionError: It is no expression, or asks for what the episodes do not tell.
    """
    if text is None:
        return list(known)
    if is_expression(text):
        places = select(text, option, fields(), str(where))
        if not places:
            raise NothingSelectedError(text, str(where), option)
        return [known[place] for place in places]
    there, wanted = frozenset(known), dict[int, None]()
    for number in numbers_of(text, option):
        if number not in there:
            raise NoSuchEpisodeError(text, number, str(where), known, option)
        wanted[number] = None
    return list(wanted)


def select(text: str, option: str, fields: Mapping[str, EpisodeField], whose: str) -> list[int]:
    """Return the places of the episodes that an expression is true of; perhaps none.

    Args:
        text: The expression.
        option: What it was given to, for messages.
        fields: What the episodes can be asked for.
        whose: Dataset or bag, for messages.

    Raises:
        ExpressionError: It cannot be read, or asks for what is not there.
    """
    expression = Expression(text, option)
    expression.check({name: field.kind for name, field in fields.items()}, whose)
    columns = {name: fields[name].values() for name in sorted(expression.fields)}
    count = len(fields["index"].values())
    return [
        place
        for place in range(count)
        if expression.holds({name: values[place] for name, values in columns.items()})
    ]


def dataset_fields(
    root: Path,
    info: DatasetInfo,
    episodes: Sequence[Episode],
    tasks: Sequence[str],
    column: Column,
) -> dict[str, EpisodeField]:
    """What the episodes of a dataset can be asked for.

    Args:
        root: Dataset folder, whose name is their source.
        info: What it declares.
        episodes: The episodes.
        tasks: Task texts by their numbers; those of the frames count, as they do for LeRobot.
        column: Reads a column over all frames of these episodes.
    """
    source = root.resolve().name
    used = _FrameValues("task_index", episodes, column)
    fields = {
        "index": EpisodeField.of(ValueKind.NUMBER, [float(each.index) for each in episodes]),
        "length": EpisodeField.of(ValueKind.NUMBER, [float(each.length) for each in episodes]),
        "duration_s": EpisodeField.of(
            ValueKind.NUMBER, [each.length / info.fps for each in episodes]
        ),
        "task": EpisodeField(
            ValueKind.TEXT, lambda: [[tasks[number] for number in each] for each in used()]
        ),
        "source": EpisodeField.of(ValueKind.TEXT, [source] * len(episodes)),
    }
    if any(each.outcome for each in episodes):  # LeRobot's own datasets know none
        fields["outcome"] = EpisodeField.of(ValueKind.TEXT, [each.outcome for each in episodes])
    for key, spec in info.features.items():
        is_single = spec.shape in ((), (1,)) and not spec.is_image
        if is_single and key not in DEFAULT_FEATURES and key not in fields:
            kind = {"bool": ValueKind.TRUTH, "string": ValueKind.TEXT}.get(
                spec.dtype, ValueKind.NUMBER
            )
            fields[key] = EpisodeField(kind, _FrameValues(key, episodes, column))
    return fields


@dataclass(frozen=True)
class _FrameValues:
    """The distinct values that a column has in the frames of each episode."""

    key: str
    episodes: Sequence[Episode]
    column: Column

    def __call__(self) -> list[tuple[Any, ...]]:
        import numpy as np  # here, because --help shall not wait for it

        values = self.column(self.key).reshape(-1)
        parts = [values[each.from_index : each.to_index] for each in self.episodes]
        return [tuple(np.unique(part).tolist()) for part in parts]


def numbers_of(text: str, option: str) -> Iterator[int]:
    """Yield the numbers of a text like ``0,3-5``, in its order.

    Raises:
        DatasetEditError: It is no such text.
    """
    for each in _ranges(text, option):
        yield from each


def as_expression(text: str, option: str) -> str:
    """Return the expression that numbers stand for; an expression as it is."""
    if is_expression(text):
        return text
    return " or ".join(f"{r.start} <= index <= {r.stop - 1}" for r in _ranges(text, option))


def _ranges(text: str, option: str) -> Iterator[range]:
    for word in text.replace(" ", "").split(","):
        first, dash, last = word.partition("-")
        try:
            begin = int(first)
            end = int(last) if dash else begin
        except ValueError as exc:
            raise DatasetEditError(
                f"{option} {text}: {word!r} is no episode number",
                "Write it like 0,3-5,9, or an expression like \"outcome == 'success'\".",
            ) from exc
        if end < begin:
            raise DatasetEditError(
                f"{option} {text}: {word!r} ends before it begins", f"Write {end}-{begin}."
            )
        yield range(begin, end + 1)
