# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Runs rollouts on a running simulated graph and watches how they end."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import rclpy
from koch_interfaces.action import RunPolicy
from koch_interfaces.msg import GuardStatus, PolicyStatus, TaskState
from koch_interfaces.srv import ResetWorld
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, JointState
from std_srvs.srv import Trigger

from koch_episodes.clip import FPS
from koch_rig.stream import image_topic
from koch_sim.errors import SimulationError
from koch_sim.evaluation import LASTING_S, Success, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from koch_rig.rig import Rig

CALL_TIMEOUT_S = 20.0
#: After the end of a run the world gets this long to come to rest, [s].
REST_S = 0.5
#: The arm stands still below this, [rad/s], and is home when it did for HOME_STILL_S.
STILL_SPEED = 0.05
HOME_STILL_S = 0.5
HOME_TIMEOUT_S = 15.0
#: A service that refused is asked again after this long, [s].
ASKED_AGAIN_S = 1.0
RELAXED = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@contextlib.contextmanager
def evaluator_node(
    rig: Rig, camera: str | None, check: Callable[[], None], speed: float = 1.0
) -> Iterator[Evaluator]:
    """Bring ROS up for one evaluator and down again.

    Signals stay Python's: anyone who started a graph has to end it after them.
    """
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    evaluator = Evaluator(rig, camera, check, speed)
    try:
        yield evaluator
    finally:
        evaluator.destroy_node()
        rclpy.try_shutdown()


