# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What `/diagnostics` says, as the page needs it: a list of what must be well before a start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from koch_rig.rig import Rig

_GONE_S = 5.0  # a diagnostic comes once a second
_LITTLE_MIN = 30  # of recording: less is a session that may end early
_OK, _WARN, _ERROR = 0, 1, 2
_LIGHTS = {_OK: "green", _WARN: "amber", _ERROR: "red"}


@dataclass(frozen=True)
class _Said:
    """What a node said of one thing."""

    level: int
    text: str
    values: Mapping[str, str]
    at_s: float


class StreamLights:
    """Remembers the newest diagnostic of each thing.

    Args:
        rig: What there must be.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._said: dict[str, _Said] = {}

    def hear(
        self, name: str, level: int, text: str, values: Mapping[str, str], now_s: float
    ) -> None:
        """Take a diagnostic."""
        self._said[name] = _Said(level, text, values, now_s)

    def hears(self, arm: str, now_s: float) -> bool:
        """Whether an arm's node lives."""
        return self._newest(f"{arm}: bus", now_s) is not None

    def said_of(self, name: str, now_s: float) -> str:
        """What was said of late of a thing, empty where nothing was."""
        said = self._newest(name, now_s)
        return "" if said is None else said.text

    def temperatures(self, arm: str, now_s: float) -> Mapping[str, float]:
        """Temperature of each motor that was heard of lately, by joint [deg C]."""
        start = f"{arm}: motor "
        found: dict[str, float] = {}
        for name, said in self._said.items():
            if name.startswith(start) and now_s - said.at_s < _GONE_S:
                celsius = _number(said.values, "temperature_c")
                if celsius is not None:
                    found[name[len(start) :]] = celsius
        return found

    def camera(self, name: str, now_s: float) -> Mapping[str, Any]:
        """Light, rate and reason of a camera."""
        said = self._newest(_camera(name), now_s)
        if said is None:
            return {"light": "red", "text": _SILENT}
        values: dict[str, Any] = {"light": _LIGHTS.get(said.level, "red"), "text": said.text}
        rate_hz, age_ms = _number(said.values, "rate [Hz]"), _number(said.values, "age [ms]")
        if rate_hz is not None:
            values["rate_hz"] = rate_hz
        if age_ms is not None:
            values["age_s"] = round(1e-3 * age_ms, 1)
        return values

    def checks(self, now_s: float) -> list[Mapping[str, str]]:
        """What must be well before a start, each with its light, and the fix where it is not.

        Arms and cameras of the rig must be heard of. Of everything else, what complains is shown.
        """
        must = {f"arm {arm}": (f"{arm}: bus", _ARM_FIX) for arm in self._rig.arms}
        must |= {f"camera {name}": (_camera(name), _CAMERA_FIX) for name in self._rig.cameras}
        found = [self._check(what, name, now_s, fix) for what, (name, fix) in must.items()]
        told = tuple(name for name, _ in must.values())
        for name, said in sorted(self._said.items()):
            if said.level != _OK and now_s - said.at_s < _GONE_S and not name.endswith(told):
                found.append(_item(name, said.level, said.text, _fix_of(name)))
        return found

    def _newest(self, end: str, now_s: float) -> _Said | None:
        """What was said of late of a thing whose name ends so; a namespace may stand before it."""
        for name, said in self._said.items():
            if name.endswith(end) and now_s - said.at_s < _GONE_S:
                return said
        return None

    def _check(self, what: str, name: str, now_s: float, fix: str) -> Mapping[str, str]:
        said = self._newest(name, now_s)
        if said is None:
            return _item(what, _ERROR, _SILENT, "Start it with `koch up`.")
        return _item(what, said.level, said.text, fix)


def checks_of_nodes(
    episode: Mapping[str, Any] | None, policy: Mapping[str, Any] | None
) -> list[Mapping[str, str]]:
    """What recorder and policy say of themselves. A start without them is possible: no light."""
    if episode is None:
        fix = "To record, start one: `koch up --record`."
        found: list[Mapping[str, str]] = [
            {"what": "recorder", "light": "", "text": "none runs", "fix": fix}
        ]
    else:
        minutes = episode["disk_minutes"]
        level = _OK if minutes < 0 or minutes >= _LITTLE_MIN else _WARN if minutes > 1 else _ERROR
        text = f"room for {minutes} min of recording" if minutes >= 0 else "not known yet"
        found = [_item("disk", level, text, "Move or delete old episodes and datasets.")]
    if policy is None:
        fix = "Choose one under Policy, or start `koch up --policy DIR`."
        return [*found, {"what": "policy", "light": "", "text": "none is loaded", "fix": fix}]
    level = _WARN if policy["state"] in ("loading", "aborted") else _OK
    text = ": ".join(filter(None, (policy["state"], policy["reason"])))
    return [*found, _item("policy", level, text, "Run tries again; Log says more.")]


def _camera(name: str) -> str:
    return f"cameras/{name}: stream"


def _number(values: Mapping[str, str], key: str) -> float | None:
    """A value, None where there is none: NaN is what a node says of a motor that is silent.

    JSON has no NaN: a browser would refuse the whole state because of one.
    """
    try:
        value = float(values[key])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _fix_of(name: str) -> str:
    """What helps where the complaint itself does not say it."""
    for end, fix in _FIXES.items():
        if name.endswith(end):
            return fix
    return ""


_SILENT = "its node says nothing"
_ARM_FIX = "Look at cable and power; `koch doctor` names the ports."
_CAMERA_FIX = "Look at the cable; `koch cameras` shows what every camera sees."
_FIXES = {
    ": guard": "Press Torque on, then Resume.",
    ": streams and disk": "A stream must live and the disk have room before an episode can start.",
}


def _item(what: str, level: int, text: str, fix: str) -> Mapping[str, str]:
    light = _LIGHTS.get(level, "red")
    return {"what": what, "light": light, "text": text, "fix": "" if light == "green" else fix}
