# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Loading a policy with the runtime that suits this machine."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from koch_policy.checkpoint import Checkpoint, load_checkpoint
from koch_policy.errors import RuntimeChoiceError
from koch_policy.files import is_address, is_hub_name, resolve_checkpoint
from koch_policy.models.registry import policy_kind
from koch_policy.normalize import ZeroRange
from koch_policy.policy import Policy
from koch_policy.runtime.base import Engine, EnginePolicy, example_observation

if TYPE_CHECKING:
    from koch_policy.runtime.calibration import Calibration

RUNTIMES = ("auto", "torch", "openvino", "lerobot")
PRECISIONS = ("f32", "bf16", "int8")
_WARM_UPS = 2


def load_policy(
    path: Path | str,
    runtime: str = "auto",
    *,
    precision: str = "f32",
    device: str = "auto",
    compiles: bool = False,
    full_horizon: bool = False,
    zero_range: ZeroRange | None = None,
    calibration: Calibration = None,
    threads: int | None = None,
) -> Policy:
    """Load a checkpoint and warm it up.

    Args:
        path: Checkpoint folder, or a training output; for "lerobot" also a name on the Hub. Or
            the address of a `koch serve`, which decides everything else.
        runtime: "torch", "openvino", "lerobot" (any policy LeRobot can load, in a process of
            LeRobot's own Python; takes device and threads alone), or "auto": CUDA by torch, else
            the faster of openvino and torch, measured once per machine.
        precision: "f32"; "bf16"; "int8" (openvino, needs calibration the first time).
        device: For torch and lerobot: "auto", "cpu" or "cuda".
        compiles: For torch: torch.compile.
        full_horizon: Hand out all steps of a denoised horizon, not just n_action_steps.
        zero_range: What to do with features that never moved in training; None: as trained.
        threads: CPU threads of torch in this process; None leaves them as they are.
        calibration: For int8, the first time: the dataset's folder, or observations of it.

    Raises:
        PolicyError: The checkpoint cannot be read, or the runtime cannot run here.
    """
    _check_known("runtime", runtime, RUNTIMES)
    _check_known("precision", precision, PRECISIONS)
    if is_address(str(path)):
        from koch_policy.server.client import remote_policy

        own = {"compiles": compiles, "calibration": calibration is not None}
        own = {"runtime": runtime != "auto", "precision": precision != "f32", **own}
        _require_left_out(str(path), **own)
        return remote_policy(str(path))
    if runtime == "lerobot":
        _require_left_out(
            runtime,
            precision=precision != "f32",
            compiles=compiles,
            zero_range=zero_range is not None,
            calibration=calibration is not None,
        )
        return _served_by_lerobot(path, device, threads)
    if threads is not None:
        torch.set_num_threads(threads)
    checkpoint = load_checkpoint(path, zero_range=zero_range)
    chosen = torch.device(_device(device))
    if runtime == "auto":
        runtime = _fastest(checkpoint, chosen, precision)
    _check_able(checkpoint, runtime)
    engine: Engine
    if runtime == "openvino":
        from koch_policy.runtime.openvino_runtime import OpenVinoEngine

        engine = OpenVinoEngine(checkpoint, precision=precision, calibration=calibration)
    else:
        from koch_policy.runtime.torch_runtime import TorchEngine

        _require_torch_precision(precision)
        engine = TorchEngine(checkpoint, device=chosen, precision=precision, compiles=compiles)
    policy = EnginePolicy(checkpoint, engine, full_horizon=full_horizon)
    warm_up(policy, checkpoint)
    checkpoint.model.to("meta")  # the engine has weights of its own; these need not stay
    return policy


def _require_left_out(by: str, **given: bool) -> None:
    if named := [name for name, is_given in given.items() if is_given]:
        raise RuntimeChoiceError(by, f"takes no {', '.join(named)}", "Leave it out.")


def _check_known(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RuntimeChoiceError(value, f"no such {name}", f"Known: {', '.join(known)}.")


def _check_able(checkpoint: Checkpoint, runtime: str) -> None:
    if runtime not in _able(checkpoint):
        able = ", ".join(_able(checkpoint))
        raise RuntimeChoiceError(
            runtime, f"cannot compute a {checkpoint.config.type} policy", f"Known for it: {able}."
        )


def _served_by_lerobot(path: Path | str, device: str, threads: int | None) -> Policy:
    from koch_policy.server.client import serve_lerobot

    is_name = not Path(path).exists() and is_hub_name(str(path))
    served = str(path) if is_name else str(resolve_checkpoint(Path(path)).absolute())
    return serve_lerobot(served, device=device, threads=threads)


def warm_up(policy: EnginePolicy, checkpoint: Checkpoint) -> None:
    """Run a few made-up observations, so that the first real one takes no longer than others."""
    for seed in range(_WARM_UPS):
        policy.predict(example_observation(checkpoint, seed))
    policy.reset()


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeChoiceError("torch", f"no CUDA device for {device!r}", 'Use device="cpu".')
    return device


def _able(checkpoint: Checkpoint) -> tuple[str, ...]:
    return policy_kind(checkpoint.config.type, str(checkpoint.path)).runtimes


def _require_torch_precision(precision: str) -> None:
    if precision == "int8":
        raise RuntimeChoiceError("torch", "has no int8", 'Use runtime="openvino" for int8.')


def _fastest(checkpoint: Checkpoint, device: torch.device, precision: str) -> str:
    """Return the faster runtime on this machine; the answer is kept next to the checkpoint."""
    if device.type == "cuda":
        return "torch"
    if find_spec("openvino") is None or "openvino" not in _able(checkpoint):
        _require_torch_precision(precision)
        return "torch"
    if precision == "int8":
        return "openvino"
    from koch_policy.runtime.cache import read_choice, write_choice

    known = read_choice(checkpoint, precision)
    if known is not None:
        return known
    from koch_policy.runtime.openvino_runtime import OpenVinoEngine
    from koch_policy.runtime.torch_runtime import TorchEngine

    candidates: dict[str, Engine] = {
        "openvino": OpenVinoEngine(checkpoint, precision=precision),
        "torch": TorchEngine(checkpoint, device=device, precision=precision),
    }
    times = {name: _measure(checkpoint, engine) for name, engine in candidates.items()}
    best = min(times, key=lambda name: times[name])
    write_choice(checkpoint, precision, best, times)
    return best


def _measure(checkpoint: Checkpoint, engine: Engine) -> float:
    """Return the median seconds of five predictions after warm-up."""
    policy = EnginePolicy(checkpoint, engine)
    warm_up(policy, checkpoint)
    times = []
    for seed in range(5):
        observation = example_observation(checkpoint, seed)
        begin = time.perf_counter()
        policy.predict(observation)
        times.append(time.perf_counter() - begin)
    return sorted(times)[2]


def seed_draws(seed: int) -> None:
    """Make what policies draw from now on (noise of Flow and Diffusion) repeatable."""
    torch.manual_seed(seed)
