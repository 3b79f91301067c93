# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Serves any policy that an installed LeRobot can load (SmolVLA, pi0, ...), in its own Python.

    PYTHON -m koch_policy.server.lerobot --fd N --policy DIR --device cpu

Networks, processors and tokenisers are LeRobot's own. Policies of one observation hand out a
chunk directly. The others (diffusion, vqbet, ...) fill their history in `select_action` only, so
that is called, and their queue emptied afterwards.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import platform
import socket
import sys
import zlib
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from koch_core.errors import KochError
from koch_policy.server.protocol import Channel
from koch_policy.server.serve import serve

ACTION, TASK = "action", "task"
PLACEHOLDER = ".empty_camera_"  # LeRobot fills these itself
_PREPROCESSOR, _ADAPTER = "policy_preprocessor.json", "adapter_config.json"
_MAX_PIXELS = 40_000_000


class LeRobotError(KochError):
    """LeRobot cannot run this policy, or not on this observation."""

    def __init__(self, what: str, got: str, expected: str) -> None:
        super().__init__(f"{what}: got {got}; expected {expected}.")


class LeRobotPolicy:
    """A policy run by LeRobot itself; see `koch_policy.server.serve.Served` for the interface.

    Args:
        path: Checkpoint folder in LeRobot's layout.
        device: "cpu" or "cuda".

    Raises:
        LeRobotError: LeRobot is not installed, or does not know the policy.
    """

    def __init__(self, path: Path, *, device: str) -> None:
        if find_spec("lerobot") is None:
            raise LeRobotError(sys.executable, "no module lerobot", "a Python with LeRobot >= 0.4")
        self._path = path
        self._device = device
        self._config: dict[str, Any] = _read(path / "config.json")
        self._inputs = {
            key: (str(value["type"]), tuple(value["shape"]))
            for key, value in self._config["input_features"].items()
            if PLACEHOLDER not in key
        }
        (self._width,) = self._config["output_features"][ACTION]["shape"]
        self._rename = _rename_map(path)
        self._sources = {new: old for old, new in self._rename.items()}
        self._policy, self._before, self._after = _load(path, str(self._config["type"]), device)

    def describe(self) -> dict[str, Any]:
        """Return what a client must know."""
        about = self._path / "koch.json"
        return {
            "config": self._config,
            "metadata": _read(about) if about.is_file() else {},
            "rename": self._rename,
            "runtime": f"lerobot-{self._device}",
            "server": f"lerobot {metadata.version('lerobot')}, Python {platform.python_version()}",
        }

    def example(self) -> dict[str, Any]:
        """Return a made-up observation of the right shapes."""
        made: dict[str, Any] = {TASK: "warm up"}
        for key, (kind, shape) in self._inputs.items():
            source = self._sources.get(key, key)
            if kind == "VISUAL":
                made[source] = np.zeros((*shape[1:], shape[0]), np.uint8)
            else:
                made[source] = np.zeros(shape, np.float32)
        return made

    def reset(self) -> None:
        """Clear LeRobot's queues."""
        self._policy.reset()

    def observe(self, observation: Mapping[str, Any]) -> None:
        """Put a tick's observation into the history of a policy that has one."""
        import torch

        if self._action_queue() is not None:
            with torch.inference_mode():
                self._remember(self._before(self._batch(observation)))

    def predict(
        self,
        observation: Mapping[str, Any],
        noise: Any | None = None,
        within_s: float = math.inf,
    ) -> Any:
        """Return a chunk (T, A) in dataset units.

        Noise decides what the policy draws, as a seed: its shape is each policy's own affair.
        """
        import torch

        if noise is not None:
            torch.manual_seed(zlib.crc32(np.ascontiguousarray(noise).tobytes()))
        *past, newest = self._steps(observation)
        with torch.inference_mode():
            if past:
                self.reset()
            for step in past:
                self._remember(self._before(self._batch(step)))
            ready = self._before(self._batch(newest))
            if self._action_queue() is None:
                chunk = self._policy.predict_action_chunk(ready)  # (1, T, A)
            else:
                chunk = self._selected(ready)
            result = self._after(chunk).float().cpu().numpy()[0]
        if not np.isfinite(result).all():
            raise LeRobotError("the chunk", "NaN or infinity", "finite actions")
        return result

    def _batch(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Return one observation as LeRobot's processors take it, under the rig's names.

        Raises:
            LeRobotError: An input is missing or misshapen.
        """
        import torch

        batch: dict[str, Any] = {TASK: observation.get(TASK, ""), "robot_type": ""}
        for key, (kind, shape) in self._inputs.items():
            source = self._sources.get(key, key)
            if source not in observation:
                raise LeRobotError(f"observation {source!r}", "nothing", f"shape {shape}")
            given = observation[source]
            if isinstance(given, bytes):
                given = _decoded(source, given)
            value = torch.from_numpy(np.array(given))
            if kind == "VISUAL" and value.dtype == torch.uint8:
                value = value.movedim(-1, -3).float() / 255.0
            if value.dim() != len(shape):
                got = str(tuple(value.shape))
                raise LeRobotError(f"observation {source!r}", got, f"shape {shape}")
            batch[source] = value.float().unsqueeze(0)
        return batch

    def _steps(self, observation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Take observation steps apart, oldest first; a single observation is the newest."""
        ranks = {self._sources.get(key, key): len(s) for key, (_, s) in self._inputs.items()}
        given = {
            key: np.asarray(observation[key])
            for key in ranks
            if not isinstance(observation.get(key, b""), bytes)
        }
        if not given or any(value.ndim != ranks[key] + 1 for key, value in given.items()):
            return [observation]
        count = min(len(value) for value in given.values())
        return [
            {**observation, **{key: value[step] for key, value in given.items()}}
            for step in range(count)
        ]

    def _action_queue(self) -> Any | None:
        """The action queue of a policy that keeps its observations in queues beside it."""
        queues = getattr(self._policy, "_queues", {})
        return queues.get(ACTION) if len(queues) > 1 else None

    def _remember(self, ready: dict[str, Any]) -> None:
        """Let `select_action` take in an observation; a waiting action keeps it from computing."""
        import torch

        queue = self._action_queue()
        assert queue is not None  # callers checked
        queue.clear()
        queue.append(torch.zeros(1, self._width, device=self._device))
        self._policy.select_action(ready)

    def _selected(self, ready: dict[str, Any]) -> Any:
        """Return the chunk (1, T, A) that `select_action` computes and would hand out in turn."""
        import torch

        queue = self._action_queue()
        assert queue is not None  # callers checked
        queue.clear()
        first = self._policy.select_action(ready)
        chunk = torch.stack([first, *queue], dim=1)
        queue.clear()
        return chunk


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise LeRobotError(str(path), f"what is not readable ({exc})", "JSON") from exc
    if not isinstance(content, dict):
        raise LeRobotError(str(path), type(content).__name__, "a JSON object")
    return content


def _rename_map(path: Path) -> dict[str, str]:
    """Return {name of the rig: name of the policy} of the pre-processor."""
    file = path / _PREPROCESSOR
    found: dict[str, str] = {}
    for step in _read(file).get("steps", []) if file.is_file() else []:
        found |= step.get("config", {}).get("rename_map", {})
    return found


def _decoded(key: str, jpeg: bytes) -> Any:
    """Decode a camera's own image; only JPEG, and only of a size that a camera has."""
    from PIL import Image  # LeRobot requires it

    with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
        if image.width * image.height > _MAX_PIXELS:
            size = f"{image.width}x{image.height} pixels"
            raise LeRobotError(f"observation {key!r}", size, f"up to {_MAX_PIXELS}")
        return np.asarray(image.convert("RGB"))


def _load(path: Path, kind: str, device: str) -> tuple[Any, Any, Any]:
    """Load policy and both pipelines with LeRobot's own functions.

    Raises:
        LeRobotError: This LeRobot has no such policy.
    """
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    try:
        found = get_policy_class(kind)
    except (NotImplementedError, ValueError) as exc:
        version = metadata.version("lerobot")
        raise LeRobotError(f"LeRobot {version}", f"the policy {kind!r}", "one it knows") from exc
    adapted = (path / _ADAPTER).is_file()
    policy = _with_adapter(found, path) if adapted else found.from_pretrained(str(path))
    policy = policy.to(device).eval()
    overrides = {"device_processor": {"device": device}}
    before, after = make_pre_post_processors(
        policy.config, pretrained_path=str(path), preprocessor_overrides=overrides
    )
    return policy, before, after


def _with_adapter(found: Any, path: Path) -> Any:
    """Load the policy that a PEFT adapter belongs to, and merge the adapter into it."""
    from lerobot.configs.policies import PreTrainedConfig
    from peft import PeftConfig, PeftModel

    adapter = PeftConfig.from_pretrained(str(path))
    base = adapter.base_model_name_or_path
    if not base:
        raise LeRobotError(str(path / _ADAPTER), "no base model", "base_model_name_or_path")
    policy = found.from_pretrained(base, config=PreTrainedConfig.from_pretrained(str(path)))
    return PeftModel.from_pretrained(policy, str(path), config=adapter).merge_and_unload()


def folder_of(policy: str) -> Path:
    """Return a policy's folder: a name such as lerobot/smolvla_base is fetched from the Hub."""
    if Path(policy).is_dir():
        return Path(policy)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(policy))


def main() -> int:
    """Serve one client on an inherited socket."""
    parser = argparse.ArgumentParser(prog="koch_policy.server.lerobot")
    parser.add_argument("--fd", type=int, required=True, help="connected stream socket")
    parser.add_argument("--policy", required=True, help="folder, or a name on the Hub")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)

    def load() -> LeRobotPolicy:
        import torch

        if options.threads:
            torch.set_num_threads(options.threads)
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        device = automatic if options.device == "auto" else options.device
        return LeRobotPolicy(folder_of(options.policy), device=device)

    with socket.socket(fileno=options.fd) as connection:
        return serve(Channel(connection), load)


if __name__ == "__main__":
    sys.exit(main())
