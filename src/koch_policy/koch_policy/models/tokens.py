# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Chunks of actions as tokens, and back: uniform bins, and FAST.

References:
    Kim et al. 2024, "OpenVLA" (arXiv 2406.09246), section 3.2: 256 bins per action element.
    Pertsch et al. 2025, "FAST: Efficient Action Tokenization for Vision-Language-Action Models"
    (arXiv 2501.09747), section V: DCT-II per element over the chunk, scaled and rounded; the
    integers, lowest frequencies of all elements first, are compressed by byte-pair encoding.
    Sennrich et al. 2016, arXiv 1508.07909, algorithm 1: the byte-pair encoding.

Chunks are normalised, float (T, A), mostly in [-1, 1]. Both tokenizers first turn a chunk into
T * A integers, and every token stands for one or more of them: that is all a network needs to
know in order to predict tokens of which a chunk can be made.

The byte-pair encoding is ours, over integers: forty lines, so that neither training nor running
wants the package `tokenizers`, which brings the Hub's client and fifteen more. That package is
wanted by `PublishedFast` alone, for the files of published tokenizers. Those write an integer as
the character chr(q - min_token), in UTF-8: from 128 on a character is two tokens or more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from koch_policy.errors import CheckpointError, PolicyError

Chunk = NDArray[np.float32]
Integers = NDArray[np.int64]

_BETWEEN = -1  # stands between sequences, in no pair
_CONFIG, _BPE = "processor_config.json", "tokenizer.json"


class TokenError(PolicyError):
    """Actions cannot be written as tokens, or tokens are no actions."""

    def __init__(self, what: str, got: object, expected: str) -> None:
        super().__init__(f"{what}: got {got}; expected {expected}.")


class ActionTokenizer(Protocol):
    """Turns chunks into tokens 0..vocabulary-1 and back, by way of integers.

    A tokenizer inherits from it, and has `encode` and `decode` then.
    """

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        ...

    def numbers(self, chunk: Chunk) -> Integers:
        """Return the integers (T * A,) of a normalised chunk (T, A)."""
        ...

    def values(self, numbers: Integers, steps: int, width: int) -> Chunk:
        """Return the chunk (steps, width) of integers."""
        ...

    def tokens(self, numbers: Sequence[Integers]) -> list[Integers]:
        """Return the tokens of each chunk's integers."""
        ...

    def pieces(self) -> list[list[int]]:
        """Return the integers that each token stands for."""
        ...

    def encode(self, chunk: Chunk) -> list[int]:
        """Return the tokens of a normalised chunk (T, A)."""
        found: list[int] = self.tokens([self.numbers(chunk)])[0].tolist()
        return found

    def decode(self, tokens: Sequence[int], steps: int, width: int) -> Chunk:
        """Return the chunk (steps, width) of tokens.

        Raises:
            TokenError: They are no chunk of this size.
        """
        known = self.vocabulary
        if any(not 0 <= token < known for token in tokens):
            raise TokenError("tokens", _shown(tokens), f"numbers of 0 to {known - 1}")
        pieces = self.pieces()
        numbers = [number for token in tokens for number in pieces[token]]
        if len(numbers) != steps * width:
            raise TokenError("tokens", f"{len(numbers)} elements", f"{steps * width}")
        return self.values(np.array(numbers), steps, width)


@dataclass(frozen=True)
class UniformBins(ActionTokenizer):
    """One token per element: the number of its bin; what is outside goes to the outermost bin.

    Attributes:
        bins: Number of bins.
        low, high: Range of the values.
    """

    bins: int = 256
    low: float = -1.0
    high: float = 1.0

    @property
    def vocabulary(self) -> int:
        """As many tokens as bins."""
        return self.bins

    def numbers(self, chunk: Chunk) -> Integers:
        """Return the bins, step by step."""
        _require_finite(chunk)
        place = (np.asarray(chunk, np.float64) - self.low) / (self.high - self.low) * self.bins
        return np.floor(place).clip(0, self.bins - 1).astype(np.int64).ravel()

    def values(self, numbers: Integers, steps: int, width: int) -> Chunk:
        """Return the middles of the bins."""
        middles = self.low + (numbers + 0.5) / self.bins * (self.high - self.low)
        return middles.reshape(steps, width).astype(np.float32)

    def tokens(self, numbers: Sequence[Integers]) -> list[Integers]:
        """Return the integers: they are the tokens."""
        return list(numbers)

    def pieces(self) -> list[list[int]]:
        """Return one integer per token."""
        return [[number] for number in range(self.bins)]


