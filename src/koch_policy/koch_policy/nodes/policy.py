# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The policy node: a checkpoint drives the follower, or shows what it would do.

Threads: executor (subscriptions store samples), actions (RunPolicy, pause, resume), run (ticks:
frames, commands), inference (the policy). None waits for another but the actions for the run.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from koch_interfaces.msg import PolicyStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from koch_policy.chunks import (
    DelayQuantile,
    Grid,
    StrategyKind,
    chosen_execution,
    make_strategy,
)
from koch_policy.config_json import read_config
from koch_policy.errors import PolicyError
from koch_policy.execution import (
    InferenceWorker,
    ObservationBuilder,
    PolicyRun,
    RunSettings,
    StopReason,
    Ticker,
    check_policy,
)
from koch_policy.execution.compatibility import (
    action_layout,
    executed_actions,
    policy_actions,
)
from koch_policy.execution.inference import Predict, plain_predict
from koch_policy.execution.phase import aligned_origin
from koch_policy.execution.takeover import Takeovers
from koch_policy.files import CONFIG, is_address, resolve_checkpoint
from koch_policy.metadata import read_metadata
from koch_policy.nodes.command_publisher import CommandPublisher
from koch_policy.nodes.parameters import PolicyParameters
from koch_policy.nodes.run_server import PolicyStatusPublisher, RunServer
from koch_policy.nodes.subscriptions import ObservationInputs, stream_topic
from koch_policy.policy import Policy
from koch_rig.action_layout import ActionLayout
from koch_rig.load import load_rig
from koch_rig.rig import Rig
from koch_rig.units import joint_units
from koch_ros.node import run_node
from koch_ros.parameters import declare
from koch_ros.qos import STATE

if TYPE_CHECKING:
    from koch_policy.chunks.guided import EnergyMeter
    from koch_policy.runtime.base import EnginePolicy
    from koch_policy.shadow import CommandedActions, ShadowMeter

_LISTEN_S = 1.0  # a second policy node would be heard twice in this time


class SecondNodeError(PolicyError):
    """Two policy nodes would fight over one arm."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"another policy node runs already (its status comes on {topic}). Stop it first, or "
            "give this one a namespace of its own."
        )


def _wants_gradients(parameters: PolicyParameters) -> bool:
    """Whether the runtime is left open and rtc's guidance needs one that differentiates."""
    if parameters.runtime != "auto" or parameters.guidance != "gradient":
        return False
    if is_address(parameters.checkpoint):
        return False
    folder = resolve_checkpoint(Path(parameters.checkpoint))
    config, extras = read_config(folder / CONFIG), read_metadata(folder)
    return chosen_execution(parameters.strategy, 0, config, extras)[0] is StrategyKind.RTC


def load_from(parameters: PolicyParameters) -> Policy:
    """Load the checkpoint that the parameters name, all steps of its horizon."""
    from koch_policy.runtime import load_policy

    policy = load_policy(
        parameters.checkpoint,
        "torch" if _wants_gradients(parameters) else parameters.runtime,
        precision=parameters.precision,
        device=parameters.device,
        full_horizon=True,
        calibration=parameters.calibration or None,
        threads=parameters.num_threads,
    )
    steps = getattr(policy, "set_steps", None)
    if parameters.denoising_steps and steps is not None:
        steps(parameters.denoising_steps)
    return policy


