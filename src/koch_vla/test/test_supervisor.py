# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The supervisor with real processes: exit codes, respawn, staged stop, nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import koch_vla
from koch_vla.errors import ExecutableNotFoundError
from koch_vla.node_spec import NodeSpec
from koch_vla.supervisor import StopTimes, Supervisor

OBEDIENT = """
import signal, sys, time
def end(*_):
    print("bye", flush=True); sys.exit(0)
signal.signal(signal.SIGINT, end)
print("up", flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""
QUICK = StopTimes(interrupt_s=0.3, terminate_s=0.3)


class Run:
    """A supervisor in a thread, with its lines and the wait for one of them."""

    def __init__(self, specs, stop_times=QUICK):
        self.lines = []
        self._news = threading.Condition()
        self.supervisor = Supervisor(
            specs,
            report=self._report,
            stop_times=stop_times,
            command=lambda spec, folder: [sys.executable, *spec.arguments],
        )
        self.code = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        self.code = self.supervisor.run()

    def _report(self, spec, line):
        with self._news:
            self.lines.append((spec.name, line))
            self._news.notify_all()

    def wait_for(self, name, text, count=1, timeout_s=10.0):
        def seen():
            return sum(n == name and text in line for n, line in self.lines) >= count

        with self._news:
            assert self._news.wait_for(seen, timeout_s), f"{name}: {text!r} not in {self.lines}"

    def join(self, timeout_s=10.0):
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"still running: {self.lines}"
        return self.code


def test_all_nodes_ending_well_end_the_run_with_zero(script):
    run = Run([script("a", "print('one'); print('two', end='')"), script("b", "print('three')")])
    assert run.join() == 0
    assert ("a", "one") in run.lines
    assert ("a", "two") in run.lines  # a last line without its newline is not lost
    assert ("b", "three") in run.lines


def test_first_failure_ends_the_others_and_gives_the_exit_code(script):
    run = Run([script("good", OBEDIENT), script("bad", "import time; time.sleep(.5); exit(7)")])
    assert run.join() == 7
    assert ("good", "bye") in run.lines


def test_death_by_signal_gives_the_shells_exit_code(script):
    run = Run([script("bad", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")])
    assert run.join() == 128 + signal.SIGSEGV
    assert any("SIGSEGV" in line for _, line in run.lines)


def test_a_stop_ends_obedient_nodes_with_zero(script):
    run = Run([script("a", OBEDIENT), script("b", OBEDIENT)])
    run.wait_for("a", "up")
    run.wait_for("b", "up")
    run.supervisor.stop()
    assert run.join() == 0
    assert {("a", "bye"), ("b", "bye")} <= set(run.lines)


def test_a_stubborn_node_is_killed_after_two_warnings(script):
    run = Run([script("mule", STUBBORN)])
    run.wait_for("mule", "up")
    started = time.monotonic()
    run.supervisor.stop()
    assert run.join() == 128 + signal.SIGKILL
    assert 0.6 <= time.monotonic() - started < 3.0
    said = [line for _, line in run.lines]
    assert any("SIGTERM" in line for line in said)
    assert any("SIGKILL" in line for line in said)


def test_a_second_stop_does_not_wait_for_the_patience_to_end(script):
    times = StopTimes(interrupt_s=30.0, terminate_s=30.0, same_s=0.05)
    run = Run([script("mule", STUBBORN)], times)
    run.wait_for("mule", "up")
    for _ in range(3):
        run.supervisor.stop()
        time.sleep(0.1)
    assert run.join(5.0) == 128 + signal.SIGKILL


def test_two_stops_at_once_are_one(script):
    slow = OBEDIENT.replace('print("bye"', 'time.sleep(.4); print("bye"')
    run = Run(
        [script("world", OBEDIENT), script("driver", slow, needs=("/world",))],
        StopTimes(interrupt_s=5.0, terminate_s=1.0),
    )
    run.wait_for("world", "up")
    run.wait_for("driver", "up")
    for _ in range(2):
        run.supervisor.stop()
        time.sleep(0.1)
    assert run.join() == 0
    assert run.lines.index(("driver", "bye")) < run.lines.index(("world", "bye"))


def test_a_node_stops_before_the_one_that_it_needs(script):
    slow = OBEDIENT.replace('print("bye"', 'time.sleep(.4); print("bye"')
    run = Run(
        [script("world", OBEDIENT), script("driver", slow, needs=("/world",))],
        StopTimes(interrupt_s=5.0, terminate_s=1.0),
    )
    run.wait_for("world", "up")
    run.wait_for("driver", "up")
    run.supervisor.stop()
    assert run.join() == 0
    assert run.lines.index(("driver", "bye")) < run.lines.index(("world", "bye"))


STARTING = """
import signal, sys, time
print("importing", flush=True)
time.sleep({import_s})
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: print("got", number) or sys.exit(0))
print("up", flush=True)
time.sleep(60)
"""


@pytest.mark.timing  # a process without its share of the processor is killed before it speaks
@pytest.mark.parametrize(
    ("package", "import_s", "sign", "said"),
    [
        ("koch_driver", 60, "importing", set()),  # ends silently by SIGTERM
        ("koch_driver", 0, "up", {"got 2"}),
        ("elsewhere", 60, "importing", {"KeyboardInterrupt"}),
        ("elsewhere", 0, "up", {"got 2"}),
    ],
)
def test_a_node_of_ours_that_is_interrupted_while_it_imports_is_silent(
    script, package, import_s, sign, said
):
    node = script("node", STARTING.format(import_s=import_s))
    run = Run([replace(node, package=package)])
    run.wait_for("node", sign)
    run.supervisor.stop()
    assert run.join() == 0
    assert {line for _, line in run.lines if "got" in line or "Interrupt" in line} == said


def test_a_killed_node_starts_again(script):
    source = OBEDIENT.replace('print("up"', 'import os; print(f"pid {os.getpid()}"')
    run = Run([script("a", source, respawn=True, respawn_delay_s=0.1)])
    run.wait_for("a", "pid")
    pid = int(next(line for _, line in run.lines if line.startswith("pid")).split()[1])
    os.kill(pid, signal.SIGKILL)
    run.wait_for("a", "pid", count=2)
    run.supervisor.stop()
    assert run.join() == 0
    assert any("SIGKILL" in line and "0.1 s" in line for _, line in run.lines)


def test_quick_failures_wait_longer_each_time(script):
    run = Run([script("a", "exit(1)", respawn=True, respawn_delay_s=0.05)])
    run.wait_for("a", "new start", count=4)
    run.supervisor.stop()
    assert run.join() == 0
    delays = [line.split("new start in ")[1] for _, line in run.lines if "new start" in line]
    assert delays[:4] == ["0.1 s", "0.1 s", "0.2 s", "0.4 s"]  # 0.05 0.1 0.2 0.4


def test_a_configuration_error_is_not_tried_again(script):
    run = Run([script("a", "exit(2)", respawn=True), script("b", OBEDIENT)])
    assert run.join() == 2
    assert not any("new start" in line for _, line in run.lines)


def test_a_node_that_ended_well_stays_down_and_the_others_go_on(script):
    run = Run([script("a", "exit(0)", respawn=True, respawn_delay_s=0.05), script("b", OBEDIENT)])
    run.wait_for("a", "it stays down")
    run.wait_for("b", "up")
    run.supervisor.stop()
    assert run.join() == 0
    assert not any("new start" in line for _, line in run.lines)


def test_a_grandchild_that_holds_the_pipe_does_not_hold_the_supervisor(script):
    source = "import subprocess; subprocess.Popen(['sleep', '60']); print('done')"
    run = Run([script("a", source)])
    assert run.join() == 0


def test_a_node_that_does_not_exist_stops_the_run_before_it_starts():
    spec = NodeSpec("koch_nowhere", "nothing", "nothing")
    supervisor = Supervisor([spec], report=lambda *_: None)
    with pytest.raises(ExecutableNotFoundError, match=r"koch_nowhere/nothing.*koch setup"):
        supervisor.run()


HOST = """
import sys
from koch_vla.node_spec import NodeSpec
from koch_vla.supervisor import Supervisor, stop_on_signals
specs = [NodeSpec("s", n, n, arguments=(p,)) for n, p in zip("ab", sys.argv[1:])]
supervisor = Supervisor(
    specs, report=lambda spec, line: print(spec.name, line, flush=True),
    command=lambda spec, folder: [sys.executable, *spec.arguments])
