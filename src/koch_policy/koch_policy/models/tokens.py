# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Chunks of actions as tokens, and back: uniform bins, and FAST. No policy uses them yet.

`koch train` cannot train on tokens: this module is for a policy of your own. Its FAST was
compared with no published tokenizer; the tests hold that decoding inverts encoding.

References:
    Kim et al. 2024, "OpenVLA" (arXiv 2406.09246), section 3.2: 256 bins per action element.
    Pertsch et al. 2025, "FAST: Efficient Action Tokenization for Vision-Language-Action Models"
    (arXiv 2501.09747), section V: DCT-II per element over the chunk, scaled and rounded; the
    integers, lowest frequencies of all elements first, are compressed by byte-pair encoding.

Chunks are normalised, float (T, A), mostly in [-1, 1]. FAST's integers reach its BPE as the
characters chr(q - min_token), as in the published tokenizers, whose files are read and written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from koch_policy.errors import CheckpointError, PolicyError

Chunk = NDArray[np.float32]

_CONFIG, _BPE = "processor_config.json", "tokenizer.json"


class TokenError(PolicyError):
    """Actions cannot be written as tokens, or tokens are no actions."""

    def __init__(self, what: str, got: object, expected: str) -> None:
        super().__init__(f"{what}: got {got}; expected {expected}.")


class ActionTokenizer(Protocol):
    """Turns chunks into tokens 0..vocabulary-1 and back."""

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        ...

    def encode(self, chunk: Chunk) -> list[int]:
        """Return the tokens of a normalised chunk (T, A)."""
        ...

    def decode(self, tokens: Sequence[int], steps: int, width: int) -> Chunk:
        """Return the chunk (steps, width) of tokens.

        Raises:
            TokenError: They are no chunk of this size.
        """
        ...


@dataclass(frozen=True)
class UniformBins:
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

    def encode(self, chunk: Chunk) -> list[int]:
        """Return T * A tokens, step by step."""
        _require_finite(chunk)
        place = (np.asarray(chunk, np.float64) - self.low) / (self.high - self.low) * self.bins
        numbers: list[int] = np.floor(place).clip(0, self.bins - 1).astype(int).ravel().tolist()
        return numbers

    def decode(self, tokens: Sequence[int], steps: int, width: int) -> Chunk:
        """Return the middles of the bins."""
        numbers = np.asarray(tokens, np.float64)
        if len(numbers) != steps * width or (numbers < 0).any() or (numbers >= self.bins).any():
            raise TokenError(
                "tokens", _shown(tokens), f"{steps * width} numbers of 0 to {self.bins - 1}"
            )
        middles = self.low + (numbers + 0.5) / self.bins * (self.high - self.low)
        return middles.reshape(steps, width).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Fast:
    """FAST. Wants the package `tokenizers`.

    Attributes:
        bpe: Byte-pair encoding of the integers, a `tokenizers.Tokenizer`.
        scale: Coefficients are multiplied by this before they are rounded: larger is finer.
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
        numbers = quantised(chunk, self.scale) - self.min_token
        tokens: list[int] = self.bpe.encode(_written(numbers)).ids
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
            raise TokenError("tokens", f"{len(text)} coefficients", f"{steps * width}")
        numbers = np.array([ord(letter) for letter in text], np.float64) + self.min_token
        coefficients = numbers.reshape(steps, width) / self.scale
        chunk: Chunk = (dct_matrix(steps).T @ coefficients).astype(np.float32)
        return chunk

    def save(self, folder: Path) -> None:
        """Write the files of a published FAST tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "processor_class": "UniversalActionProcessor",
            "scale": self.scale,
            "vocab_size": self.vocabulary,
            "min_token": self.min_token,
            "time_horizon": None,
            "action_dim": None,
        }
        (folder / _CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        self.bpe.save(str(folder / _BPE))


def load_fast(folder: Path) -> Fast:
    """Read a FAST tokenizer, ours or a published one; no code of its folder is run.

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
    return Fast(bpe, scale, min_token)


def fit_fast(chunks: Iterable[Chunk], *, scale: float = 10.0, vocabulary: int = 1024) -> Fast:
    """Learn a FAST tokenizer from normalised chunks.

    Raises:
        TokenError: The integers alone are more than the vocabulary.
    """
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.trainers import BpeTrainer

    numbers = [quantised(chunk, scale) for chunk in chunks]
    if not numbers:
        raise TokenError("chunks", "none", "some to learn from")
    low = int(min(each.min() for each in numbers))
    high = int(max(each.max() for each in numbers))
    if high - low >= vocabulary:
        raise TokenError(
            "vocabulary", vocabulary, f"more than the {high - low + 1} integers at scale {scale:g}"
        )

    def texts() -> Iterator[str]:
        for each in numbers:
            yield _written(each - low)

    made = ByteLevelBPETokenizer()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=[chr(number) for number in range(high - low + 1)],
        max_token_length=10_000,
    )
    made._tokenizer.train_from_iterator(texts(), trainer=trainer)
    return Fast(made._tokenizer, scale, low)


def quantised(chunk: Chunk, scale: float) -> NDArray[np.int64]:
    """Return the rounded, scaled DCT coefficients (T * A,), lowest frequencies first."""
    _require_finite(chunk)
    coefficients = dct_matrix(len(chunk)) @ np.asarray(chunk, np.float64)
    return np.around(coefficients * scale).astype(np.int64).ravel()


def dct_matrix(count: int) -> NDArray[np.float64]:
    """Return the orthonormal DCT-II (count, count); its transpose is its inverse."""
    frequency, step = np.arange(count)[:, None], np.arange(count)[None, :]
    matrix = math.sqrt(2.0 / count) * np.cos(math.pi * (step + 0.5) * frequency / count)
    matrix[0] /= math.sqrt(2.0)
    result: NDArray[np.float64] = matrix
    return result


def _written(numbers: NDArray[np.int64]) -> str:
    return "".join(map(chr, numbers.clip(min=0)))


def _require_finite(chunk: Chunk) -> None:
    if chunk.ndim != 2 or not np.isfinite(chunk).all():
        raise TokenError("a chunk", f"shape {chunk.shape}", "finite values (T, A)")


def _shown(tokens: Sequence[int]) -> str:
    return f"{len(tokens)} tokens {list(tokens[:6])}..."