class PolicyNode(Node):
    """See the module. Action `policy/run`; services `policy/pause`, `policy/resume`.

    Args:
        load: Makes the policy in place of the checkpoint's: for policies that are no checkpoint.
        options: For rclpy's Node: parameter_overrides, namespace and the like.

    Raises:
        KochError: Rig or checkpoint cannot be used, they do not fit, or another node runs.
    """

    def __init__(
        self,
        load: Callable[[PolicyParameters], Policy] = load_from,
        **options: Any,
    ) -> None:
        super().__init__("policy", **options)
        self.settings = settings = declare(self, PolicyParameters)
        rig = load_rig(settings.rig)
        self.task = rig.task
        self.run: PolicyRun | None = None
        self._energy: EnergyMeter | None = None  # of the newest run
        self.reason = ""
        self.state = PolicyStatus.LOADING
        self.runtime = ""
        self.strategy = ""
        self._rig = rig
        self._closing, self._wake = threading.Event(), threading.Event()
        self._worker = InferenceWorker(
            partial(load, settings),
            self.now_ns,
            rig.task,
            self._predict_as_set,
            after=self._measure_energy,
        )
        self._load_and_listen()
        self.takeover = Takeovers(self._layout.arms)
        self._fps = float(rig.fps)
        units = joint_units(rig)
        self._actions = policy_actions(self._policy, rig, units, self._layout)
        self._encode = executed_actions(self._policy, units, self._layout, self._actions)
        self._builder = ObservationBuilder(self._policy, rig, units)
        self._meter: ShadowMeter | None = None
        actions = self._compared(rig) if settings.shadow else None
        self._inputs = ObservationInputs(
            self, rig, self._builder, self.takeover, actions, self._on_guard
        )
        self.delay = DelayQuantile(initial_s=self._worker.warm_up_s)
        self.outputs = CommandPublisher(self, rig, self._layout, settings.ghost_ahead, self.now_ns)
        self.outputs.meter = self._meter
        self.state = PolicyStatus.IDLE
        self.status = PolicyStatusPublisher(self)
        self._thread = threading.Thread(target=self._work, name="run", daemon=True)
        self._thread.start()
        self.server = RunServer(self, [f"{arm}/teleop/clutch" for arm in self._layout.arms])
        self._say_ready()

    # -- start ----------------------------------------------------------------------------------

    def _say_ready(self) -> None:
        self.get_logger().info(
            f"{self.runtime} ready: {self._policy.config.type} of {self.settings.checkpoint}, "
            f"warm-up {self._worker.warm_up_s:.2f} s, strategy {self.strategy}"
            + (", shadow mode" if self.settings.shadow else "")
        )

    def _load_and_listen(self) -> None:
        """Load in the inference thread; meanwhile watch for another policy node."""
        failed: list[Exception] = []
        begin = time.monotonic()

        def load() -> None:
            try:
                self._policy = self._worker.start()
            except Exception as exc:  # handed on to the constructor's caller
                failed.append(exc)

        loader = threading.Thread(target=load, name="load", daemon=True)
        loader.start()
        self._listen_for_another(
            lambda: not failed and (loader.is_alive() or time.monotonic() < begin + _LISTEN_S)
        )
        if failed:
            raise failed[0]
        self._check_policy()

    def _listen_for_another(self, goes_on: Callable[[], bool]) -> None:
        """Spin meanwhile; two policy nodes would command one arm.

        Raises:
            SecondNodeError: Another one tells its status.
        """
        others: list[PolicyStatus] = []
        topic = self.create_subscription(PolicyStatus, "policy/status", others.append, STATE)
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        while goes_on():
            executor.spin_once(timeout_sec=0.05)
        executor.remove_node(self)
        name = topic.topic_name
        self.destroy_subscription(topic)
        if others:
            raise SecondNodeError(name)

    def _check_policy(self) -> None:
        """Compare the loaded policy with the rig, and note what it will run as."""
        settings, rig = self.settings, self._rig
        named = ActionLayout.of_arms(rig, [settings.arm]) if settings.arm else None
        self._layout = named or action_layout(self._policy, rig)
        notes = check_policy(
            self._policy,
            rig,
            settings.checkpoint,
            allow=settings.allow_mismatch,
            layout=self._layout,
        )
        for note in notes:
            self.get_logger().warning(note)
        error = getattr(getattr(self._policy, "engine", None), "action_error", None)
        if error is not None:
            self.get_logger().info(str(error))
        self.runtime = self._policy.runtime
        self.strategy = self._chosen(self._policy, "")[0].value

    def _compared(self, rig: Rig) -> CommandedActions:
        """What shadow mode compares with, and the meter that does."""
        from koch_policy.shadow import CommandedActions, ShadowMeter

        actions = CommandedActions.of_rig(rig, self._layout)
        topics = [stream_topic(rig, buffer.name) for buffer in actions.buffers.values()]
        self.get_logger().info(f"shadow mode: compared with /{', /'.join(topics)}")
        self._meter = ShadowMeter(actions)
        return actions

    def now_ns(self) -> int:
        """ROS time [ns]."""
        clock = self.get_clock()
        if clock.ros_time_is_active:
            return int(clock.now().nanoseconds)
        return time.time_ns()

    # -- runs -----------------------------------------------------------------------------------

    def begin(self, task: str, max_duration_s: float, strategy: str) -> PolicyRun:
        """Begin a run; called by the action server, one at a time.

        Raises:
            PolicyError: The strategy does not suit the policy.
        """
        settings, config = self.settings, self._policy.config
        kind, execution_steps = self._chosen(self._policy, strategy)
        grid = Grid(aligned_origin(self._inputs.images, self.now_ns(), self._fps), self._fps)
        self.outputs.grid, self.outputs.strategy, self.strategy = grid, kind.value, kind.value
        self.reason = ""
        self._note_guidance(kind)
        self._energy = self._meter_of(grid)
        run = PolicyRun(
            RunSettings(
                task=task or self.task,
                max_duration_s=max_duration_s,
                is_shadow=settings.shadow,
                stale_abort_s=settings.stale_abort,
                overrun_abort_s=settings.overrun_abort,
                quiet_s=self._rig.limits.command_timeout_s + 0.1,
            ),
            grid=grid,
            strategy=make_strategy(
                kind,
                config,
                execution_steps=execution_steps,
                fade_steps=settings.fade_steps,
                coefficient=settings.ensemble_coefficient,
                grippers=self._layout.grippers,
            ),
            delay=self.delay,
            clock=self.now_ns,
            worker=self._worker,
            builder=self._builder,
            actions=self._actions,
            predict=self._predict(kind),
            takeover=self.takeover,
            sink=self.outputs,
            energy=self._energy,
            trace=self._trace,
            wait=None if self.get_clock().ros_time_is_active else self._worker.wait,
        )
        self.run = run
        self._wake.set()
        return run

    def _meter_of(self, grid: Grid) -> EnergyMeter | None:
        if not self.settings.energy:
            return None
        from koch_policy.chunks.guided import EnergyMeter

        policy = self._policy
        if not EnergyMeter.can_measure(policy):
            return None
        return EnergyMeter(
            cast("EnginePolicy", policy),
            self._encode,
            lambda tick, energy: self.outputs.energy(grid.time_ns(tick), energy),
        )

    def _measure_energy(self) -> None:
        if self._energy is not None:
            self._energy.measure()

    def _trace(self, command_ns: int, moments: Mapping[str, int]) -> None:
        """Add how the oldest sample came, and tell the command's way."""
        exposed_ns = moments["exposure"]
        came = self._inputs.passage(exposed_ns)
        sent, heard = (came.sent_ns, came.heard_ns) if came else (exposed_ns, exposed_ns)
        first = {"exposure": exposed_ns, "packet": sent, "topic": heard}
        self.outputs.trace(command_ns, {**first, **moments})

    def _predict_as_set(self, policy: Policy) -> Predict:
        """How to call a policy with the strategy that the parameters name."""
        return self._predict(self._chosen(policy, "")[0])

    def _chosen(self, policy: Policy, strategy: str) -> tuple[StrategyKind, int]:
        """Strategy and steps of a run: its own, the parameters', the checkpoint's."""
        settings = self.settings
        return chosen_execution(
            strategy or settings.strategy, settings.execution_steps, policy.config, policy.extras
        )

    def _predict(self, kind: StrategyKind) -> Predict:
        if kind is not StrategyKind.RTC:
            return plain_predict
        from koch_policy.chunks.guided import predict_continuing

        settings = self.settings
        return partial(
            predict_continuing,
            beta=settings.max_guidance,
            back_propagates=settings.guidance == "gradient",
            steps=settings.denoising_steps or None,
        )

    def _note_guidance(self, kind: StrategyKind) -> None:
        """Say when rtc cannot do all that was asked."""
        if kind is not StrategyKind.RTC:
            return
        from koch_policy.chunks.guided import can_back_propagate, can_guide

        if not can_guide(self._policy):
            self.get_logger().warning(f"rtc: {self.runtime} cannot be guided; chunks are switched")
        elif self.settings.guidance == "gradient" and not can_back_propagate(self._policy):
            self.get_logger().warning(f"rtc: {self.runtime} has no gradients; direct pull")

    def _on_guard(self, reason: str) -> None:
        run = self.run
        if run is not None and not run.settings.is_shadow:
            run.request_end(StopReason.REFUSED, reason)

    @property
    def blocked(self) -> str:
        """Why no run may begin now; empty when one may, and in shadow mode."""
        trouble = str(getattr(self._policy, "trouble", ""))  # of a policy in a server
        return trouble or (
            "" if self.settings.shadow else self._inputs.rivals or self._inputs.blocked
        )

    def shadow_summary(self) -> str:
        """Errors against the human, for people; empty outside shadow mode."""
        if self._meter is None:
            return ""
        self._meter.settle(self.now_ns())
        return str(self._meter.summary())

    # -- the run's thread -----------------------------------------------------------------------

    def _work(self) -> None:
        while not self._closing.is_set():
            if not self._wake.wait(0.5):
                continue
            self._wake.clear()
            run = self.run
            if run is None or run.end is not None:
                continue
            try:
                self._tick(run)
            except Exception as exc:  # top of a thread: nothing is commanded from here on
                self.get_logger().error(f"the run failed: {type(exc).__name__}: {exc}")
                run.request_end(StopReason.POLICY_ERROR, f"{type(exc).__name__}: {exc}")
            run.conclude()
            self._report_end(run)

    def _tick(self, run: PolicyRun) -> None:
        simulated = bool(self.get_clock().ros_time_is_active)

        def step(tick: int) -> bool:
            run.step(tick)
            if run.end is None:  # the end is reported once it is concluded
                self.status.publish_change()
            if self._meter is not None:
                self._meter.settle(self.now_ns())
            return run.end is None

        Ticker(self.now_ns, is_simulated=simulated).run(
            run.grid,
            self._closing,
            step,
            lambda jump_s: run.request_end(
                StopReason.STALE_STREAM, f"the clock jumped by {jump_s:+.2f} s: stamps are void"
            ),
        )

    def _report_end(self, run: PolicyRun) -> None:
        assert run.end is not None  # concluded
        end = run.end
        self.reason = end.reason if end.is_fault else ""
        self.state = PolicyStatus.ABORTED if end.is_fault else PolicyStatus.IDLE
        self.status.publish()
        text = f"run ended after {run.steps} actions: {end.cause.name.lower()}: {end.reason}"
        if end.is_fault:
            self.get_logger().error(text)
        else:
            self.get_logger().info(text)

    def close(self) -> None:
        """Stop commanding and end the threads; idempotent."""
        run = self.run
        if run is not None:
            run.request_end(StopReason.CANCELLED, "the policy node is ending")
        self._closing.set()
        self._thread.join(2.0)
        self.server.close()
        self._worker.close()
        end_server = getattr(self._policy, "close", None)
        if end_server is not None:
            end_server()


def main() -> int:
    """Entry point."""
    code = run_node(PolicyNode)
    if any(thread.name == "inference" for thread in threading.enumerate()):
        # A prediction that hangs would end in std::terminate while the interpreter leaves.
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
