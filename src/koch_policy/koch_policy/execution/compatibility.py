# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Does a checkpoint fit this rig, and what do its actions mean on it?

Compared by name, size, unit and rate, with readable answers. Policy node, shadow mode, replay and
lockstep evaluation bring chunks to joints by what `policy_actions` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from koch_core.registry import UnknownKindError
from koch_policy.chunks.chunk import RawRows, Rows
from koch_policy.configs import ACTION, ENVIRONMENT, STATE, FeatureType
from koch_policy.errors import PolicyError
from koch_policy.policy import Observation, Policy
from koch_rig.action_layout import ACTION_SPACES, JOINT, ActionLayout
from koch_rig.fingerprint import canonical, fingerprint, plain_difference
from koch_rig.rig import Rig
from koch_rig.stream import StreamKind
from koch_rig.units import JointUnits, Units

if TYPE_CHECKING:
    from koch_rig.action_space import ActionCodec

# Keys of the rig's canonical form that may change between recording and running.
_HARMLESS = ("limits.", "streams.", "simulation.", "features.")


class MismatchError(PolicyError):
    """A checkpoint does not fit the rig."""

    def __init__(self, policy: str, rig: Rig, lines: list[str]) -> None:
        shown = "".join(f"\n  {line}" for line in lines)
        super().__init__(
            f"{policy} does not fit the rig {rig.name!r} ({rig.path}):{shown}\n"
            "Run it on the rig it was trained for, change the rig file, or train again."
        )
        self.lines = lines


def dataset_keys(policy: Policy) -> dict[str, list[str]]:
    """Rig features that feed each input of the policy (several are joined; renames undone)."""
    rename: Mapping[str, str] = getattr(policy, "rename", {})
    original = {new: old for old, new in rename.items()}
    return {
        key: list(policy.extras.parts.get(key, [original.get(key, key)]))
        for key, feature in policy.config.input_features.items()
        if feature.type is FeatureType.VISUAL or key in (STATE, ENVIRONMENT)
    }


def action_layout(policy: Policy, rig: Rig) -> ActionLayout:
    """Whose joints a policy's actions move on this rig.

    Raises:
        ArmChoiceError: The rig does not say it.
    """
    return ActionLayout.of_rig(rig, policy.extras.parts.get(ACTION, [ACTION]))


def policy_units(policy: Policy) -> Units:
    """Units of states and actions; LeRobot's where the checkpoint does not say."""
    return Units(policy.extras.units or Units.LEROBOT.value)


def action_codec(
    policy: Policy, layout: ActionLayout, units: Mapping[str, JointUnits] | None = None
) -> ActionCodec:
    """In which numbers a policy says its actions.

    Raises:
        UnknownKindError: Nothing registers its space.
    """
    space = ACTION_SPACES[policy.extras.action_space]
    codec: ActionCodec = space.codec(layout, units or {}, policy_units(policy))
    return codec


def state_columns(policy: Policy, rig: Rig, layout: ActionLayout) -> list[int]:
    """Where a policy's `observation.state` holds the joints that it moves; empty: nowhere."""
    if STATE not in policy.config.input_features:
        return []
    names = [_plain(name) for name in policy.extras.names.get(STATE, [])]
    if not names and STATE in rig.features:
        names = list(ActionLayout.of_streams(rig, rig.features[STATE].streams).names)
    return [names.index(name) for name in layout.names] if {*layout.names} <= {*names} else []


class Actions(Protocol):
    """What a chunk means; called by one thread."""

    def decode(self, raw: RawRows, observation: Observation) -> tuple[Rows, str]:
        """Return the joints [rad] of a chunk that was predicted from an observation.

        The chunk ends before the first row that cannot be done; the text says why, or is empty.

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

    def decode(self, raw: RawRows, observation: Observation) -> tuple[Rows, str]:
        """Convert the units."""
        return self.convert(raw), ""

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

    def decode(self, raw: RawRows, observation: Observation) -> tuple[Rows, str]:
        """Decode, beginning at the observed pose."""
        decoded = self.codec.decode(raw, self._observed(observation))
        return decoded.rows, str(decoded.trouble or "")

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
    if policy.extras.action_space == JOINT:
        kind = policy_units(policy)
        return PlainActions(lambda raw: layout.to_rad(units, kind, raw))
    return SpaceActions(action_codec(policy, layout, units), state_columns(policy, rig, layout))


def executed_actions(
    policy: Policy, units: Mapping[str, JointUnits], layout: ActionLayout, actions: Actions
) -> Callable[[Rows, Observation], RawRows]:
    """How joints (T, J) in [rad] are said in a policy's numbers, seen from an observation."""
    if isinstance(actions, SpaceActions):
        return lambda rows, seen: actions.continued(rows.astype(np.float32), seen)
    kind = policy_units(policy)
    return lambda rows, _: layout.rad_to(units, kind, rows).astype(np.float32)


def differences(
    policy: Policy, rig: Rig, layout: ActionLayout | None = None
) -> tuple[list[str], list[str]]:
    """Compare what a policy needs with what a rig gives.

    Args:
        policy: The loaded policy.
        rig: The rig.
        layout: Whose joints it is to move; None: those of the rig's feature `action`.

    Returns:
        What forbids running, and what is merely worth a warning; readable lines.
    """
    layout = layout or action_layout(policy, rig)
    wrong = [*_action(policy, rig, layout), *_inputs(policy, rig)]
    notes = []
    units, fps = policy.extras.units, policy.extras.fps
    if units and units not in [each.value for each in Units]:
        wrong.append(f"units: {units!r}, known are {', '.join(each.value for each in Units)}")
    if fps and abs(fps - rig.fps) > 1e-6:
        wrong.append(f"fps: the policy's actions are {fps:g} per second, the rig's are {rig.fps}")
    if not fps:
        notes.append(f"the checkpoint does not tell its fps; the rig's {rig.fps} is assumed")
    if not units:
        notes.append("the checkpoint does not tell its units; LeRobot's -100..100 is assumed")
    own = policy.extras.fingerprint
    if own and own != fingerprint(rig):
        hard, soft = _fingerprints(policy, rig)
        wrong += hard
        notes += soft
    return wrong, notes