with stop_on_signals(supervisor):
    sys.exit(supervisor.run())
"""


@pytest.fixture
def host(tmp_path: Path):
    """Start a supervisor in a process of its own with two nodes; yields (process, node pids)."""
    source = "import os; print('pid', os.getpid(), flush=True)\n" + OBEDIENT
    paths = []
    for name in "ab":
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        paths.append(str(path))
    sources = Path(koch_vla.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(sources), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOST, *paths], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    pids, up = [], 0
    while len(pids) < 2 or up < 2:
        words = process.stdout.readline().split()
        assert words, "the host ended"
        pids += [int(words[2])] if words[1] == "pid" else []
        up += words[1] == "up"
    yield process, pids
    process.kill()
    process.communicate()


def gone(pid: int, timeout_s: float = 5.0) -> bool:
    """Wait for a process to end."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_supervisor_ends_the_nodes_well(host, number):
    process, pids = host
    process.send_signal(number)
    assert process.wait(10) == 0
    assert all(gone(pid) for pid in pids)


def test_nodes_end_with_a_killed_supervisor(host):
    process, pids = host
    process.kill()
    process.wait(10)
    assert all(gone(pid) for pid in pids)


def test_a_quiet_graph_costs_no_processor_time(host):
    process, _ = host

    def used_s() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before_s = used_s()
    time.sleep(1.0)
    assert used_s() - before_s <= 0.02
