# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""``koch calibrate latency [EPISODE]``: how late the cameras' stamps and the arm are.

Without an episode it wiggles a joint of the follower of the running graph (`koch up`), through the
guard. What it finds is written into the rig file: `offset_ms` of the cameras' streams, and the
arm's `delay_ms`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from koch_core.command_line import from_command_line
from koch_core.errors import DecodeError, KochError
from koch_core.files import write_atomically
from koch_core.image import grey_eighth, to_grey
from koch_core.options import OptionModel, option, same_as
from koch_core.terminal import complain, say
from koch_rig.load import load_rig
from koch_rig.model import default_rig
from koch_rig.rig import Arm, Rig
from koch_rig.rig_edit import with_arm_delay, with_stream_offset
from koch_rig.stream import camera_stream, image_topic
from koch_ros.shared_options import RIG
from koch_vla.latency import (
    Array,
    Latency,
    LatencyError,
    WiggleSeen,
    arm_delay,
    image_offset,
)

_LONGEST_SPREAD_S = 0.005


@dataclass(frozen=True, kw_only=True)
class CalibrateLatency(OptionModel):
    """What `koch calibrate latency` is asked for."""

    episode: Path | None = option(
        None, "episode or bag in which the arm moves (default: the running graph's arm is moved)",
        flags=("episode",), metavar="EPISODE",
    )  # fmt: skip
    rig: Path | None = same_as(RIG, None, text="rig file")
    arm: str | None = option(None, "follower (default: the rig's only one)", metavar="NAME")
    joint: str = option("shoulder_pan", "joint that is wiggled; all cameras must see it move")
    amplitude_rad: float = option(
        0.12, "how far it is wiggled to each side", above=0.0, high=0.3, metavar="RAD"
    )
    seconds: float = option(10.0, "how long it is wiggled", low=5.0, high=60.0, metavar="S")
    yes: bool = option(False, "no countdown before the arm moves", flags=("--yes", "-y"))
    dry_run: bool = option(False, "leave the rig file as it is")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand; 1 = something could not be told, 2 = nothing could be looked at."""
    words = list(sys.argv[1:] if argv is None else argv)
    options = from_command_line(CalibrateLatency, "koch calibrate latency", __doc__ or "", words)
    try:
        return _run(options)
    except KochError as exc:
        complain(str(exc))
        return 2


def _run(options: CalibrateLatency) -> int:
    path = default_rig(options.rig)
    rig = load_rig(path)
    arm = rig.follower if options.arm is None else rig.arm(options.arm)
    if options.joint not in arm.model.joints:
        known = ", ".join(arm.model.joints)
        raise LatencyError(f"--joint {options.joint}: expected one of {known}")
    if options.episode is not None:
        heard = _from_bag(options.episode, rig, arm)
    else:
        from koch_vla.nodes.wiggle import wiggled

        heard = wiggled(
            rig, arm, options.joint, options.amplitude_rad, options.seconds, ask=not options.yes
        )
    offsets, delay, unknown = _found(heard, arm)
    for line in unknown:
        complain(line)
    text = path.read_text(encoding="utf-8")
    for camera, offset in offsets.items():
        text = with_stream_offset(text, path, camera_stream(camera), _ms(offset))
    if delay is not None:
        text = with_arm_delay(text, path, arm.name, _ms(delay))
    if options.dry_run or (delay is None and not offsets):
        say(f"{path} is as it was")
    else:
        write_atomically(path, text)
        say(f"written into {path}")
    return 1 if unknown else 0


def _from_bag(path: Path, rig: Rig, arm: Arm) -> WiggleSeen:
    from koch_episodes import StampedBag, joint_vector, open_bag

    states, goals = f"/{arm.name}/joint_states", f"/{arm.name}/joint_command"
    cameras = {f"/{image_topic(name)}": name for name in rig.cameras}
    heard = WiggleSeen()
    with open_bag(path) as bag:
        if states not in bag.topics:
            there = ", ".join(sorted(bag.topics)) or "no topic"
            raise LatencyError(f"{path} has no {states}; it has {there}")
        topics = [topic for topic in (states, goals, *cameras) if topic in bag.topics]
        for message in StampedBag(bag, topics).messages():
            at_s, value = message.stamp_ns / 1e9, message.value
            if message.topic in cameras:
                seen = heard.images.setdefault(cameras[message.topic], [])
                seen.append((at_s, bytes(value.data)))
            else:
                angles = joint_vector(value.name, value.position, arm.topic_joints)
                kept = heard.states if message.topic == states else heard.goals
                kept.append((at_s, angles))
    return heard


def _found(heard: WiggleSeen, arm: Arm) -> tuple[dict[str, Latency], Latency | None, list[str]]:
    """Offsets by camera, the arm's delay, and what could not be told and why."""
    offsets, unknown = {}, []
    delay = None
    track = _series(heard.states, f"{arm.name}/joint_states")
    for camera, seen in heard.images.items():
        try:
            times_s, order = np.unique([at_s for at_s, _ in seen], return_index=True)
            images = np.stack([_small(seen[k][1]) for k in order])
            offsets[camera] = _steady(image_offset(times_s, images, track))
            say(f"{camera}: offset_ms {_told(offsets[camera])}")
        except (LatencyError, DecodeError) as exc:
            unknown.append(f"{camera}: {exc}")
    try:
        goals = _series(heard.goals, f"{arm.name}/joint_command")
        delay = _steady(arm_delay(goals, track))
        say(f"{arm.name}: delay_ms {_told(delay)}")
    except LatencyError as exc:
        unknown.append(f"{arm.name}: {exc}")
    return offsets, delay, unknown


def _series(samples: list[tuple[float, Array]], name: str) -> tuple[Array, Array]:
    """Times, strictly increasing, and values."""
    if len(samples) < 2:
        raise LatencyError(f"{len(samples)} messages of {name}; expected hundreds")
    times_s, order = np.unique([at_s for at_s, _ in samples], return_index=True)
    return times_s, np.array([samples[k][1] for k in order])


def _small(data: bytes) -> np.ndarray:
    """An image for looking at motion: grey, an eighth of its size where that is cheap."""
    if data[:2] == b"\xff\xd8":
        return grey_eighth(data)
    from koch_core.image import decode_image

    return to_grey(decode_image(data))[::8, ::8]


def _steady(latency: Latency) -> Latency:
    """Refuse what parts of the recording do not agree about."""
    if not latency.spread_s <= _LONGEST_SPREAD_S:
        raise LatencyError(
            f"{1e3 * latency.seconds:.1f} ms, but parts of the recording differ: standard error "
            f"{1e3 * latency.spread_s:.0f} ms, expected at most {1e3 * _LONGEST_SPREAD_S:.0f}; "
            "let the arm move more, or another joint"
        )
    return latency


def _ms(latency: Latency) -> float:
    return round(1e3 * latency.seconds, 1) + 0.0


def _told(latency: Latency) -> str:
    return (
        f"{_ms(latency):g} +- {1e3 * latency.spread_s:.1f} ms (the motion explains "
        f"{latency.fit_fraction:.0%})"
    )


if __name__ == "__main__":
    sys.exit(main())
