# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of koch_policy: each leaf builds its own message (what, where, got, expected, advice)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from koch_core.errors import KochError
from koch_core.options import UnknownKey
from koch_episodes.errors import DatasetError as DatasetError

_SHOWN = 8


def _listing(names: Iterable[str]) -> str:
    """Join names for a message; long lists are cut after eight."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + more


class PolicyError(KochError):
    """Root of this package's errors."""


class ConfigError(PolicyError):
    """A policy or training configuration is not valid.

    Args:
        where: The file, or the option of the command line.
        key: What of it; empty where it is the whole.
        got: Its value.
        expected: What it may be.
        advice: A sentence more.
    """

    def __init__(self, where: str, key: str, got: object, expected: str, advice: str = "") -> None:
        tail = f" {advice}" if advice else ""
        said = f"`{key}` is" if key else "got"
        super().__init__(f"{where}: {said} {got!r}; expected {expected}.{tail}")


class UnknownPolicyError(PolicyError):
    """The checkpoint's or the command line's policy type is not one of ours."""

    def __init__(self, name: str, where: str, known: Iterable[str]) -> None:
        super().__init__(
            f"{where}: unknown policy type {name!r}; expected one of {_listing(known)}. Any other "
            'LeRobot policy runs through runtime="lerobot" where that package is installed.'
        )


class UnknownKeysError(PolicyError):
    """A file holds keys that no code reads."""

    def __init__(self, where: str, keys: Iterable[str], known: Iterable[str]) -> None:
        super().__init__(
            f"{where}: unknown key(s) {_listing(keys)}; known are {', '.join(sorted(known))}. "
            "Correct the spelling or remove them."
        )


def config_refusal(where: str) -> Callable[[str, object, str, str], PolicyError]:
    """What makes the error of a wrong value or key in a file of configuration."""

    def refuse(key: str, got: object, expected: str, hint: str = "") -> PolicyError:
        if isinstance(got, UnknownKey):
            return UnknownKeysError(where, [key], got.known)
        return ConfigError(where, key, got, expected, hint)

    return refuse


class CheckpointError(PolicyError):
    """A checkpoint folder cannot be read."""

    def __init__(self, path: Path, what: str, advice: str) -> None:
        super().__init__(f"{path}: {what}. {advice}")


class PickleRefusedError(CheckpointError):
    """A pickle was offered where safetensors are required."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            "this is a pickled file, which can run code while it is read; refused",
            "Save the weights as model.safetensors (safetensors.torch.save_file) on a machine "
            "that trusts the file.",
        )


class WeightsMismatchError(CheckpointError):
    """Weights and configuration describe different networks."""

    def __init__(
        self, path: Path, missing: Iterable[str], unexpected: Iterable[str], shapes: Sequence[str]
    ) -> None:
        missing, unexpected = list(missing), list(unexpected)
        parts = []
        if missing:
            parts.append(f"{len(missing)} key(s) missing: {_listing(missing)}")
        if unexpected:
            parts.append(f"{len(unexpected)} unexpected key(s): {_listing(unexpected)}")
        if shapes:
            parts.append(f"{len(shapes)} wrong shape(s): {_listing(shapes)}")
        super().__init__(
            path,
            "the weights do not fit config.json: " + "; ".join(parts),
            "Take config.json and model.safetensors from the same training run.",
        )


class StatisticsError(PolicyError):
    """Normalisation statistics are missing, misshapen, not finite or have zero range."""

    def __init__(self, where: str, feature: str, problem: str, advice: str) -> None:
        super().__init__(f"{where}: statistics of {feature!r} {problem}. {advice}")


class ObservationError(PolicyError):
    """An observation does not fit the policy."""

    def __init__(self, key: str, got: object, expected: str, advice: str = "") -> None:
        tail = f" {advice}" if advice else ""
        super().__init__(f"observation {key!r}: got {got}; expected {expected}.{tail}")


class LayoutError(PolicyError):
    """Named vectors differ in names or order."""

    def __init__(self, where: str, got: Sequence[str], expected: Sequence[str]) -> None:
        super().__init__(
            f"{where}: names are [{', '.join(got)}]; expected [{', '.join(expected)}], in this "
            "order. Values are never matched by position; reorder or re-train."
        )


class RuntimeChoiceError(PolicyError):
    """The asked runtime cannot run here."""

    def __init__(self, runtime: str, why: str, advice: str) -> None:
        super().__init__(f"runtime {runtime!r}: {why}. {advice}")


class PolicyUnavailableError(PolicyError):
    """A policy cannot answer now; it may do so later. Its text says why."""


class NotFiniteError(PolicyError):
    """A network returned NaN or infinity."""

    def __init__(self, where: str, count: int, advice: str) -> None:
        super().__init__(f"{where}: {count} value(s) are NaN or infinite. {advice}")


class StrategyError(PolicyError):
    """A chunk execution strategy cannot be used."""

    def __init__(self, strategy: str, got: str, expected: str) -> None:
        super().__init__(f"strategy {strategy!r}: got {got}; expected {expected}.")
