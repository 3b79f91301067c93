# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""FAST against the published tokenizer's code, which LeRobot carries since 0.6."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_policy.models.tokens import fit_fast, load_published

STEPS, WIDTH = 50, 6
WHERE = "lerobot.policies.molmoact2.molmoact2_hf_model.action_tokenizer"
SIDE = f"""
import json, sys, numpy as np
from pathlib import Path
try:
    from {WHERE} import UniversalActionProcessor as Theirs
except ImportError:
    print("absent")
    sys.exit()
folder = Path(sys.argv[1])
chunks = np.load(folder / "chunks.npy")
ours = Theirs.from_pretrained_local(str(folder / "ours"))
own = Theirs.fit(list(chunks), scale=10, vocab_size=1024)
own.save_pretrained(str(folder / "theirs"))
for name, made in (("ours", ours), ("theirs", own)):
    tokens = [[int(token) for token in row] for row in made(chunks)]
    np.save(folder / f"{{name}}.npy", made.decode(tokens))
    (folder / f"{{name}}.json").write_text(json.dumps(tokens))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_files_and_tokens_agree_with_the_published_code(lerobot: Any, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    time = np.linspace(0.0, 1.0, STEPS)[None, :, None]
    start, way, speed = (draw.uniform(0.1, 0.5, (60, 1, WIDTH)) for _ in range(3))
    chunks = (start + way * np.sin(12 * speed * time)).astype(np.float32)
    np.save(tmp_path / "chunks.npy", chunks)
    fast = fit_fast(list(chunks))
    fast.save(tmp_path / "ours")
    (tmp_path / "side.py").write_text(SIDE)
    if "absent" in lerobot.run(tmp_path / "side.py", tmp_path):
        pytest.skip("this LeRobot has no FAST tokenizer, or lacks transformers and scipy")
    theirs = json.loads((tmp_path / "ours.json").read_text())
    assert [fast.encode(chunk) for chunk in chunks] == theirs
    back = np.stack([fast.decode(row, STEPS, WIDTH) for row in theirs])
    np.testing.assert_allclose(back, np.load(tmp_path / "ours.npy"), atol=1e-6)
    pytest.importorskip("tokenizers", reason="reads published FAST files")
    read = load_published(tmp_path / "theirs")
    tokens = json.loads((tmp_path / "theirs.json").read_text())
    assert [read.encode(chunk) for chunk in chunks] == tokens
    back = np.stack([read.decode(row, STEPS, WIDTH) for row in tokens])
    np.testing.assert_allclose(back, np.load(tmp_path / "theirs.npy"), atol=1e-6)
