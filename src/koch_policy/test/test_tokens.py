# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Actions as tokens: what comes back, how far off it is, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from koch_policy.errors import CheckpointError
from koch_policy.models.tokens import (
    Fast,
    TokenError,
    UniformBins,
    dct_matrix,
    fit_fast,
    load_fast,
    quantised,
)

STEPS, WIDTH = 50, 6


def smooth(count: int, seed: int = 0) -> list[np.ndarray]:
    """Chunks that move as arms do."""
    draw = np.random.default_rng(seed)
    time = np.linspace(0.0, 1.0, STEPS)[:, None]
    return [
        np.clip(
            draw.uniform(-0.8, 0.8, WIDTH)
            + draw.uniform(-0.5, 0.5, WIDTH) * np.sin(draw.uniform(1, 6, WIDTH) * time),
            -1, 1,
        ).astype(np.float32)
        for _ in range(count)
    ]  # fmt: skip


def test_uniform_bins_come_back_within_half_a_bin() -> None:
    bins = UniformBins()
    chunk = np.linspace(-1, 1, STEPS * WIDTH, dtype=np.float32).reshape(STEPS, WIDTH)
    tokens = bins.encode(chunk)
    assert (min(tokens), max(tokens), len(tokens)) == (0, 255, STEPS * WIDTH)
    assert np.abs(bins.decode(tokens, STEPS, WIDTH) - chunk).max() <= 1 / 256 + 1e-7
    assert bins.encode(bins.decode(tokens, STEPS, WIDTH)) == tokens
    assert bins.encode(np.array([[-7.0, 7.0]])) == [0, 255]


@pytest.mark.parametrize("tokens", [[0] * 5, [0] * 7, [0, 0, 0, 0, 0, 256], [-1, 0, 0, 0, 0, 0]])
def test_other_bins_are_refused(tokens: list[int]) -> None:
    with pytest.raises(TokenError, match="0 to 255"):
        UniformBins().decode(tokens, 1, 6)


def test_the_cosine_transform_is_orthonormal_and_known_by_hand() -> None:
    for count in (1, 2, 7, 50):
        np.testing.assert_allclose(
            dct_matrix(count) @ dct_matrix(count).T, np.eye(count), atol=1e-12
        )
    np.testing.assert_allclose(dct_matrix(4) @ np.full(4, 3.0), [6.0, 0, 0, 0], atol=1e-12)
    # Lowest frequencies of all elements come first.
    chunk = np.array([[1.0, 2.0], [1.0, 2.0]])
    assert quantised(chunk, 10.0).tolist() == [14, 28, 0, 0]


@pytest.fixture(scope="module")
def fast() -> Fast:
    """Learnt from smooth chunks."""
    pytest.importorskip("tokenizers", reason="the extra for FAST")
    return fit_fast(smooth(200))


def test_fast_is_shorter_than_bins_and_as_near_as_its_rounding(fast: Fast) -> None:
    lengths = []
    for chunk in smooth(40, seed=1):
        tokens = fast.encode(chunk)
        lengths.append(len(tokens))
        back = fast.decode(tokens, STEPS, WIDTH)
        # Rounding moves each of T orthonormal coefficients by half a unit at most.
        assert np.linalg.norm(back - chunk, axis=0).max() <= 0.5 / 10 * np.sqrt(STEPS)
        assert np.abs(back - chunk).max() < 0.15
    assert np.mean(lengths) < STEPS * WIDTH / 4


def test_fast_repeats_what_it_has_rounded(fast: Fast) -> None:
    for chunk in smooth(20, seed=2):
        tokens = fast.encode(chunk)
        assert fast.encode(fast.decode(tokens, STEPS, WIDTH)) == tokens


def test_fast_travels_through_its_files(fast: Fast, tmp_path: Path) -> None:
    fast.save(tmp_path)
    read = load_fast(tmp_path)
    chunk = smooth(1, seed=3)[0]
    assert read.encode(chunk) == fast.encode(chunk)
    assert (read.scale, read.min_token, read.vocabulary) == (10.0, fast.min_token, fast.vocabulary)


def test_fast_refuses_what_is_no_chunk(fast: Fast, tmp_path: Path) -> None:
    tokens = fast.encode(smooth(1)[0])
    with pytest.raises(TokenError, match="coefficients"):
        fast.decode(tokens[:-1], STEPS, WIDTH)
    with pytest.raises(TokenError, match=f"0 to {fast.vocabulary - 1}"):
        fast.decode([fast.vocabulary], STEPS, WIDTH)
    with pytest.raises(TokenError, match="finite"):
        fast.encode(np.full((STEPS, WIDTH), np.nan, np.float32))
    with pytest.raises(TokenError, match="vocabulary: got 4"):
        fit_fast(smooth(3), vocabulary=4)
    with pytest.raises(CheckpointError, match="no FAST tokenizer"):
        load_fast(tmp_path)
