# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Actions as words: a decoder writes a chunk's tokens one after the other.

References:
    Pertsch et al. 2025, "FAST" (arXiv 2501.09747): the tokens, and pi0-FAST, which predicts them.
    Kim et al. 2024, "OpenVLA" (arXiv 2406.09246), section 3.2: bins as tokens.

The observation is a prefix (`models/prefix.py`). A token sees the prefix and the tokens before
it; training minimises the cross entropy of the next one, and running takes the likeliest:

    L = - mean_i log p(token_i | token_<i, observation)

A chunk is T * A integers, and a token stands for one or more of them (`models/tokens.py`). Only
tokens that fit into what is left of the chunk can be chosen, in training as well, and the
integers are tokens themselves: so every sequence ends, and every one is a chunk.

The tokenizer is part of the weights (`merges`, `low`), so a checkpoint needs no file beside it.

Shapes: B batch, T chunk, A action, N = T * A integers, S tokens, V vocabulary, L layers, H heads,
P prefix tokens, W head width, D width.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from koch_policy.configs import ACTION, ACTION_IS_PAD, LOSS_SHARE
from koch_policy.models.denoiser import hold_padding
from koch_policy.models.prefix import ExpertBlock, ObservationPrefix
from koch_policy.models.registry import register_policy
from koch_policy.models.tokens import (
    ActionTokenizer,
    FastTokens,
    UniformBins,
    dct_matrix,
    fit_fast,
)
from koch_policy.policy_configs import FastConfig

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values (B, H, P + S, W) of each layer."""

_UNUSED = -1  # in `merges`: a token of the vocabulary that was not learned


@register_policy(FastConfig, runtimes=("torch",))  # how often it computes depends on its outputs
class Fast(ObservationPrefix):
    """The network; all values in and out are normalised."""

    state_dict_prefix = "model."
    heeds_shares = True
    config: FastConfig

    def __init__(self, config: FastConfig) -> None:
        super().__init__(config)
        dim, size = config.dim_model, config.vocabulary
        self.numbers = config.chunk_size * config.action_dim  # N
        self.token_in = nn.Embedding(size + 1, dim)  # the last one begins a chunk
        self.place_in = nn.Embedding(self.numbers, dim)  # which integer comes next
        self.decoder = nn.ModuleList(ExpertBlock(dim, config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(dim)
        self.token_out = nn.Linear(dim, size)
        dct = torch.from_numpy(dct_matrix(config.chunk_size)).float()
        self.register_buffer("dct", dct, persistent=False)
        for name, shape, value in (
            ("merges", (size, 2), _UNUSED),  # of which two tokens a token was made
            ("low", (1,), 0),  # the integer of token 0
            ("pieces", (size, self.numbers), 0),  # the integers of a token
            ("lengths", (size,), 0),  # how many these are
        ):
            self.register_buffer(name, torch.full(shape, value, dtype=torch.int32))
        nn.init.normal_(self.token_in.weight, std=0.02)
        nn.init.normal_(self.place_in.weight, std=0.02)
        self.learn_tokens(torch.zeros(1, config.chunk_size, config.action_dim))

    dct: Tensor
    merges: Tensor
    low: Tensor
    pieces: Tensor
    lengths: Tensor

    def learn_tokens(self, chunks: Tensor) -> None:
        """Learn the tokenizer from normalised chunks (N, T, A).

        Raises:
            TokenError: The vocabulary is too small for the chunks' integers.
        """
        config = self.config
        if config.tokenizer == "bins":
            self._keep(UniformBins(config.vocabulary), 0, [])
            return
        fitted = fit_fast(
            chunks.cpu().numpy(), scale=config.token_scale, vocabulary=config.vocabulary
        )
        self._keep(fitted, fitted.low, list(fitted.merges))

    def _keep(self, tokens: ActionTokenizer, low: int, merges: list[tuple[int, int]]) -> None:
        """Put a tokenizer into the buffers."""
        alphabet = tokens.vocabulary - len(merges)
        self.low.fill_(low)
        self.lengths.zero_()
        self.merges.fill_(_UNUSED)
        for token, piece in enumerate(tokens.pieces()):
            self.pieces[token, : len(piece)] = torch.tensor(piece)
            self.lengths[token] = len(piece)
            pair = merges[token - alphabet] if token >= alphabet else (token, token)
            self.merges[token] = torch.tensor(pair)

    def tokenizer(self) -> ActionTokenizer:
        """Return the tokenizer that the buffers hold."""
        if self.config.tokenizer == "bins":
            return UniformBins(self.config.vocabulary)
        pairs = self.merges.tolist()
        alphabet = sum(first == second == token for token, (first, second) in enumerate(pairs))
        low = int(self.low)
        merges = tuple((a, b) for a, b in pairs[alphabet:] if a != _UNUSED)
        return FastTokens(self.config.token_scale, low, low + alphabet - 1, merges)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective of a normalised batch and its parts, each a scalar.

        A cosine transform mixes the steps of a chunk, so padded steps cannot be left out of its
        tokens. They repeat the last real one, and a window counts by its part of real steps.

        Args:
            batch: observation features, `action` (B, T, A), `action_is_pad` bool (B, T).
        """
        tokens, weight = self._weighed_tokens(batch)
        logits = self.logits(tokens, self.condition(batch))
        wrong = F.cross_entropy(logits.transpose(1, 2).float(), tokens, reduction="none")
        total = weight.sum().clamp_min(1e-6)
        loss = (wrong * weight).sum() / total
        right = ((logits.argmax(-1) == tokens) * weight).sum() / total
        if LOSS_SHARE in batch:
            loss, right = loss * batch[LOSS_SHARE], right * batch[LOSS_SHARE]
        return loss, {"cross_entropy": loss.detach(), "tokens_right": right.detach()}

    def loss_weight(self, batch: dict[str, Tensor]) -> Tensor:
        """Return what all tokens of a batch count in the loss."""
        return self._weighed_tokens(batch)[1].sum()

    def _weighed_tokens(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return tokens (B, S) and what each counts."""
        actions = hold_padding(batch[ACTION], batch[ACTION_IS_PAD])
        tokens, is_token = self.encode(actions)
        return tokens, (~batch[ACTION_IS_PAD]).float().mean(1, keepdim=True) * is_token

    def encode(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens (B, S) of chunks (B, T, A), and where there are any, bool (B, S)."""
        tokenizer = self.tokenizer()
        values = actions.detach().float().cpu().numpy()
        rows = tokenizer.tokens([tokenizer.numbers(chunk) for chunk in values])
        count = max(map(len, rows))
        tokens = torch.zeros(len(rows), count, dtype=torch.long)
        is_token = torch.zeros(len(rows), count, dtype=torch.bool)
        for index, row in enumerate(rows):
            tokens[index, : len(row)] = torch.from_numpy(row.astype(np.int64))
            is_token[index, : len(row)] = True
        return tokens.to(actions.device), is_token.to(actions.device)

    def logits(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Return the scores (B, S, V) of each token, given those before it: no cache is used."""
        start = torch.full_like(tokens[:, :1], self.config.vocabulary)
        before = torch.cat((start, tokens[:, :-1]), dim=1)
        lengths = torch.cat((torch.zeros_like(start), self.lengths[tokens[:, :-1]]), dim=1)
        place = lengths.cumsum(1)  # (B, S)
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        seen = steps[:, None] >= steps[None, :]
        prefix = seen.new_ones(len(steps), condition.shape[4])
        mask = torch.cat((prefix, seen), dim=1)  # (S, P + S)
        scores, _ = self.decode(before, place, _layers(condition), mask)
        return scores

    def decode(
        self, before: Tensor, place: Tensor, cache: Cache, mask: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        """Return scores (B, S, V), and the cache with keys and values of these tokens.

        Args:
            before: Token before each (B, S).
            place: Integers that are written before each (B, S).
            cache: Of the prefix and all tokens before these.
            mask: bool (S, P + S), True where seen.
        """
        x = self.token_in(before) + self.place_in(place.clamp(max=self.numbers - 1))
        grown: Cache = []
        for layer, (keys, values) in zip(self.decoder, cache, strict=True):
            q, k, v = layer.project(x)  # type: ignore[operator]
            k, v = torch.cat((keys, k), dim=2), torch.cat((values, v), dim=2)
            grown.append((k, v))
            x = layer.finish(x, q, k, v, mask)  # type: ignore[operator]
        scores: Tensor = self.token_out(self.norm(x))
        return scores.masked_fill(~self.fits(place), torch.finfo(scores.dtype).min), grown

    def fits(self, place: Tensor) -> Tensor:
        """Return bool (B, S, V): tokens that fit behind `place` integers; behind N any does."""
        left = (self.numbers - place).unsqueeze(-1)
        return (self.lengths > 0) & ((self.lengths <= left) | (left <= 0))

    def write(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return the likeliest tokens (B, S), each given those before, and their integers (B, N).

        Rows that end earlier go on with tokens that mean nothing.
        """
        count, device = condition.shape[2], condition.device
        before = torch.full((count, 1), self.config.vocabulary, device=device)
        place = torch.zeros(count, 1, dtype=torch.long, device=device)
        span = torch.arange(self.numbers, device=device)
        found = torch.zeros(count, 2 * self.numbers, dtype=torch.int32, device=device)
        cache, tokens = _layers(condition), []
        while bool((place < self.numbers).any()):
            scores, cache = self.decode(before, place, cache)
            before = scores.argmax(-1)  # (B, 1)
            tokens.append(before)
            # What a piece leaves behind its end is written over by the next one.
            found.scatter_(1, place + span, self.pieces[before[:, 0]])
            place = (place + self.lengths[before]).clamp(max=self.numbers)
        return torch.cat(tokens, dim=1), found[:, : self.numbers]

    def actions(self, numbers: Tensor) -> Tensor:
        """Return the chunks (B, T, A) of integers (B, N)."""
        config = self.config
        values = numbers.to(self.dct.dtype).view(-1, config.chunk_size, config.action_dim)
        if config.tokenizer == "bins":
            chunk: Tensor = (values + 0.5) / config.vocabulary * 2.0 - 1.0
        else:
            chunk = self.dct.T @ (values / config.token_scale)
        return chunk

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the likeliest chunk (B, T, A)."""
        _, numbers = self.write(self.condition(batch))
        return self.actions(numbers)


def _layers(condition: Tensor) -> Cache:
    """Return the prefix's keys and values (L, 2, B, H, P, W) layer by layer."""
    return [(each[0], each[1]) for each in condition]
