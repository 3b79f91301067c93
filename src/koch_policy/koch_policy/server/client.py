# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A policy behind a policy server, as seen from here; and the server's process.

A server that dies or hangs is named as the cause of what follows, killed, and started again, with
longer pauses each time. Until it is back `predict` raises at once, so that a run can hold the arm.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from koch_core.image import fit_rgb
from koch_policy.configs import (
    ACTION,
    FeatureType,
    NormalizationMode,
    PolicyConfig,
    PolicyFeature,
)
from koch_policy.errors import PolicyError, PolicyUnavailableError, RuntimeChoiceError
from koch_policy.metadata import CheckpointMetadata, metadata_from
from koch_policy.policy import Observation
from koch_policy.server.lerobot import PLACEHOLDER
from koch_policy.server.protocol import PROTOCOL, Channel, LateError, LinkError, ProtocolError
from koch_policy.server.remote import TOKEN, Address, RemoteServer
from koch_rig.fingerprint import plain_difference

LOAD_S = 300.0
_DEADLINE_S = 2.0
_WARM_UPS_PER_DEADLINE = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_MOST_LINES, _LINE = 6, 120
_LOGGER = logging.getLogger(__name__)


class ServedPolicyError(PolicyError):
    """The server could not do what it was asked for; its text says why."""

    def __init__(self, server: str, text: str) -> None:
        super().__init__(f"policy server ({server}): {text}")


class Server(Protocol):
    """The other end of a policy server's connection.

    Attributes:
        name: For messages.
        load_s: It has so long to load the policy and to warm up [s].
        hung, again: What is said of one that does not answer, and of what is done about it.
        channel: The connection.
    """

    name: str
    load_s: float
    hung: str
    again: str
    channel: Channel

    def fate(self) -> str:
        """What became of it; empty where that is not known."""
        ...

    def close(self) -> None:
        """Give it up; idempotent."""
        ...


class ServerProcess:
    """A policy server of our own, on the other end of a socket that only we two have.

    Args:
        command: Starts it; `--fd N` is added.
        environment: The process's environment.
    """

    load_s = LOAD_S
    hung = "it hangs and is ended"
    again = "it is being started again"

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        with theirs:
            # A session of its own: Ctrl-C is for the node, which takes the server along.
            self._process = subprocess.Popen(
                [*command, "--fd", str(theirs.fileno())],
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
        self.channel = Channel(ours)
        self.pid = self._process.pid
        self.name = f"process {self.pid}"

    def fate(self) -> str:
        """What became of the process; empty while it lives."""
        try:
            code = self._process.wait(0.2)  # a closed socket is seen before the end of its owner
        except subprocess.TimeoutExpired:
            return ""
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return f"ended with code {code}" + (f": {self._last_line()}" if code else "")

    def close(self) -> None:
        """End the process, also one that is stopped; idempotent."""
        self.channel.close()
        self._process.kill()  # it holds nothing that wants to be put away
        self._process.wait()
        self._log.close()

    def _last_line(self) -> str:
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4000))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing"


