# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a bad network costs a policy on another computer: success and stalls, beside a local one.

    python benchmarks/measure_remote.py --policy DIR [--rollouts 50] [--links cable,...] [--json F]

A real `koch serve` in a process of its own, real sockets, the table in lockstep: an inference
takes as long in the world as the question and its answer took on the clock. Between the two is a
relay of this file: it delays, keeps to a rate and cuts. It sees a stream, not packets: a lost
packet becomes the wait that TCP's retransmission makes of it, and after a cut data come with the
first retransmission of TCP's doubling schedule. `--netem` takes the kernel's own impairments
between two network namespaces instead (root, and a kernel with sch_netem).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import secrets
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from koch_core.trials import wilson_interval
from koch_policy.errors import PolicyUnavailableError
from koch_policy.files import resolve_checkpoint
from koch_policy.runtime import load_policy
from koch_policy.server.remote import TOKEN
from koch_sim.rollout import PolicyRollouts
from koch_sim.settings import LockstepSettings

SEGMENT_BYTES = 1448
LEAST_RTO_S = 0.2  # Linux
CUT_AT_REQUEST = 3  # of a rollout: the arm is on its way
TICK_S = 1.0 / 30.0
TIMEOUT_S = 30.0
NAMESPACE, NEAR, FAR = "koch_far", "koch_near0", "koch_far0"
NEAR_IP, FAR_IP = "198.18.0.1", "198.18.0.2"  # RFC 2544: for benchmarks


