# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Actions as tokens: what comes back, how far off it is, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from koch_policy.errors import CheckpointError
from koch_policy.models.tokens import (
    FastTokens,
    TokenError,
    UniformBins,
    dct_matrix,
    fit_fast,
    load_published,
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
    with pytest.raises(TokenError, match=r"0 to 255|expected 6"):
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
def fast() -> FastTokens:
    """Learnt from smooth chunks."""
    return fit_fast(smooth(200))


def test_fast_is_shorter_than_bins_and_as_near_as_its_rounding(fast: FastTokens) -> None:
    lengths = []
    for chunk in smooth(40, seed=1):
        tokens = fast.encode(chunk)
        lengths.append(len(tokens))
        back = fast.decode(tokens, STEPS, WIDTH)
        # Rounding moves each of T orthonormal coefficients by half a unit at most.
        assert np.linalg.norm(back - chunk, axis=0).max() <= 0.5 / 10 * np.sqrt(STEPS)
        assert np.abs(back - chunk).max() < 0.15
    assert np.mean(lengths) < STEPS * WIDTH / 4


def test_fast_repeats_what_it_has_rounded(fast: FastTokens) -> None:
    for chunk in smooth(20, seed=2):
        tokens = fast.encode(chunk)
        assert fast.encode(fast.decode(tokens, STEPS, WIDTH)) == tokens


def test_pairs_are_put_together_from_the_left_in_their_order() -> None:
    """By hand: aa = 2 is learned before aab = 3, the vocabulary has room for these."""
    made = FastTokens(1.0, 0, 1, ((0, 0), (2, 1)))
    line = [np.array([0, 0, 0, 1]), np.array([0, 0, 1, 0, 0, 0, 0]), np.array([1]), np.array([0])]
    found = [each.tolist() for each in made.tokens(line)]
    assert found == [[2, 0, 1], [3, 2, 2], [1], [0]]
    assert made.pieces() == [[0], [1], [0, 0], [0, 0, 1]]


def test_every_piece_has_one_token(fast: FastTokens) -> None:
    pieces = [tuple(piece) for piece in fast.pieces()]
    assert len(set(pieces)) == len(pieces) == fast.vocabulary
    assert max(map(len, pieces)) > 20


def test_integers_beyond_the_learned_ones_are_written_as_the_nearest(fast: FastTokens) -> None:
    wide = np.full((STEPS, WIDTH), 30.0, np.float32)
    numbers = fast.numbers(wide)
    assert (numbers.min(), numbers.max()) == (0, fast.high)
    assert np.isfinite(fast.decode(fast.encode(wide), STEPS, WIDTH)).all()


def test_published_files_give_the_same_tokens(fast: FastTokens, tmp_path: Path) -> None:
    """What `save` writes, read by the package that published tokenizers are read with."""
    pytest.importorskip("tokenizers", reason="reads published FAST files")
    fast.save(tmp_path)
    read = load_published(tmp_path)
    for chunk in smooth(30, seed=3):
        tokens = fast.encode(chunk)
        assert read.encode(chunk) == tokens
        np.testing.assert_array_equal(
            read.decode(tokens, STEPS, WIDTH), fast.decode(tokens, STEPS, WIDTH)
        )
    assert (read.scale, read.min_token, read.vocabulary) == (10.0, fast.low, fast.vocabulary)
    with pytest.raises(TokenError, match="elements"):
        read.decode(tokens[:-1], STEPS, WIDTH)


def test_a_tokenizer_made_as_the_published_ones_is_read(tmp_path: Path) -> None:
    """Bytes of UTF-8, as `UniversalActionProcessor.fit` trains them; from 128 on two."""
    tokenizers = pytest.importorskip("tokenizers", reason="reads published FAST files")
    numbers = [quantised(chunk, 10.0) for chunk in smooth(200)]
    low = min(int(each.min()) for each in numbers)
    texts = ["".join(map(chr, each - low)) for each in numbers]
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=1024, min_frequency=2, show_progress=False)
    bpe.save(str(tmp_path / "tokenizer.json"))
    content = {"scale": 10.0, "vocab_size": 1024, "min_token": low}
    (tmp_path / "processor_config.json").write_text(json.dumps(content))
    read = load_published(tmp_path)
    assert max(map(max, texts)) > chr(127)
    for chunk in smooth(200)[::10]:
        back = read.decode(read.encode(chunk), STEPS, WIDTH)
        np.testing.assert_allclose(
            back, FastTokens(10.0, -500, 500).values(quantised(chunk, 10.0), STEPS, WIDTH)
        )


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="reads published FAST files")
    with pytest.raises(CheckpointError, match="no FAST tokenizer"):
        load_published(tmp_path)


def test_fast_refuses_what_is_no_chunk(fast: FastTokens) -> None:
    tokens = fast.encode(smooth(1)[0])
    with pytest.raises(TokenError, match="elements"):
        fast.decode(tokens[:-1], STEPS, WIDTH)
    with pytest.raises(TokenError, match=f"0 to {fast.vocabulary - 1}"):
        fast.decode([fast.vocabulary], STEPS, WIDTH)
    with pytest.raises(TokenError, match="finite"):
        fast.encode(np.full((STEPS, WIDTH), np.nan, np.float32))
    with pytest.raises(TokenError, match="vocabulary: got 4"):
        fit_fast(smooth(3), vocabulary=4)