class ServedPolicy:
    """A policy in a server; see `koch_policy.policy.Policy` for the interface.

    Args:
        start: Starts the server, or connects to one.
        deadline_s: It is taken for hung after so long [s]; None: five times its warm-up, and 2 s
            at least.
        token: What the server asks for.
        takes_jpegs: Images go there as the cameras sent them; else they are cut and resized here,
            because a foreign server knows nothing of that.

    Attributes:
        config: Features and steps of the policy; the rest of its configuration stays the server's.
        extras: What the checkpoint's koch.json says, if it is there.
        runtime: Name of the runtime.
        rename: {name of the rig: name of the policy}.
        trouble: Why it cannot answer now; empty while it can.
        restarts: How often the server was started again.

    Raises:
        ServedPolicyError: It cannot serve this policy.
        PolicyUnavailableError: It ended, or said nothing, while it loaded.
    """

    def __init__(
        self,
        start: Callable[[], Server],
        *,
        deadline_s: float | None = None,
        token: str = "",
        takes_jpegs: bool = False,
    ) -> None:
        self._start = start
        self._token = token
        self.takes_jpegs = takes_jpegs
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._closing = threading.Event()
        self._server: Server | None = None
        self._name = ""
        self.trouble = ""
        self.restarts = 0
        self._pause_s = _FIRST_PAUSE_S
        self._about = self._connect()
        self.rename: dict[str, str] = dict(self._about["rename"])
        self.config = foreign_config(self._about["config"])
        said = self._about["metadata"]
        self.extras = metadata_from(said, "koch.json") if said else CheckpointMetadata()
        self.runtime = str(self._about["runtime"])
        warm_up_s = float(self._about["warm_up_s"])
        self.deadline_s = deadline_s or max(_DEADLINE_S, _WARM_UPS_PER_DEADLINE * warm_up_s)

    @property
    def pid(self) -> int:
        """Process of a server of our own, 0 while there is none."""
        server = self._server
        return getattr(server, "pid", 0)

    def require_names(self, names: Mapping[str, Sequence[str]]) -> None:
        """Accept any names: foreign checkpoints carry none, and the run compares them."""

    def predict(
        self, observation: Observation, *, noise: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return a chunk (T, A) in dataset units.

        Raises:
            PolicyUnavailableError: The server is gone, hung or starting.
            ServedPolicyError: It cannot use this observation.
        """
        message: dict[str, Any] = {
            "kind": "predict",
            "observation": self._prepared(observation),
            "within_s": self.deadline_s,
        }
        if noise is not None:
            message["noise"] = noise
        actions = self._ask(message, "chunk").get("actions")
        if not isinstance(actions, np.ndarray):
            raise ServedPolicyError(self._about["server"], "its chunk holds no actions")
        self._pause_s = _FIRST_PAUSE_S
        return np.array(actions, np.float32)

    def observe(self, observation: Observation) -> None:
        """Take in one tick's observation."""
        self._ask({"kind": "observe", "observation": self._prepared(observation)}, "done")

    def reset(self) -> None:
        """Forget all history; waits for a server that is being started again."""
        self._ready.wait(LOAD_S)
        self._ask({"kind": "reset"}, "done")

    def close(self) -> None:
        """End the server; idempotent."""
        self._closing.set()
        with self._lock:
            server, self._server, self.trouble = self._server, None, "it was closed"
        if server is not None:
            server.close()

    def _prepared(self, observation: Observation) -> dict[str, Any]:
        """Cut and resize images as our training did; it also keeps the messages small."""
        if self.takes_jpegs:
            return dict(observation)
        result, sources = dict(observation), {new: old for old, new in self.rename.items()}
        for key, (_, height, width) in self.config.cameras.items():
            name = sources.get(key, key)
            image = result.get(name)
            if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim >= 3:
                crop, resizes = self.extras.crops.get(key), self.extras.runtime.get("resize")
                result[name] = fit_rgb(image, height, width, crop=crop, resizes=bool(resizes))
        return result

    def _ask(self, message: Mapping[str, Any], expected: str) -> dict[str, Any]:
        with self._lock:
            server = self._server
        if server is None:
            raise PolicyUnavailableError(self.trouble)
        try:
            answer = server.channel.ask(message, self.deadline_s)
            if answer["kind"] not in (expected, "error"):
                raise ProtocolError(f"a message {answer['kind']!r}", expected)
        except LinkError as exc:
            self._lose(server, exc)
            raise PolicyUnavailableError(self.trouble) from exc
        if answer["kind"] == "error":
            raise ServedPolicyError(self._about["server"], str(answer.get("text")))
        return answer

    def _connect(self) -> dict[str, Any]:
        """Start a server and wait until it has loaded the policy; what it says of itself."""
        server = self._start()
        finalizer = weakref.finalize(self, server.close)
        try:
            hello = {"kind": "hello", "protocol": PROTOCOL, "token": self._token}
            about = server.channel.ask(hello, server.load_s)
            _check_welcome(about)
        except LinkError as exc:
            text = _cause(server, exc)
            finalizer()
            raise PolicyUnavailableError(text) from exc
        except BaseException:
            finalizer()
            raise
        with self._lock:
            self._server, self._name, self.trouble = server, server.name, ""
        self._ready.set()
        return about

    def _lose(self, server: Server, exc: LinkError) -> None:
        """Give a server up and begin to start another."""
        text = _cause(server, exc)
        server.close()
        with self._lock:
            if self._server is not server:  # closed by us
                return
            self._server = None
            self.trouble = f"{text}; {server.again}"
        self._ready.clear()
        _LOGGER.error("%s", self.trouble)
        threading.Thread(target=self._restart, name="policy server", daemon=True).start()

    def _restart(self) -> None:
        while not self._closing.wait(self._pause_s):
            self._pause_s = min(2.0 * self._pause_s, _LONGEST_PAUSE_S)
            try:
                about = self._connect()
            except PolicyError as exc:
                self.trouble = f"{exc}; the next attempt is in {self._pause_s:.0f} s"
                _LOGGER.error("%s", self.trouble)
                continue
            self.restarts += 1
            if self._closing.is_set():
                self.close()
            elif lines := _changes(self._about, about):
                self.close()
                self.trouble = (
                    f"the checkpoint has changed under the run ({'; '.join(lines)}): start the "
                    "policy again"
                )
                _LOGGER.error("%s", self.trouble)
            else:
                _LOGGER.warning("the policy server is back (%s)", self._name)
            return


def _cause(server: Server, exc: LinkError) -> str:
    """Say what happened to a server."""
    if isinstance(exc, LateError):
        return (
            f"the policy server ({server.name}) has not answered for {exc.deadline_s:.1f} s: "
            f"{server.hung}"
        )
    return f"the policy server ({server.name}) {server.fate() or f'is gone: {exc}'}"


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a server says of its policy that it did not say before, in a few lines."""
    parts = ("config", "metadata", "rename")
    lines = plain_difference(*({part: each[part] for part in parts} for each in (before, now)))
    more = len(lines) - _MOST_LINES
    short = [line if len(line) <= _LINE else line[:_LINE] + "..." for line in lines[:_MOST_LINES]]
    return [*short, f"and {more} more"] if more > 0 else short


def _check_welcome(about: Mapping[str, Any]) -> None:
    """Raise unless this is the welcome of a server that we can talk to.

    Raises:
        ServedPolicyError: It refuses.
        ProtocolError: It is something else.
    """
    if about["kind"] == "error":
        raise ServedPolicyError("starting", str(about.get("text")))
    kinds = {"config": dict, "metadata": dict, "rename": dict, "runtime": str, "server": str}
    wrong = [key for key, kind in kinds.items() if not isinstance(about.get(key), kind)]
    if about["kind"] != "welcome" or about.get("protocol") != PROTOCOL or wrong:
        got = f"{about['kind']!r} of protocol {about.get('protocol')!r}"
        lacks = f" without {', '.join(wrong)}" if wrong else ""
        raise ProtocolError(got + lacks, f"a welcome of protocol {PROTOCOL}")


class ForeignConfig(PolicyConfig):
    """A policy that is not ours."""

    @property
    def horizon_steps(self) -> int:
        """Steps of one chunk."""
        return self.n_action_steps


def foreign_config(content: Mapping[str, Any]) -> PolicyConfig:
    """Describe a policy of another kind by its features alone."""

    def features(name: str) -> dict[str, PolicyFeature]:
        return {
            key: PolicyFeature(FeatureType(value["type"]), tuple(value["shape"]))
            for key, value in content[name].items()
            if PLACEHOLDER not in key
        }

    names = ("chunk_size", "n_action_steps", "action_chunk_size")
    steps = next((int(content[name]) for name in names if content.get(name)), 1)
    return ForeignConfig(
        input_features=features("input_features"),
        output_features={ACTION: features("output_features")[ACTION]},
        normalization_mapping={
            key: NormalizationMode(value)
            for key, value in content.get("normalization_mapping", {}).items()
        },
        n_obs_steps=int(content.get("n_obs_steps", 1)),
        n_action_steps=steps,
    )


def lerobot_python() -> str:
    """Return the Python that has LeRobot.

    The first of KOCH_LEROBOT_PYTHON, the environment of `./koch setup --with lerobot`, and this
    one.

    Raises:
        RuntimeChoiceError: There is none.
    """
    named = os.environ.get("KOCH_LEROBOT_PYTHON", "").split(os.pathsep)[0]
    made = Path(os.environ.get("KOCH_ROOT", "."), ".venv-lerobot", "bin", "python")
    if named and not Path(named).exists():
        raise RuntimeChoiceError(
            "lerobot", f"KOCH_LEROBOT_PYTHON names {named!r}, which is not there", "Correct it."
        )
    if named or made.exists():
        return named or str(made)
    if find_spec("lerobot") is not None:
        return sys.executable
    raise RuntimeChoiceError(
        "lerobot",
        "LeRobot is not installed",
        "Run ./koch setup --with lerobot, or name a Python that has it in KOCH_LEROBOT_PYTHON",
    )


def remote_policy(address: str) -> ServedPolicy:
    """Connect to the policy of a `koch serve`.

    Args:
        address: tcp://HOST:PORT or tls://HOST:PORT.

    Raises:
        RuntimeChoiceError: That is no address.
        PolicyError: No one answers there, or does not let us in.
    """
    where = Address.parsed(address)
    return ServedPolicy(
        lambda: RemoteServer(where), token=os.environ.get(TOKEN, ""), takes_jpegs=True
    )


def serve_lerobot(
    policy: str, *, device: str = "auto", threads: int | None = None
) -> ServedPolicy:
    """Start LeRobot's own Python on a policy.

    Args:
        policy: Checkpoint folder, or a name on the Hub.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads of torch there; None: its own choice.

    Raises:
        RuntimeChoiceError: There is no LeRobot.
        PolicyError: It cannot load the policy.
    """
    python, packages = lerobot_python(), tempfile.TemporaryDirectory(prefix="koch_lerobot_")
    command = [python, "-m", "koch_policy.server.lerobot", "--policy", policy]
    command += ["--device", device, "--threads", str(threads or 0)]
    environment = server_environment(Path(packages.name), threads)
    served = ServedPolicy(lambda: ServerProcess(command, environment))
    weakref.finalize(served, packages.cleanup)
    if served.extras.angles:
        served.close()
        raise RuntimeChoiceError(
            "lerobot", "knows no angles as sine and cosine (koch.json)", "Use torch or openvino"
        )
    return served


def server_environment(folder: Path, threads: int | None) -> dict[str, str]:
    """What LeRobot's Python sees: its own packages, and the three that the server consists of.

    msgpack is lent with them: where its compiled part does not fit that Python, its own fallback
    in Python does. Nothing else of our environment may shadow what is installed there.
    """
    for name in ("koch_core", "koch_policy", "msgpack"):
        spec = find_spec(name)
        assert spec is not None  # imported above
        assert spec.submodule_search_locations  # a package
        (folder / name).symlink_to(next(iter(spec.submodule_search_locations)))
    environment = dict(os.environ)
    own = environment.pop("VIRTUAL_ENV", None)
    for name in ("PYTHONHOME", "AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH"):
        environment.pop(name, None)
    libraries = environment.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    kept = [path for path in libraries if path and not (own and path.startswith(own))]
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(kept)
    environment["PYTHONPATH"] = str(folder)
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment
