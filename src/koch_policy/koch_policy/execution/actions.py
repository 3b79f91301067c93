# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a policy's chunks mean on a rig: from its action space to joints, in one place.

Policy node, shadow mode, replay and lockstep evaluation all decode here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from koch_policy.chunks.chunk import RawRows, Rows
from koch_policy.configs import STATE
from koch_policy.execution.compatibility import action_codec, state_columns
from koch_policy.policy import Observation, Policy
from koch_rig.action_layout import ActionLayout
from koch_rig.action_space import ActionCodec, Decoded
from koch_rig.rig import Rig
from koch_rig.units import JointUnits


class Actions(Protocol):
    """What a chunk means; called by one thread."""

    def decode(self, raw: RawRows, observation: Observation) -> Decoded:
        """Return the joints [rad] of a chunk that was predicted from an observation.

        Raises:
            UnreachableTargetError: Its first row cannot be done.
        """
        ...

    def kept(self, raw: RawRows, rows: Rows) -> RawRows:
        """What of a chunk a later one can be told to continue."""
        ...

    def continued(self, kept: RawRows, observation: Observation) -> RawRows:
        """What was kept, in the policy's numbers, seen from a new observation."""
        ...


@dataclass(frozen=True)
class PlainActions:
    """Absolute joints: a chunk means the same wherever the arm is.

    Attributes:
        convert: The policy's units to [rad], or to what a replay compares in.
    """

    convert: Callable[[RawRows], Rows]

    def decode(self, raw: RawRows, observation: Observation) -> Decoded:
        """Convert the units."""
        return Decoded(self.convert(raw))

    def kept(self, raw: RawRows, rows: Rows) -> RawRows:
        """The chunk itself."""
        return raw

    def continued(self, kept: RawRows, observation: Observation) -> RawRows:
        """The chunk itself."""
        return kept


@dataclass(frozen=True, eq=False)
class SpaceActions:
    """Chunks of a space that hangs on the observed pose.

    Attributes:
        codec: The space.
        columns: Where its joints are in the observed state.
    """

    codec: ActionCodec
    columns: Sequence[int]

    def decode(self, raw: RawRows, observation: Observation) -> Decoded:
        """Decode, beginning at the observed pose."""
        return self.codec.decode(raw, self._observed(observation))

    def kept(self, raw: RawRows, rows: Rows) -> RawRows:
        """The joints [rad]: the chunk's own numbers hang on an observation that is over."""
        return rows.astype(np.float32)

    def continued(self, kept: RawRows, observation: Observation) -> RawRows:
        """Encode the joints again."""
        rows = kept.astype(np.float64)
        return self.codec.encode(rows, self._observed(observation)).astype(np.float32)

    def _observed(self, observation: Observation) -> NDArray[np.float64]:
        """The newest step's joints in dataset units."""
        state = np.asarray(observation[STATE], np.float64)
        newest: NDArray[np.float64] = state.reshape(-1, state.shape[-1])[-1]
        return newest[list(self.columns)]


def policy_actions(
    policy: Policy, rig: Rig, units: Mapping[str, JointUnits], layout: ActionLayout
) -> Actions:
    """What a policy's chunks mean on a rig that it fits (`check_policy`)."""
    codec = action_codec(policy, layout, units)
    if not codec.space.needs_state:
        return PlainActions(lambda raw: codec.decode(raw, None).rows)
    return SpaceActions(codec, state_columns(policy, rig, layout))
