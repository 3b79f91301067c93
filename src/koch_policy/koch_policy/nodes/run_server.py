# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How runs are asked for and told of: RunPolicy, pause, resume, task; status and diagnostics."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from koch_interfaces.action import RunPolicy
from koch_interfaces.msg import PolicyStatus
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from koch_policy.errors import PolicyError
from koch_policy.execution import PolicyRun, RunResult, StopReason
from koch_policy.execution.takeover import SOURCE_TIMEOUT_S
from koch_ros.qos import ACTION_SERVICES, COMMAND, DIAGNOSTICS, SERVICES, STATE
from koch_ros.stamps import ros_time

if TYPE_CHECKING:
    from koch_policy.nodes.running_policy import RunningPolicy

_NODE = "policy_run"
_POLL_S = 0.05
_FEEDBACK_S = 0.5
_SWITCH_S = 2.0
_DISCOVERY_S = 2.0  # within it a node that has just started finds the others on a busy machine
_RESUME_S = 0.5
_PERIOD_S = 0.5  # of the status; diagnostics come at half its rate


class RunServer:
    """A node of its own in the same process, because its goals wait while they run.

    rclpy's single-threaded executor cannot deliver a cancel request while an execute callback
    waits. Bad goals are accepted and aborted with a code and a sentence: a rejection has neither.

    Args:
        policy: The node that runs policies.
        enable_switches: Services of the leaders' enable switches.
    """

    def __init__(self, policy: RunningPolicy, enable_switches: Iterable[str]) -> None:
        self._policy = policy
        self._busy = threading.Lock()
        self._found_by_s = time.monotonic() + _DISCOVERY_S
        # A `__node:=` for the process means the policy's node; local arguments win over it.
        namespace = policy.get_namespace()
        names = ["-r", f"__node:={_NODE}", "-r", f"__ns:={namespace}"]
        self.node = Node(_NODE, namespace=namespace, cli_args=["--ros-args", *names])
        group = ReentrantCallbackGroup()
        self._server = ActionServer(
            self.node,
            RunPolicy,
            "policy/run",
            self._execute,
            callback_group=group,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            **ACTION_SERVICES,
        )
        for name, handle in (("pause", self._on_pause), ("resume", self._on_resume)):
            self.node.create_service(
                Trigger, f"policy/{name}", handle, qos_profile=SERVICES, callback_group=group
            )
        self.node.create_subscription(
            String, "policy/task", self._on_task, COMMAND, callback_group=group
        )
        self._enable_switches = [
            self.node.create_client(SetBool, name, callback_group=group)
            for name in enable_switches
        ]
        self._executor = MultiThreadedExecutor(num_threads=3)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, name="actions", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the threads; idempotent."""
        self._executor.shutdown(timeout_sec=2.0)
        if self._thread.is_alive():
            self._thread.join(1.0)
            self._server.destroy()
            self.node.destroy_node()

    def _execute(self, handle: ServerGoalHandle) -> RunPolicy.Result:
        if not self._busy.acquire(blocking=False):
            handle.abort()
            return _result(
                None, RunResult(StopReason.REFUSED, "a run is under way; cancel it first")
            )
        try:
            return self._run(handle)
        finally:
            self._busy.release()

    def _run(self, handle: ServerGoalHandle) -> RunPolicy.Result:
        goal, policy = handle.request, self._policy
        for topic in policy.outputs.command_topics:
            if policy.count_publishers(topic) > 1:
                handle.abort()
                why = f"two policy nodes command {topic}; stop one"
                return _result(None, RunResult(StopReason.REFUSED, why))
        if goal.max_duration_s < 0.0:
            handle.abort()
            return _result(None, RunResult(StopReason.REFUSED, "max_duration_s is negative"))
        if not self._may_begin():
            handle.abort()
            return _result(None, RunResult(StopReason.REFUSED, policy.blocked))
        if not policy.settings.shadow and policy.settings.open_clutch:
            self._release_enable_switch()
        try:
            run = policy.begin(goal.task, float(goal.max_duration_s), goal.strategy)
        except PolicyError as exc:
            handle.abort()
            return _result(None, RunResult(StopReason.MISMATCH, str(exc)))
        end = self._wait(handle, run)
        if end.cause is StopReason.FINISHED:
            handle.succeed()
        elif end.cause is StopReason.CANCELLED and handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return _result(run, end, policy.shadow_summary())

    def _wait(self, handle: ServerGoalHandle, run: PolicyRun) -> RunResult:
        """Wait in this goal's thread for the end, passing cancel requests and feedback on."""
        next_feedback = 0.0
        while not run.ended.wait(_POLL_S):
            if handle.is_cancel_requested:
                run.request_end(StopReason.CANCELLED, "cancelled by the client")
            if time.monotonic() >= next_feedback:
                next_feedback = time.monotonic() + _FEEDBACK_S
                handle.publish_feedback(RunPolicy.Feedback(status=self._policy.status.message()))
        assert run.end is not None  # ended
        return run.end

    def _may_begin(self) -> bool:
        """Whether the guard obeys; a resume just before may take a moment to be heard here."""
        end = time.monotonic() + _RESUME_S
        while self._policy.blocked and time.monotonic() < end:
            time.sleep(_POLL_S)
        return not self._policy.blocked

    def _release_enable_switch(self) -> None:
        """Take the arms from their leaders, where there are any; a failure shows as a pause."""
        takeover = self._policy.takeover
        while not takeover.is_told() and time.monotonic() < self._found_by_s:
            time.sleep(_POLL_S)
        if takeover.driver() is None:
            return
        waiting = []
        for switch in self._enable_switches:
            if switch.wait_for_service(timeout_sec=self._found_by_s - time.monotonic()):
                waiting.append(threading.Event())
                future = switch.call_async(SetBool.Request(data=False))
                future.add_done_callback(lambda _, done=waiting[-1]: done.set())
        if not waiting:
            return  # what drives is no leader
        if not all(done.wait(_SWITCH_S) for done in waiting):
            self.node.get_logger().warning("the leader's enable switch does not answer")
            return
        end = time.monotonic() + 2.0 * SOURCE_TIMEOUT_S
        while takeover.driver() is not None and time.monotonic() < end:
            time.sleep(_POLL_S)

    def _on_pause(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._switch(response, "pause")

    def _on_resume(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._switch(response, "resume")

    def _on_task(self, message: String) -> None:
        """Another task for the run that is under way."""
        run, text, logger = self._policy.run, message.data.strip(), self.node.get_logger()
        if run is None or run.end is not None:
            logger.warning(f"policy/task: no run is under way that could be told {text!r}")
        elif not text:
            logger.warning("policy/task: the text is empty; the run goes on as it was told")
        else:
            logger.info(f"the run is told: {text}")
            run.tell(text)

    def _switch(self, response: Any, what: str) -> Any:
        run = self._policy.run
        if run is None or run.end is not None:
            response.success, response.message = False, "no run is under way"
            return response
        if what == "pause":
            run.pause()
            response.message = "paused; the arm holds its pose"
        else:
            run.resume()
            response.message = run.pause_reason or "the policy drives again, softly"
        response.success = True
        self._policy.status.publish()
        return response


def _result(run: PolicyRun | None, end: RunResult, note: str = "") -> RunPolicy.Result:
    result = RunPolicy.Result()
    result.success = end.cause is StopReason.FINISHED
    result.code = int(end.cause)
    result.reason = f"{end.reason}; {note}" if note else end.reason
    if run is not None:
        result.steps = run.steps
        result.duration_s = run.duration_s
    return result


class PolicyStatusPublisher:
    """Publishes `policy/status` at 2 Hz and on change, and a line on `/diagnostics` at 1 Hz."""

    def __init__(self, node: RunningPolicy) -> None:
        self._node = node
        self._publisher = node.create_publisher(PolicyStatus, "policy/status", STATE)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
        self._published: tuple[int, str] | None = None
        self._shown: tuple[int, str] | None = None
        self._count = 0
        node.create_timer(_PERIOD_S, self._on_timer)

    def _state(self) -> tuple[int, str]:
        """State and its reason; asked at every tick, so nothing else is worked out here."""
        node, run = self._node, self._node.run
        if run is None or run.end is not None:
            return node.state, node.reason
        paused = run.pause_reason
        if paused:
            return PolicyStatus.PAUSED, paused
        return (PolicyStatus.SHADOW if run.settings.is_shadow else PolicyStatus.RUNNING), ""

    def message(self) -> PolicyStatus:
        """The present state."""
        node, run = self._node, self._node.run
        message = PolicyStatus()
        message.header.stamp = ros_time(node.now_ns())
        message.state, message.reason = self._state()
        message.strategy, message.runtime = node.strategy, node.runtime
        message.delay_p50_s = node.delay.percentile(0.5)
        message.delay_p95_s = node.delay.percentile(0.95)
        message.chunk_age_s = -1.0
        if run is None:
            return message
        message.refusals = run.refusals
        message.steps_executed = run.steps
        if run.end is None:
            message.task = run.settings.task
            message.rate_hz = run.rate_hz()
            message.chunk_age_s = run.chunk_age_s
        ways = node.outputs.ways.quantiles_s(0.5, 0.95)
        message.way_stages = list(ways)
        message.way_p50_s, message.way_p95_s = ([v[k] for v in ways.values()] for k in (0, 1))
        return message

    def publish(self) -> PolicyStatus:
        """Publish the state now."""
        message = self.message()
        self._published = (message.state, message.reason)
        self._publisher.publish(message)
        return message

    def publish_change(self) -> None:
        """Publish the state if it is another than was last published."""
        if self._state() != self._published:
            self.publish()

    def _on_timer(self) -> None:
        message = self.publish()
        self._count += 1
        state = (message.state, message.reason)
        if state != self._shown and message.state == PolicyStatus.PAUSED:
            self._node.get_logger().info(f"paused: {message.reason}")
        self._shown = state
        if self._count % 2 == 0:
            self._diagnose(message)

    def _diagnose(self, message: PolicyStatus) -> None:
        run = self._node.run
        values: dict[str, object] = {
            "rate_hz": f"{message.rate_hz:.1f}",
            "delay_p50_ms": f"{1e3 * message.delay_p50_s:.1f}",
            "delay_p95_ms": f"{1e3 * message.delay_p95_s:.1f}",
            "strategy": message.strategy,
            "runtime": message.runtime,
        }
        if run is not None:
            values |= {
                "steps": run.steps,
                "skipped_steps": run.scheduler.skipped,
                "starved_steps": run.scheduler.starved,
                "expired_chunks": run.scheduler.expired,
                "refusals": run.refusals,
            }
        shadow = self._node.shadow_summary()
        if shadow:
            values["action_error"] = shadow
        aborted = message.state == PolicyStatus.ABORTED
        status = DiagnosticStatus(
            level=DiagnosticStatus.ERROR if aborted else DiagnosticStatus.OK,
            name="policy",
            message=message.reason or "ok",
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = message.header.stamp
        self._diagnostics.publish(array)
