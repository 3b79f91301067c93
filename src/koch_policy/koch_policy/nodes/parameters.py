# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The policy node's parameters: one dataclass, from which the ROS declarations follow."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from koch_policy.chunks import StrategyKind
from koch_policy.errors import PolicyError

_STRATEGIES = ("", *(kind.value for kind in StrategyKind))


class ParameterError(PolicyError):
    """A node parameter cannot be used."""

    def __init__(self, name: str, got: object, expected: str) -> None:
        super().__init__(f"parameter {name}: got {got!r}, expected {expected}")


def _field(
    default: Any,
    text: str,
    bounds: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    *,
    required: bool = False,
) -> Any:
    metadata = {"text": text, "bounds": bounds, "choices": choices, "required": required}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class PolicyParameters:
    """Parameters of the policy node; all are read once, at the start."""

    rig: str = _field("", "path of the rig file", required=True)
    checkpoint: str = _field("", "checkpoint folder, or a training output", required=True)
    arm: str = _field("", "follower to drive; empty: the rig's only one")
    strategy: str = _field("", "chunk execution; empty: what suits the policy", None, _STRATEGIES)
    shadow: bool = _field(False, "predict and compare with the human, command nothing")
    runtime: str = _field("auto", "what computes", None, ("auto", "torch", "openvino", "lerobot"))
    precision: str = _field("f32", "number format", None, ("f32", "bf16", "int8"))
    device: str = _field("auto", "auto, cpu or cuda")
    num_threads: int = _field(2, "CPU threads of torch", (1, 64))
    denoising_steps: int = _field(0, "of iterative policies; 0: the checkpoint's", (0, 1000))
    execution_steps: int = _field(
        0, "steps of a chunk to execute before the next; 0: the policy's", (0, 1000)
    )
    fade_steps: int = _field(5, "length of blend's cross-fade in steps", (0, 100))
    ensemble_coefficient: float = _field(
        0.01, "m of temporal_ensemble, where the checkpoint has none", (-10.0, 10.0)
    )
    guidance: str = _field(
        "gradient",
        "of rtc: by back-propagation, or a direct pull, which is cheaper",
        None,
        ("gradient", "pull"),
    )
    max_guidance: float = _field(5.0, "bound on rtc's guidance weight", (0.0, 100.0))
    allow_mismatch: bool = _field(False, "run although the rig's fingerprint differs")
    open_clutch: bool = _field(True, "open the leader's clutch when a run begins")
    stale_abort: float = _field(
        0.5, "streams may be missing so long before a run is given up [s]", (0.0, 60.0)
    )
    overrun_abort: float = _field(
        1.0, "the policy may leave the arm without action so long [s]", (0.0, 60.0)
    )
    ghost_ahead: float = _field(0.5, "how far ahead the ghost arm is [s]", (0.0, 10.0))


def declare(node: Node) -> PolicyParameters:
    """Declare all parameters read-only and return their values.

    Raises:
        ParameterError: A required one is empty, or a value is not among its choices.
    """
    values: dict[str, Any] = {}
    for item in fields(PolicyParameters):
        meta = item.metadata
        descriptor = ParameterDescriptor(description=meta["text"], read_only=True)
        if meta["bounds"] is not None:
            low, high = meta["bounds"]
            if isinstance(item.default, int):
                descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
            else:
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=low, to_value=high)
                ]
        value = node.declare_parameter(item.name, item.default, descriptor).value
        if meta["choices"] and value not in meta["choices"]:
            known = ", ".join(choice or '""' for choice in meta["choices"])
            raise ParameterError(item.name, value, f"one of {known}")
        if meta["required"] and not value:
            raise ParameterError(item.name, value, meta["text"])
        values[item.name] = value
    return PolicyParameters(**values)