@dataclass(frozen=True, eq=False)
class FastTokens(ActionTokenizer):
    """FAST.

    The first tokens are the integers low to high, each of the others is a pair of earlier ones.

    Attributes:
        scale: Coefficients are multiplied by this before they are rounded: larger is finer.
        low, high: Range of the integers; those beyond are written as the nearest.
        merges: The pairs, in the order in which they were learned.
    """

    scale: float
    low: int
    high: int
    merges: tuple[tuple[int, int], ...] = ()

    @property
    def _alphabet(self) -> int:
        return self.high - self.low + 1

    @property
    def vocabulary(self) -> int:
        """Integers and pairs."""
        return self._alphabet + len(self.merges)

    def numbers(self, chunk: Chunk) -> Integers:
        """Return the rounded coefficients, lowest frequencies first."""
        return quantised(chunk, self.scale).clip(self.low, self.high)

    def values(self, numbers: Integers, steps: int, width: int) -> Chunk:
        """Return the chunk of coefficients."""
        return restored(numbers.reshape(steps, width), self.scale)

    def tokens(self, numbers: Sequence[Integers]) -> list[Integers]:
        """Return the tokens of each chunk: all pairs are put together in their order."""
        line = _in_line([each - self.low for each in numbers])
        for token, pair in enumerate(self.merges, self._alphabet):
            line = _merged(line, pair, token)
        return _apart(line)

    def pieces(self) -> list[list[int]]:
        """Return the integers of each token."""
        found = [[number] for number in range(self.low, self.high + 1)]
        for first, second in self.merges:
            found.append(found[first] + found[second])
        return found

    def save(self, folder: Path) -> None:
        """Write the files of a published FAST tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "processor_class": "UniversalActionProcessor",
            "scale": self.scale,
            "vocab_size": self.vocabulary,
            "min_token": self.low,
            "time_horizon": None,
            "action_dim": None,
        }
        texts = ["".join(chr(n - self.low) for n in piece) for piece in self.pieces()]
        model = {
            "type": "BPE",
            "vocab": {text: token for token, text in enumerate(texts)},
            "merges": [[texts[first], texts[second]] for first, second in self.merges],
        }
        decoder = {"type": "Fuse"}  # characters as they are, where published files have bytes
        tokenizer = {"version": "1.0", "added_tokens": [], "model": model, "decoder": decoder}
        (folder / _CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (folder / _BPE).write_text(json.dumps(tokenizer) + "\n", encoding="utf-8")


@dataclass(frozen=True, eq=False)
class PublishedFast:
    """A FAST tokenizer from the files of a published one. Wants the package `tokenizers`.

    Attributes:
        bpe: Byte-pair encoding of the integers, a `tokenizers.Tokenizer`.
        scale: Coefficients are multiplied by this before they are rounded.
        min_token: The integer that is written as chr(0).
    """

    bpe: Any
    scale: float
    min_token: int

    @property
    def vocabulary(self) -> int:
        """Tokens of the byte-pair encoding."""
        return int(self.bpe.get_vocab_size())

    def encode(self, chunk: Chunk) -> list[int]:
        """Return the tokens; integers below min_token are written as it."""
        numbers = (quantised(chunk, self.scale) - self.min_token).clip(min=0)
        tokens: list[int] = self.bpe.encode("".join(map(chr, numbers))).ids
        return tokens

    def decode(self, tokens: Sequence[int], steps: int, width: int) -> Chunk:
        """Return the chunk of tokens.

        Raises:
            TokenError: They hold another number of coefficients, or are unknown.
        """
        known = self.vocabulary
        if any(not 0 <= token < known for token in tokens):
            raise TokenError("tokens", _shown(tokens), f"numbers of 0 to {known - 1}")
        text = self.bpe.decode(list(tokens), skip_special_tokens=False)
        if len(text) != steps * width:
            raise TokenError("tokens", f"{len(text)} elements", f"{steps * width}")
        numbers = np.array([ord(letter) for letter in text]) + self.min_token
        return restored(numbers.reshape(steps, width), self.scale)


def load_published(folder: Path) -> PublishedFast:
    """Read the files of a FAST tokenizer, published or ours; no code of its folder is run.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    from tokenizers import Tokenizer

    try:
        content = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        scale, min_token = float(content["scale"]), int(content["min_token"])
        bpe = Tokenizer.from_file(str(folder / _BPE))
    except Exception as exc:  # `tokenizers` raises bare Exceptions
        raise CheckpointError(
            folder, f"no FAST tokenizer ({exc})", f"It holds {_CONFIG} and {_BPE}."
        ) from exc
    return PublishedFast(bpe, scale, min_token)


