# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Normalisation of observations and actions, elementwise affine, as LeRobot's processors do it.

    MEAN_STD   (x - mean) / (std + 1e-8)          inverse  x std + mean
    MIN_MAX    2 (x - min) / (max - min) - 1      inverse  (x + 1) / 2 (max - min) + min
    QUANTILES, QUANTILE10: MIN_MAX with q01 and q99, q10 and q90.

Nothing is clipped. A feature whose mode is IDENTITY passes through. Statistics that are absent or
have no range are refused: they would silently change the scale of what the network sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from koch_policy.configs import FeatureType, NormalizationMode, PolicyConfig, PolicyFeature
from koch_policy.errors import StatisticsError

Statistics = Mapping[str, Mapping[str, Tensor]]
"""{feature: {statistic: float32 tensor}}; image statistics have shape (3, 1, 1)."""

EPS = 1e-8
IMAGENET = {
    "mean": torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1),
    "std": torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1),
}
_BOUNDS = {
    NormalizationMode.MEAN_STD: ("mean", "std"),
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}


class ZeroRange(Enum):
    """What to do with a dimension that never moved in the dataset.

    CONSTANT gives the network what LeRobot gives it for the constant itself (0 by mean and std, -1
    by bounds), whatever the value is, and restores the constant.
    """

    REFUSE = "refuse"
    CONSTANT = "constant"


@dataclass(frozen=True, eq=False)
class Affine:
    """One feature's map: normalised = x * scale + shift, restored = x * back_scale + back_shift.

    The inverse is kept apart because LeRobot's 1e-8 is only in the forward direction. For
    vectors normalised = (x - centre) * scale + offset is the exact form: a joint that hardly moves
    far from zero has a scale so large that x * scale loses the digits that shift takes away again.
    """

    scale: Tensor
    shift: Tensor
    back_scale: Tensor
    back_shift: Tensor
    centre: Tensor | None = None
    offset: float = 0.0

    def to(self, device: torch.device) -> Affine:
        """Return the same map on a device."""
        return Affine(
            self.scale.to(device),
            self.shift.to(device),
            self.back_scale.to(device),
            self.back_shift.to(device),
            None if self.centre is None else self.centre.to(device),
            self.offset,
        )

    def apply(self, value: Tensor) -> Tensor:
        """Normalise a value."""
        if self.centre is None:
            return value * self.scale + self.shift
        return (value - self.centre) * self.scale + self.offset


class Normalizer:
    """The maps of all features of one policy.

    Raises:
        StatisticsError: A statistic that a mode needs is missing, has another shape than the
            feature, is not finite, or spans no range while `zero_range` is REFUSE.
    """

    def __init__(
        self,
        features: Mapping[str, PolicyFeature],
        modes: Mapping[str, NormalizationMode],
        statistics: Statistics,
        *,
        where: str,
        zero_range: ZeroRange = ZeroRange.REFUSE,
    ) -> None:
        self.maps: dict[str, Affine] = {}
        for key, feature in features.items():
            mode = modes.get(feature.type.value, NormalizationMode.IDENTITY)
            if mode is not NormalizationMode.IDENTITY:
                low, high = _pair(key, feature, mode, statistics, where)
                self.maps[key] = _affine(key, mode, low, high, where, zero_range)

    def to(self, device: torch.device) -> Normalizer:
        """Move the maps to a device, in place."""
        self.maps = {key: affine.to(device) for key, affine in self.maps.items()}
        return self

    def normalize(self, key: str, value: Tensor) -> Tensor:
        """Normalise one feature; the feature's shape is the trailing dimensions of the value."""
        affine = self.maps.get(key)
        return value if affine is None else affine.apply(value)

    def restore(self, key: str, value: Tensor) -> Tensor:
        """Undo `normalize` for one feature."""
        affine = self.maps.get(key)
        return value if affine is None else value * affine.back_scale + affine.back_shift


def _pair(
    key: str,
    feature: PolicyFeature,
    mode: NormalizationMode,
    statistics: Statistics,
    where: str,
) -> tuple[Tensor, Tensor]:
    """Return the two float64 statistics that a mode needs, checked."""
    available = statistics.get(key, {})
    names = _BOUNDS[mode]
    found = []
    for name in names:
        value = available.get(name)
        if value is None:
            raise StatisticsError(
                where,
                key,
                f"lack {name!r}, which {mode.value} needs (there: {sorted(available) or 'none'})",
                "Write the statistics of the dataset into the checkpoint, or train again.",
            )
        value = value.double()
        if feature.type is FeatureType.VISUAL and value.numel() == feature.shape[0]:
            value = value.reshape(-1, 1, 1)
        elif tuple(value.shape) != feature.shape:
            raise StatisticsError(
                where,
                key,
                f"have shape {tuple(value.shape)} for {name!r}, the feature has {feature.shape}",
                "The statistics belong to another dataset.",
            )
        if not bool(value.isfinite().all()):
            raise StatisticsError(
                where, key, f"hold NaN or infinity in {name!r}", "Clean the dataset, train again."
            )
        found.append(value)
    return found[0], found[1]


def _affine(
    key: str,
    mode: NormalizationMode,
    low: Tensor,
    high: Tensor,
    where: str,
    zero_range: ZeroRange,
) -> Affine:
    """Build the map from mean and std, or from the two bounds."""
    spread = high if mode is NormalizationMode.MEAN_STD else high - low
    flat = spread <= 0
    if bool(flat.any()) and zero_range is ZeroRange.REFUSE:
        raise StatisticsError(
            where,
            key,
            f"span no range in element(s) {flat.flatten().nonzero().flatten().tolist()} "
            f"({mode.value})",
            "A value that never moves teaches nothing: leave it out of the features, or pass "
            'zero_range="constant" (command line: --zero-range constant).',
        )
    safe = torch.where(flat, torch.ones_like(spread), spread)
    if mode is NormalizationMode.MEAN_STD:
        scale, back, offset = 1.0 / (safe + EPS), safe, 0.0
        restored = low
    else:
        scale, back, offset = 2.0 / safe, safe / 2.0, -1.0
        restored = low + safe / 2.0
    zero = torch.zeros_like(scale)
    scale = torch.where(flat, zero, scale)
    return Affine(
        scale=scale.float(),
        shift=(offset - low * scale).float(),
        back_scale=torch.where(flat, zero, back).float(),
        back_shift=torch.where(flat, low, restored).float(),
        centre=low.float(),
        offset=offset,
    )


def normalizer_for(
    config: PolicyConfig,
    statistics: Statistics,
    *,
    where: str,
    zero_range: ZeroRange = ZeroRange.REFUSE,
) -> Normalizer:
    """Build the normaliser of a policy from its configuration and statistics."""
    features = {**config.input_features, **config.output_features}
    return Normalizer(
        features, config.normalization_mapping, statistics, where=where, zero_range=zero_range
    )