class Evaluator(Node):
    """A client of world, driver and policy node."""

    def __init__(
        self, rig: Rig, camera: str | None, check: Callable[[], None], speed: float = 1.0
    ) -> None:
        """Subscribe to what tells how a rollout goes.

        Args:
            rig: The simulated rig.
            camera: Whose image shows the end, or None.
            check: Called while something is waited for; raises when that is in vain.
            speed: Simulated seconds per second.
        """
        super().__init__("evaluator")
        self._speed = speed
        self._check = check
        self._rig = rig
        self._arm = rig.follower.name
        self.task: TaskState | None = None
        self.image: bytes | None = None
        self.film: list[bytes] = []  # since it was last cleared, FPS images a second
        self._filmed_s = 0.0
        self.policy_status: PolicyStatus | None = None
        self.guard: dict[str, int] = {}
        self._still_since: float | None = None
        self.create_subscription(TaskState, "sim/task_state", self._on_task, 10)
        self.create_subscription(JointState, f"{self._arm}/joint_states", self._on_joints, RELAXED)
        self.create_subscription(GuardStatus, f"{self._arm}/guard_status", self._on_guard, LATCHED)
        self.create_subscription(PolicyStatus, "policy/status", self._on_policy, 10)
        if camera is not None:
            topic = image_topic(camera)
            self.create_subscription(CompressedImage, topic, self._on_image, RELAXED)
        self._reset = self.create_client(ResetWorld, "sim/reset")
        self._demonstrate = self.create_client(Trigger, "sim/demonstrate")
        self._home = self.create_client(Trigger, f"{self._arm}/home")
        self._run = ActionClient(self, RunPolicy, "policy/run")

    # -- what is heard ------------------------------------------------------------------------

    def _on_task(self, message: TaskState) -> None:
        self.task = message

    def _on_image(self, message: CompressedImage) -> None:
        self.image = bytes(message.data)
        stamp_s = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        if abs(stamp_s - self._filmed_s) >= 1.0 / FPS:
            self._filmed_s = stamp_s
            self.film.append(self.image)

    def _on_policy(self, message: PolicyStatus) -> None:
        if message.state == PolicyStatus.RUNNING:
            self.policy_status = message

    def _on_joints(self, message: JointState) -> None:
        moving = max((abs(v) for v in message.velocity), default=0.0) > STILL_SPEED
        if moving:
            self._still_since = None
        elif self._still_since is None:
            self._still_since = time.monotonic()

    def _on_guard(self, message: GuardStatus) -> None:
        self.guard = {f"{item.rule}/{item.joint}": item.count for item in message.changes}

    # -- what is done -------------------------------------------------------------------------

    def spin_until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Let messages in until something holds; say whether it did in time.

        A slow simulation gets more time, a fast one no less: services take as long as ever.
        """
        end = time.monotonic() + timeout_s / min(1.0, self._speed)
        while not done():
            self._check()
            if time.monotonic() > end:
                return False
            rclpy.spin_once(self, timeout_sec=0.05)
        return True

    def missing(self, timeout_s: float, *, policy: bool) -> str:
        """Wait until everything that a rollout needs is there; what is not, in words.

        Args:
            timeout_s: How long.
            policy: A policy is to be run, not the expert.
        """
        needed: dict[str, Callable[[], bool]] = {
            "the world's /sim/task_state": lambda: self.task is not None,
            f"/{self._arm}/joint_states of an arm at rest": lambda: self._still_since is not None,
            "the service /sim/reset": self._reset.service_is_ready,
            f"the service /{self._arm}/home": self._home.service_is_ready,
        }
        if policy:
            needed["the policy node's action /policy/run"] = self._run.server_is_ready
        else:
            needed["the service /sim/demonstrate"] = self._demonstrate.service_is_ready
        self.spin_until(lambda: all(there() for there in needed.values()), timeout_s)
        return ", ".join(name for name, there in needed.items() if not there())

    def _call(self, client: Any, request: Any, what: str, patience_s: float = 0.0) -> Any:
        end = time.monotonic() + patience_s
        while True:
            future = client.call_async(request)
            if not self.spin_until(future.done, CALL_TIMEOUT_S):
                raise SimulationError(f"{what} did not answer within {CALL_TIMEOUT_S:.0f} s.")
            response = future.result()
            if response.success:
                return response
            if time.monotonic() > end:
                raise SimulationError(f"{what} refused: {response.message}")
            self.spin_until(lambda: False, ASKED_AGAIN_S)

    def go_home(self) -> None:
        """Bring the follower to its home pose and wait until it stands still there.

        A follower that has just lost its servos, as happens on a busy machine, is asked again.
        """
        request = Trigger.Request()
        self._call(self._home, request, f"/{self._arm}/home", patience_s=HOME_TIMEOUT_S)
        self._still_since = None
        self.spin_until(self._is_still, HOME_TIMEOUT_S)

    def _is_still(self) -> bool:
        since = self._still_since
        return since is not None and time.monotonic() - since > HOME_STILL_S / self._speed

    def reset(self, seed: int) -> None:
        """Lay out the table for a seed."""
        self._call(self._reset, ResetWorld.Request(seed=seed), "/sim/reset")
        self.task = None
        self.spin_until(lambda: self.task is not None, CALL_TIMEOUT_S)

    def demonstrate(self, seed: int, timeout_s: float) -> Trial:
        """Let the expert show the task once."""
        self.reset(seed)
        self._call(self._demonstrate, Trigger.Request(), "/sim/demonstrate")
        start_s = self._world_s()
        self.spin_until(self._detail_is("moving"), CALL_TIMEOUT_S)
        ended = self.spin_until(self._detail_is("done", "failed"), timeout_s)
        duration = self._world_s() - start_s
        self._rest()
        detail = self.task.detail if self.task is not None else "no word from the world"
        return Trial(seed, self._succeeded(), duration, detail if ended else "out of time")

    def run_policy(self, seed: int, timeout_s: float, task: str, strategy: str) -> Trial:
        """Let the policy try the task once, from the home pose.

        Raises:
            SimulationError: The policy node does not take the goal.
        """
        self.go_home()
        self.reset(seed)
        goal = RunPolicy.Goal(task=task, max_duration_s=timeout_s, strategy=strategy)
        sent = self._run.send_goal_async(goal)
        if not self.spin_until(sent.done, CALL_TIMEOUT_S) or not sent.result().accepted:
            raise SimulationError("The policy node refused the goal; its output says why.")
        start_s = self._world_s()
        handle = sent.result()
        result = handle.get_result_async()
        success, lasts = Success(), False

        def over() -> bool:
            nonlocal lasts
            lasts = success.lasts(self._succeeded(), self._world_s())
            return lasts or result.done()

        self.spin_until(over, timeout_s + LASTING_S + CALL_TIMEOUT_S)
        duration = success.time_s(self._world_s()) - start_s
        reason, code = "the block is in the cup", RunPolicy.Result.FINISHED
        if result.done():
            ended = result.result().result
            reason, code = ended.reason, ended.code
        else:
            self.spin_until(handle.cancel_goal_async().done, CALL_TIMEOUT_S)
            self.spin_until(result.done, CALL_TIMEOUT_S)
        self._rest()  # also after a success: to the guard the policy drives a moment longer
        succeeded = lasts or self._succeeded()
        # What a policy cannot help: what it looks at came late. A success is one all the same.
        void = code == RunPolicy.Result.STALE_STREAM and not succeeded
        return Trial(seed, succeeded, duration, reason, void)

    def _world_s(self) -> float:
        """Time of the world since its reset, [s]: a busy machine makes no run longer."""
        return float(self.task.sim_time_s) if self.task is not None else 0.0

    def _detail_is(self, *details: str) -> Callable[[], bool]:
        return lambda: self.task is not None and self.task.detail in details

    def _succeeded(self) -> bool:
        return self.task is not None and bool(self.task.success)

    def _rest(self) -> None:
        end = time.monotonic() + REST_S / self._speed
        self.spin_until(lambda: time.monotonic() > end, 2.0 * REST_S / self._speed)

    def policy_figures(self) -> dict[str, float | str]:
        """Return what the policy node last said of itself while it drove."""
        status = self.policy_status
        if status is None:
            return {}
        return {
            "strategy": str(status.strategy),
            "runtime": str(status.runtime),
            "rate_hz": float(status.rate_hz),
            "delay_p50_s": float(status.delay_p50_s),
            "delay_p95_s": float(status.delay_p95_s),
        }