def fit_fast(
    chunks: Iterable[Chunk], *, scale: float = 10.0, vocabulary: int = 1024
) -> FastTokens:
    """Learn a FAST tokenizer from normalised chunks.

    Pairs are learned until the vocabulary is full or no pair comes twice.

    Raises:
        TokenError: The integers alone are more than the vocabulary.
    """
    numbers = [quantised(chunk, scale) for chunk in chunks]
    if not numbers:
        raise TokenError("chunks", "none", "some to learn from")
    low = int(min(each.min() for each in numbers))
    high = int(max(each.max() for each in numbers))
    alphabet = high - low + 1
    if alphabet > vocabulary:
        raise TokenError(
            "vocabulary", vocabulary, f"the {alphabet} integers at scale {scale:g}, or more"
        )
    line = _in_line([each - low for each in numbers])
    merges: list[tuple[int, int]] = []
    pieces: list[tuple[int, ...]] = [(number,) for number in range(alphabet)]
    known, twice = set(pieces), list[int]()  # `twice`: pairs whose piece there is already
    while len(pieces) < vocabulary:
        inside = (line[:-1] != _BETWEEN) & (line[1:] != _BETWEEN)
        counts = np.bincount((line[:-1] * vocabulary + line[1:])[inside], minlength=vocabulary**2)
        counts[twice] = 0
        pair = int(counts.argmax())
        if counts[pair] < 2:
            break
        first, second = divmod(pair, vocabulary)
        piece = pieces[first] + pieces[second]
        if piece in known:  # (a, bc) after (ab, c): one token for one piece
            twice.append(pair)
            continue
        line = _merged(line, (first, second), len(pieces))
        known.add(piece)
        pieces.append(piece)
        merges.append((first, second))
    return FastTokens(scale, low, high, tuple(merges))


def _in_line(sequences: Sequence[Integers]) -> Integers:
    """Return sequences one after the other, with a mark behind each."""
    return np.concatenate([np.append(each, _BETWEEN) for each in sequences])


def _apart(line: Integers) -> list[Integers]:
    """Undo `_in_line`."""
    ends = np.flatnonzero(line == _BETWEEN)
    return [line[first:end] for first, end in zip([0, *(ends[:-1] + 1)], ends, strict=True)]


def _merged(line: Integers, pair: tuple[int, int], token: int) -> Integers:
    """Put a token in place of each pair, from the left."""
    found = np.flatnonzero((line[:-1] == pair[0]) & (line[1:] == pair[1]))
    if not len(found):
        return line
    if pair[0] == pair[1]:  # of a, a, a only the first two are a pair
        run = np.flatnonzero(np.diff(found, prepend=-2) != 1)  # where in `found` runs begin
        within = np.arange(len(found)) - np.repeat(run, np.diff(np.append(run, len(found))))
        found = found[within % 2 == 0]
    line = line.copy()
    line[found] = token
    return np.delete(line, found + 1)


def quantised(chunk: Chunk, scale: float) -> Integers:
    """Return the rounded, scaled DCT coefficients (T * A,), lowest frequencies first."""
    _require_finite(chunk)
    coefficients = dct_matrix(len(chunk)) @ np.asarray(chunk, np.float64)
    return np.around(coefficients * scale).astype(np.int64).ravel()


def restored(numbers: Integers, scale: float) -> Chunk:
    """Return the chunk (T, A) of rounded, scaled coefficients (T, A)."""
    chunk: Chunk = (dct_matrix(len(numbers)).T @ (numbers / scale)).astype(np.float32)
    return chunk


def dct_matrix(count: int) -> NDArray[np.float64]:
    """Return the orthonormal DCT-II (count, count); its transpose is its inverse."""
    frequency, step = np.arange(count)[:, None], np.arange(count)[None, :]
    matrix = math.sqrt(2.0 / count) * np.cos(math.pi * (step + 0.5) * frequency / count)
    matrix[0] /= math.sqrt(2.0)
    result: NDArray[np.float64] = matrix
    return result


def _require_finite(chunk: Chunk) -> None:
    if chunk.ndim != 2 or not np.isfinite(chunk).all():
        raise TokenError("a chunk", f"shape {chunk.shape}", "finite values (T, A)")


def _shown(tokens: Sequence[int]) -> str:
    return f"{len(tokens)} tokens {list(tokens[:6])}..."
