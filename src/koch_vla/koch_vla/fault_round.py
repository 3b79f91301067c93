# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch bench faults`: every fault that can be injected, one after the other, on a running graph.

The graph is the real one under `koch up` with recorder, teleoperation and a camera. The arms are
servos emulated byte for byte on pseudo-terminals, the camera an MJPEG stream; the nodes take them
for hardware. What a MuJoCo world can break is broken there as well. For each fault the round notes
when a cause was named, and which; what the arm did; what was lost; and whether the graph was well
again afterwards.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koch_core.command_line import from_command_line
from koch_core.options import OptionModel, option, same_as
from koch_core.terminal import say
from koch_driver.emulator.faults import HARDWARE_ERRORS
from koch_vla.bench import NOTE, OUTPUT
from koch_vla.machine import machine

if TYPE_CHECKING:
    from koch_vla.nodes.fault_bench import BenchOfFaults, FaultBench
    from koch_vla.nodes.simulated_bench import SimulatedBench

EMULATED, SIMULATED = "emulated", "simulated"
_CAUSE_TIMEOUT_S = 8.0
_QUIET_S = 8.0
_SHOWN = 180


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: servo, bus, supply, usb, camera, process, disk, clock or sender.
        name: For the table.
        inject: Breaks it.
        cause: Regular expression that the message naming the cause must match, on /diagnostics
            ("name: message") or in the log of `koch up`. Empty: nothing needs to be said, because
            the fault is absorbed.
        heal: Repairs it, beyond what is always repaired after a fault.
        seconds: How long it lasts at least.
        rig: EMULATED or SIMULATED.
    """

    kind: str
    name: str
    inject: Callable[[Any], None]
    cause: str = ""
    heal: Callable[[Any], None] = lambda bench: None
    seconds: float = 2.0
    rig: str = EMULATED


@dataclass(frozen=True)
class FaultResult:
    """What became of one fault: a row of the table."""

    kind: str
    fault: str
    cause_s: float | None
    said: str
    arm: str
    lost: str
    well_again_s: float | None
    rig: str = EMULATED


def faults() -> list[Fault]:
    """The round, in an order in which the gentle ones come first."""
    emulated = [_senders(), _bus(), _servos(), _supply(), _usb(), _cameras(), _processes()]
    return [fault for kind in (*emulated, _simulated()) for fault in kind]


def _bus() -> list[Fault]:
    rows = []
    # A cycle of 10 ms retries inside its budget, so a small share of bad packets is absorbed.
    for share, cause in ((0.01, ""), (0.1, ""), (0.6, "follower: bus.*(cycle|answer|cable|bad)")):
        for name, text in (("drop", "lost"), ("corrupt_crc", "damaged"), ("truncate", "cut off")):
            rows.append(
                Fault("bus", f"{share:.0%} of the answers {text}", _arm(name, share), cause)
            )
    rows += [
        Fault("bus", "10% of the answers twice", _arm("duplicate", 0.1)),
        Fault("bus", "10% of the answers behind noise", _arm("noise", 0.1)),
        Fault("bus", "10% of the answers 20 ms late", _arm("delay", 0.1, 0.02)),
        Fault(
            "bus", "every answer 16 ms late (latency timer)", _arm("delay", 1.0, 0.016),
            "follower: bus.*(late|latency)", seconds=3.0,
        ),
    ]  # fmt: skip
    return rows


def _servos() -> list[Fault]:
    rows = []
    for joint, error, said in (
        ("shoulder_lift", "overload", "overload"),
        ("elbow_flex", "overheating", "overheat|temperature|°C|degrees"),
        ("wrist_flex", "input_voltage", "voltage"),
        ("wrist_roll", "electrical_shock", "electrical|shock|short"),
        ("shoulder_pan", "encoder", "encoder"),
        ("gripper", "overload", "overload"),
    ):
        assert error in HARDWARE_ERRORS
        cause = f"{joint}.*({said})"
        rows.append(
            Fault("servo", f"{joint} shuts down: {error}", _arm("trip", joint, error), cause)
        )
    for number, joint in ((1, "shoulder_pan"), (4, "wrist_flex"), (6, "gripper")):
        rows.append(
            Fault(
                "servo",
                f"{joint} does not answer",
                _arm("silence", number),
                f"follower: bus.*{joint}",
            )
        )
    rows += [
        Fault("servo", "elbow_flex at 75 degrees", _arm("temperature", "elbow_flex", 75.0),
              "elbow_flex.*(hot|°C|degrees|temperature)",
              lambda b: b.arm("temperature", "elbow_flex", None)),
        Fault("servo", "elbow_flex is held by hand", lambda b: b.hold("elbow_flex"),
              "", lambda b: b.arm("hold", "elbow_flex", None)),
        Fault("servo", "the leader's elbow_flex does not answer",
              lambda b: b.leader("silence", 3), "leader.*elbow_flex"),
        Fault("servo", "the leader's trigger shuts down: overload",
              lambda b: b.leader("trip", "gripper", "overload"), "leader.*gripper.*overload"),
        Fault("servo", "shoulder_lift restarts by itself", lambda b: b.restart("shoulder_lift"),
              "follower.*shoulder_lift.*restart", seconds=3.0),
        Fault("servo", "shoulder_pan loses its torque by itself",
              lambda b: b.limp("shoulder_pan"), "follower.*shoulder_pan", seconds=3.0),
    ]  # fmt: skip
    return rows


def _supply() -> list[Fault]:
    volts = "follower.*([Vv]olt|supply| V\\b)"
    power = "follower: bus.*(power|answer)"
    return [
        Fault("supply", "follower at 5 V", _arm("voltage", 5.0), volts, _arm("voltage", None)),
        Fault("supply", "follower at 16 V", _arm("voltage", 16.0), volts, _arm("voltage", None)),
        Fault("supply", "power away for 0.1 s", lambda b: b.blink("power", 0.1), "follower",
              seconds=3.0),
        Fault("supply", "power away for 3 s", _arm("power_cut"), power, seconds=3.0),
        Fault("supply", "the leader's power away for 3 s", lambda b: b.leader("power_cut"),
              "leader: bus|teleop", seconds=3.0),
    ]  # fmt: skip


def _usb() -> list[Fault]:
    gone = "follower: bus.*(gone|exist|USB|port)"
    return [
        Fault("usb", "plug out for 0.3 s", lambda b: b.blink("plug", 0.3), "follower: bus"),
        Fault("usb", "plug out for 3 s", _arm("unplug"), gone, seconds=3.0),
        Fault("usb", "the leader's plug out for 3 s", lambda b: b.leader("unplug"),
              "leader: bus|teleop", seconds=3.0),
    ]  # fmt: skip


def _cameras() -> list[Fault]:
    return [
        Fault("camera", f"images are {kind}", partial(_image, kind), f"cameras/above.*{said}",
              partial(_image, "good"), seconds=3.0)
        for kind, said in (
            ("frozen", "frozen"),
            ("black", "black"),
            ("of one colour", "one colour"),
            ("damaged inside, one in four", "damaged"),
            ("cut off, one in four", "damaged"),
            ("half as many", "fps"),
            ("of half the size", "got|size"),
            ("not coming", "no image|lost|time"),
        )
    ]  # fmt: skip


def _killed_and_hung(camera: str) -> list[Fault]:
    """Each process killed, and each that others wait for stopped for a while."""
    nodes = ("/follower/teleop", "/leader/driver", "/follower/driver", f"/cameras/{camera}",
             "/recorder")  # fmt: skip
    hung = (
        ("/follower/teleop", "guard.*teleop"),
        ("/leader/driver", "teleop.*no joint states of leader"),
        ("/follower/driver", "recorder.*follower"),
        (f"/cameras/{camera}", f"recorder.*{camera}"),
    )
    return [*map(_killed, nodes), *(_hung(node, cause) for node, cause in hung)]


def _killed(node: str) -> Fault:
    cause = f"{node.strip('/')}.*SIGKILL"
    return Fault("process", f"{node} killed", _kill(node), cause, seconds=4.0)


def _hung(node: str, cause: str) -> Fault:
    return Fault("process", f"{node} hangs for 3 s", _hang(node), cause, seconds=3.0)


def _processes() -> list[Fault]:
    rows = _killed_and_hung("above")
    rows += [_killed("/robot_state_publisher"), _hung("/recorder", "")]
    rows.append(
        Fault("disk", "full in the middle of an episode", lambda b: b.fill_disk(), "cannot write",
              lambda b: b.free_disk(), seconds=2.0)
    )  # fmt: skip
    return rows


def _senders() -> list[Fault]:
    refused = "guard refuses policy"
    return [
        Fault("sender", "falls silent", lambda b: b.send("silent"), "guard.*policy has sent no"),
        Fault("sender", "sends NaN", lambda b: b.send("nan"), f"{refused}.*(finite|nan)"),
        Fault("sender", "leaves a joint out", lambda b: b.send("names"), f"{refused}.*gripper"),
        Fault("clock", "of the sender 1 s behind", lambda b: b.send("old"), refused),
        Fault("clock", "of the sender 1 s ahead", lambda b: b.send("future"), refused),
        Fault("sender", "jumps by 1 rad", lambda b: b.send("jump"),
              "holds back.*(speed|acceleration|lead)"),
        Fault("sender", "commands below the table", lambda b: b.send("table"),
              "holds back.*workspace"),
        Fault("sender", "commands beyond the limits", lambda b: b.send("limits"),
              "holds back.*position"),
        Fault("sender", "sends 500 a second", lambda b: b.send("flood"), ""),
        Fault("sender", "there are two on one topic", lambda b: b.second_sender(),
              "several publishers", lambda b: b.one_sender(), seconds=3.0),
    ]  # fmt: skip


def _simulated() -> list[Fault]:
    """What the MuJoCo world can break, and its processes; the scripted expert drives."""
    rows = _killed_and_hung("left")
    rows += [_killed("/world"), _hung("/world", "follower: bus")]
    rows += [
        Fault(kind, name, partial(_switch_off, switch), cause, seconds=3.0)
        for kind, name, switch, cause in (
            ("supply", "power away for 3 s", "follower/power", "follower: bus.*motors 1, 2, 3"),
            ("supply", "the leader's power away for 3 s", "leader/power", "leader: bus"),
            ("usb", "plug out for 3 s", "follower/plug", "follower: bus"),
            ("usb", "the leader's plug out for 3 s", "leader/plug", "leader: bus"),
            ("camera", "images are not coming", "cameras/left/run", "cameras/left.*no image"),
        )
    ]
    rows.append(
        Fault("disk", "full in the middle of an episode", lambda b: b.fill_disk(), "cannot write",
              lambda b: b.free_disk(), seconds=2.0)
    )  # fmt: skip
    return [replace(row, rig=SIMULATED) for row in rows]


def _arm(action: str, *arguments: object) -> Callable[[Any], None]:
    return lambda bench: bench.arm(action, *arguments)


def _switch_off(name: str, bench: SimulatedBench) -> None:
    bench.switch_off(name)


def _image(kind: str, bench: FaultBench) -> None:
    bench.camera.kind = kind


def _kill(node: str) -> Callable[[Any], None]:
    return lambda bench: bench.kill(node)


def _hang(node: str) -> Callable[[Any], None]:
    return lambda bench: bench.hang(node, 3.0)


def run_fault(bench: BenchOfFaults, fault: Fault) -> FaultResult:
    """Inject one fault into a graph that is well, watch, and repair."""
    bench.drive_by("sender" if fault.kind in ("sender", "clock") else "leader")
    bench.recover()
    if fault.cause:
        bench.quiet(re.compile(fault.cause), _QUIET_S)
    bench.begin()
    begin_s = time.monotonic()
    fault.inject(bench)
    said, cause_s = "", None
    while (elapsed := time.monotonic() - begin_s) < _CAUSE_TIMEOUT_S:
        if cause_s is None and fault.cause:
            named = bench.named(re.compile(fault.cause))
            if named is not None:
                cause_s, said = named[0] - begin_s, named[1]
        if elapsed >= fault.seconds and (cause_s is not None or not fault.cause):
            break
        time.sleep(0.02)
    arm, lost = bench.arm_did(), bench.lost()
    fault.heal(bench)
    well_s = bench.recover()
    said = said.replace(f"{bench.folder}/run/", "")[:_SHOWN]
    return FaultResult(fault.kind, fault.name, cause_s, said, arm, lost, well_s, fault.rig)


def to_markdown(report: dict[str, Any]) -> str:
    """The section of docs/reliability.md."""
    computer = report["machine"]
    rows = [FaultResult(**row) for row in report["faults"]]
    named = [row.cause_s for row in rows if row.cause_s is not None]
    median = statistics.median(named) if named else 0.0
    silent = {(fault.rig, fault.kind, fault.name) for fault in faults() if not fault.cause}
    absorbed = sum((row.rig, row.kind, row.fault) in silent for row in rows)
    lines = [
        f"Measured on {report['date']}: {len(rows)} faults. The cause of {len(named)} was named, "
        f"half of them within {median:.1f} s, the last after {max(named, default=0.0):.1f} s; "
        f"{absorbed} are meant to be absorbed and have none to name. "
        f"{computer['processor']}, {computer['cores']} cores, load {computer['load before']} "
        f"before and {report['load_end']:.1f} after.",
        "",
    ]
    if report["note"]:
        lines += [report["note"], ""]
    lines += _table([row for row in rows if row.rig == EMULATED])
    simulated = [row for row in rows if row.rig == SIMULATED]
    if simulated:
        lines += [
            "",
            "On the simulated rig, a MuJoCo world in which the expert's hand drives:",
            "",
        ]
        lines += _table(simulated)
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[FaultResult]) -> list[str]:
    lines = [
        "| kind | fault | named after | what was said | the arm | lost | well again after |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cause = "" if row.cause_s is None else f"{row.cause_s:.1f} s"
        well = "**not**" if row.well_again_s is None else f"{row.well_again_s:.1f} s"
        said = row.said.replace("|", "\\|").replace("\n", " ")
        lines.append(
            f"| {row.kind} | {row.fault} | {cause} | {said} | {row.arm} | {row.lost} | {well} |"
        )
    return lines


def run(folder: Path, only: str = "", note: str = "") -> dict[str, Any]:
    """Run the round; the report so far is kept in the folder.

    Args:
        folder: For ptys, log, episodes, report.
        only: A regular expression over "rig kind fault"; empty for all.
        note: A sentence about the machine for the report.
    """
    # rclpy only where a graph runs
    from koch_vla.nodes.fault_bench import FaultBench
    from koch_vla.nodes.simulated_bench import SimulatedBench

    named = [(fault, f"{fault.rig} {fault.kind} {fault.name}") for fault in faults()]
    wanted = [fault for fault, name in named if re.search(only, name)]
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "note": note,
        "faults": [],
        "load_end": 0.0,
    }
    benches: dict[str, Callable[[Path], BenchOfFaults]] = {
        EMULATED: FaultBench,
        SIMULATED: SimulatedBench,
    }
    for rig, make in benches.items():
        rows = [fault for fault in wanted if fault.rig == rig]
        if not rows:
            continue
        place = folder / rig
        place.mkdir()
        with make(place) as bench:
            bench.recover()
            for fault in rows:
                outcome = run_fault(bench, fault)
                _say_row(outcome)
                report["faults"].append(asdict(outcome))
                report["load_end"] = os.getloadavg()[0]
                (folder / "faults.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    return report


def _say_row(row: FaultResult) -> None:
    after = "-" if row.cause_s is None else f"{row.cause_s:.2f} s"
    say(f"{row.kind:8} {row.fault:44} {after:8} {row.arm:30} {row.lost:24} {row.said}")


@dataclass(frozen=True, kw_only=True)
class FaultsOptions(OptionModel):
    """What `koch bench faults` is asked for."""

    only: str = option("", "faults to run, such as servo", metavar="REGEX")
    note: str = same_as(NOTE, "")
    output: Path = same_as(OUTPUT, Path("outputs/bench"))


def main(argv: Sequence[str]) -> int:
    """Run the command; 1 when a fault that has a cause was not named, or the graph not well."""
    options = from_command_line(
        FaultsOptions,
        "koch bench faults",
        "Inject every fault into the emulated rig, and into the simulated one "
        "what its world can break: what is said, done and lost.",
        argv,
    )
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="koch_faults_") as folder:
        report = run(Path(folder), options.only, options.note)
    (options.output / "faults.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    (options.output / "faults.md").write_text(to_markdown(report), encoding="utf-8")
    say(f"{options.output / 'faults.json'}\n{options.output / 'faults.md'}")
    causes = {(fault.rig, fault.kind, fault.name): fault.cause for fault in faults()}
    bad = [
        row
        for row in report["faults"]
        if row["well_again_s"] is None
        or (row["cause_s"] is None and causes[row["rig"], row["kind"], row["fault"]])
    ]
    return 1 if bad else 0