@dataclass(frozen=True)
class Link:
    """One way of a link; the other is the same.

    Attributes:
        delay_s, jitter_s: Each piece comes that late, more or less by up to the jitter.
        loss: Part of the packets that are lost.
        bits_per_s: Rate; 0 for none.
        cut_s: Once in a rollout nothing passes for so long.
        patience_s: The run's overrun_abort.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    bits_per_s: float = 0.0
    cut_s: float = 0.0
    patience_s: float = 1.0

    def netem(self) -> list[str]:
        """The same for `tc`."""
        words = ["delay", f"{1e3 * self.delay_s:g}ms", f"{1e3 * self.jitter_s:g}ms"]
        if self.loss:
            words += ["loss", f"{100 * self.loss:g}%"]
        if self.bits_per_s:
            words += ["rate", f"{self.bits_per_s:.0f}bit"]
        return words


LINKS = {
    "cable": Link(),
    "delay-5": Link(0.005),
    "delay-20": Link(0.020),
    "delay-80": Link(0.080),
    "jitter": Link(0.080, 0.040),
    "loss-1": Link(0.020, loss=0.01),
    "loss-5": Link(0.020, loss=0.05),
    "rate-10": Link(0.005, bits_per_s=10e6),
    "cut-10": Link(0.005, cut_s=10.0),
    "cut-10-patient": Link(0.005, cut_s=10.0, patience_s=15.0),
}


class Relay:
    """A TCP relay that is as bad as a link."""

    def __init__(self, port: int, link: Link, seed: int) -> None:
        self._far_port, self._link = port, link
        self._draw = np.random.default_rng(seed)
        self._cut_until_s = 0.0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing pass for the link's `cut_s` from now."""
        self._cut_until_s = time.monotonic() + self._link.cut_s

    def close(self) -> None:
        """Accept no one any more."""
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._socket.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._far_port))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for one, other in ((near, far), (far, near)):
                pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                threading.Thread(target=self._read, args=(one, pieces), daemon=True).start()
                threading.Thread(target=self._write, args=(other, pieces), daemon=True).start()

    def _read(self, one: socket.socket, pieces: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        link, free_s, due_s = self._link, 0.0, 0.0
        data = b"x"
        while data:
            try:
                data = one.recv(65536)
            except OSError:
                data = b""
            rate = link.bits_per_s
            free_s = max(time.monotonic(), free_s) + (8 * len(data) / rate if rate else 0.0)
            jitter_s = link.jitter_s * self._draw.uniform(-1.0, 1.0)
            # TCP delivers in order: what comes late holds up all that follows.
            due_s = max(due_s, free_s + link.delay_s + jitter_s + self._stall_s(len(data)))
            pieces.put((due_s, data))

    def _stall_s(self, size: int) -> float:
        """How long TCP waits for what was lost of so many bytes."""
        count = -(-size // SEGMENT_BYTES)
        round_trip_s, stall_s = 2.0 * self._link.delay_s, 0.0
        for index in np.flatnonzero(self._draw.random(count) < self._link.loss):
            # Three later packets tell the sender; at the end of a message only its timer does.
            rto_s = round_trip_s + LEAST_RTO_S
            stall_s += round_trip_s if count - index > 3 else rto_s
            while self._draw.random() < self._link.loss:  # and lost again
                stall_s, rto_s = stall_s + rto_s, 2.0 * rto_s
        return stall_s

    def _write(self, other: socket.socket, pieces: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        while True:
            due_s, data = pieces.get()
            time.sleep(max(0.0, due_s - time.monotonic()))
            since_s = time.monotonic()
            wait_s = LEAST_RTO_S
            while time.monotonic() < self._cut_until_s:
                time.sleep(max(0.0, since_s + wait_s - time.monotonic()))
                wait_s = 2.0 * wait_s + LEAST_RTO_S
            try:
                if not data:
                    other.shutdown(socket.SHUT_WR)
                    return
                other.sendall(data)
            except OSError:
                return


class NetemLink:
    """The kernel's own impairments between this namespace and one of the server's."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.address = ""
        self._impair(link.netem())

    @staticmethod
    def open() -> None:
        """Make the namespace and the cable to it."""
        NetemLink.remove()
        far = f"ip -n {NAMESPACE}"
        for line in (
            f"ip netns add {NAMESPACE}",
            f"ip link add {NEAR} type veth peer name {FAR} netns {NAMESPACE}",
            f"ip addr add {NEAR_IP}/30 dev {NEAR}", f"ip link set {NEAR} up",
            f"{far} addr add {FAR_IP}/30 dev {FAR}", f"{far} link set {FAR} up",
            f"{far} link set lo up",
        ):  # fmt: skip
            _do(line.split())

    @staticmethod
    def remove() -> None:
        """Take namespace and cable away."""
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=False, capture_output=True)

    def cut(self) -> None:
        """Lose everything for the link's `cut_s` from now."""
        self._impair(["loss", "100%"])
        threading.Timer(self._link.cut_s, self._impair, [self._link.netem()]).start()

    def close(self) -> None:
        """Leave the link as it is."""

    def _impair(self, words: list[str]) -> None:
        for prefix, device in ((["tc"], NEAR), (["tc", "-n", NAMESPACE], FAR)):
            _do([*prefix, "qdisc", "replace", "dev", device, "root", "netem", *words])


def _do(words: list[str]) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip()
        hint = "--netem needs root and a kernel with sch_netem; without it the relay is used."
        NetemLink.remove()
        raise SystemExit(f"{' '.join(words)}: {said}. {hint}")


class Paced:
    """The remote policy, for a world that must not run ahead of the clock while it waits."""

    def __init__(self, policy: Any, link: Relay | NetemLink, *, cuts: bool) -> None:
        self._policy, self._relay, self._cuts, self._asked = policy, link, cuts, 0
        self.round_trips_s: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def reset(self) -> None:
        """Begin a rollout, with a link that is there."""
        self._asked = 0
        while True:
            try:
                self._policy.reset()
            except PolicyUnavailableError:
                time.sleep(TICK_S)
            else:
                return

    def predict(self, observation: Any, *, noise: Any = None) -> Any:
        """Ask; where the answer is that no one is there, let a tick pass."""
        self._asked += 1
        if self._cuts and self._asked == CUT_AT_REQUEST:
            self._relay.cut()
        begin = time.monotonic()
        try:
            chunk = self._policy.predict(observation, noise=noise)
        except PolicyUnavailableError:
            time.sleep(max(0.0, TICK_S - (time.monotonic() - begin)))
            raise
        self.round_trips_s.append(time.monotonic() - begin)
        return chunk


def start_server(policy: Path, *, in_namespace: bool) -> tuple[subprocess.Popen[str], int]:
    """`koch serve` and its port."""
    words = ["-m", "koch_vla", "serve", "--policy", str(policy), "--runtime", "torch"]
    words = [sys.executable, *words, "--port", "0", "--threads", "1"]
    if in_namespace:
        words = ["ip", "netns", "exec", NAMESPACE, *words, "--bind", FAR_IP]
    server = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=dict(os.environ)
    )
    assert server.stdout is not None
    for line in server.stdout:
        if " at tcp://" in line:
            return server, int(line.rpartition(":")[2])
    raise SystemExit(f"koch serve ended with code {server.wait()}")


def measure(policy: Any, link: Link, seeds: range) -> dict[str, Any]:
    """Roll out over the seeds; what came of it."""
    rollouts = PolicyRollouts(LockstepSettings(), policy, TIMEOUT_S)
    rollouts.settings = replace(rollouts.settings, delay_s=None, overrun_abort_s=link.patience_s)
    trials, stalls = [], []
    for seed in seeds:
        trials.append(rollouts(seed))
        stalls.append(rollouts.stalled_s)
    rollouts.lockstep.close()
    wins = sum(trial.success for trial in trials)
    reasons = sorted({t.reason.partition(":")[0] for t in trials if not t.success})
    times_s = [t.duration_s for t in trials if t.success]
    return {
        "rollouts": len(trials),
        "success": wins,
        "interval": wilson_interval(wins, len(trials)),
        "stall_mean_s": float(np.mean(stalls)),
        "stall_most_s": max(stalls),
        "duration_median_s": float(np.median(times_s)) if times_s else None,
        "failures": reasons,
    }


def remote(name: str, options: argparse.Namespace, port: int, seeds: range) -> dict[str, Any]:
    """Measure one link."""
    link = LINKS[name]
    way: Relay | NetemLink
    if options.netem:
        way = NetemLink(link)
        way.address = f"tcp://{FAR_IP}:{port}"
    else:
        way = Relay(port, link, options.seed)
    policy = Paced(load_policy(way.address), way, cuts=link.cut_s > 0)
    row = measure(policy, link, seeds)
    trips_ms = 1e3 * np.quantile(policy.round_trips_s, (0.5, 0.95))
    policy.close()
    way.close()
    return {**row, "round_trip_ms": [round(float(each), 1) for each in trips_ms], **asdict(link)}


def show(name: str, row: dict[str, Any]) -> None:
    """Print one line of the table."""
    low, high = row["interval"]
    trips = row.get("round_trip_ms", ["-", "-"])
    print(
        f"{name:15} {row['success']:3}/{row['rollouts']:<3} [{low:.2f}, {high:.2f}]  "
        f"round trip {trips[0]}/{trips[1]} ms  stalls {row['stall_mean_s']:.2f} s, at most "
        f"{row['stall_most_s']:.2f} s  {row['duration_median_s'] or 0:.1f} s  {row['failures']}",
        flush=True,
    )


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--policy", type=Path, required=True, help="checkpoint")
    parser.add_argument("--rollouts", type=int, default=50, help="for each link")
    parser.add_argument("--seed", type=int, default=40_000, help="first set-up")
    parser.add_argument("--links", default=",".join(["local", *LINKS]), help="which, by name")
    parser.add_argument("--netem", action="store_true", help="the kernel's impairments")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    unknown = set(options.links.split(",")) - {"local", *LINKS}
    if unknown or options.rollouts < 1:
        parser.error(f"--links {', '.join(unknown)}: choose from local, {', '.join(LINKS)}")
    return options


def main() -> None:
    """Print a table; write the same as JSON where asked."""
    options = parsed()
    folder = resolve_checkpoint(options.policy)
    seeds = range(options.seed, options.seed + options.rollouts)
    os.environ[TOKEN] = secrets.token_hex(16)
    rows: dict[str, Any] = {}
    if options.netem:
        NetemLink.open()
    server, port = start_server(folder, in_namespace=options.netem)
    try:
        for name in options.links.split(","):
            if name == "local":
                here = load_policy(folder, "torch", full_horizon=True, threads=1)
                rows[name] = measure(here, Link(), seeds)
            else:
                rows[name] = remote(name, options, port, seeds)
            show(name, rows[name])
    finally:
        server.kill()
        server.wait()
        if options.netem:
            NetemLink.remove()
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "links": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