def check_policy(
    policy: Policy,
    rig: Rig,
    where: str,
    *,
    allow: bool = False,
    layout: ActionLayout | None = None,
) -> list[str]:
    """Refuse a policy that does not fit.

    Args:
        policy: The loaded policy.
        rig: The rig.
        where: Checkpoint path for the message.
        allow: Run although the fingerprints differ; what cannot work is refused all the same.
        layout: Whose joints it is to move; None: those of the rig's feature `action`.

    Returns:
        Notes for the log.

    Raises:
        MismatchError: It does not fit.
    """
    wrong, notes = differences(policy, rig, layout)
    if allow:
        tolerated = [line for line in wrong if line.startswith("rig: ")]
        notes += tolerated
        wrong = [line for line in wrong if line not in tolerated]
    if wrong:
        raise MismatchError(where, rig, wrong)
    return notes


def _action(policy: Policy, rig: Rig, layout: ActionLayout) -> list[str]:
    width = policy.config.action_dim
    lines, space, expected = [], policy.extras.action_space, layout.names
    if space != JOINT:
        try:
            codec = action_codec(policy, layout)
        except UnknownKindError as exc:
            return [str(exc)]
        expected = codec.names
    if space != JOINT and not state_columns(policy, rig, layout):
        lines.append(
            f"action space {space}: begins at the observed pose, and the policy's "
            f"{STATE} does not hold {', '.join(layout.names)}"
        )
    if width != len(expected):
        lines.append(f"action: {width} values, {_owners(layout)} ({', '.join(expected)})")
    return lines + _names(policy, ACTION, expected)


def _owners(layout: ActionLayout) -> str:
    """Say how many joints there are."""
    if len(layout.arms) == 1:
        return f"the arm has {layout.width} joints"
    return f"the arms {' and '.join(layout.arms)} have {layout.width} joints"


def _names(policy: Policy, key: str, expected: tuple[str, ...]) -> list[str]:
    """Compare element names; LeRobot writes joints as `shoulder_pan.pos`."""
    given = [name.rpartition("/")[2] for name in policy.extras.names.get(key, [])]
    plain = tuple(map(_plain, given))
    unnamed = all(name.startswith(key) for name in given)  # made up from the key: no statement
    if not given or unnamed or plain == expected:
        return []
    return [f"{key}: names are {', '.join(plain)}; the rig's are {', '.join(expected)}"]


def _plain(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".pos").removeprefix("main_")


def _inputs(policy: Policy, rig: Rig) -> list[str]:
    lines = []
    sources = dataset_keys(policy)
    for key, feature in policy.config.input_features.items():
        missing = [name for name in sources.get(key, []) if name not in rig.features]
        if key not in sources:
            lines.append(f"{key}: the policy wants this {feature.type.value}, nothing provides it")
        elif missing:
            have = ", ".join(name for name in rig.features if name != ACTION) or "none"
            lines.append(f"{', '.join(missing)}: not among the rig's features ({have})")
        elif feature.type is FeatureType.VISUAL:
            (stream,) = rig.features[sources[key][0]].streams  # an image has one: load_rig
            lines += _camera(policy, key, feature.shape, stream, rig)
        elif sources[key] == [STATE] and _has_joints_alone(rig, STATE):
            layout = ActionLayout.of_streams(rig, rig.features[STATE].streams)
            width = layout.width + len(policy.extras.angles.get(key, {}))
            if feature.shape != (width,):
                lines.append(f"{key}: {feature.shape[0]} values, {_owners(layout)}")
            lines += _names(policy, key, layout.names)
    return lines


def _has_joints_alone(rig: Rig, key: str) -> bool:
    kinds = {rig.streams[stream].kind for stream in rig.features[key].streams}
    return kinds == {StreamKind.JOINTS}


def _camera(policy: Policy, key: str, shape: tuple[int, ...], stream: str, rig: Rig) -> list[str]:
    content = rig.content_of(stream)
    name = content.source
    if content.kind is not StreamKind.IMAGE or not name:
        return [f"{key}: its stream {stream} is not a camera of the rig"]
    camera = rig.cameras[name]
    wanted = (shape[2], shape[1])
    same_size = wanted == (camera.width, camera.height)
    if key in policy.extras.crops and same_size:  # an image of that size counts as cropped
        return [f"{key}: the policy sees a part of the image, camera {name} gives no more pixels"]
    if same_size or policy.extras.runtime.get("resize"):
        return []
    return [
        f"{key}: the policy was trained with {wanted[0]}x{wanted[1]} images, "
        f"camera {name} gives {camera.width}x{camera.height}"
    ]


def _fingerprints(policy: Policy, rig: Rig) -> tuple[list[str], list[str]]:
    """What differs from the rig of the data, where the checkpoint tells; limits only warn."""
    trained: Mapping[str, Any] | None = getattr(policy.extras, "rig", None)
    if not trained:
        return [
            f"rig: fingerprint {fingerprint(rig)[:23]}..., the policy's data came from "
            f"{policy.extras.fingerprint[:23]}... (allow_mismatch runs it all the same)"
        ], []
    lines = plain_difference(trained, canonical(rig))
    soft = [f"rig: {line}" for line in lines if line.startswith(_HARMLESS)]
    hard = [f"rig: {line}" for line in lines if not line.startswith(_HARMLESS)]
    return hard, soft
