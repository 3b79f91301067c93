# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The controllers of an arm, executed by the bus loop.

Actions `arm_controller/follow_joint_trajectory`, `gripper_controller/gripper_cmd` and
`parallel_gripper_controller/gripper_cmd`; topic `arm_controller/joint_trajectory`, to which MoveIt
Servo, rqt_joint_trajectory_controller and others send without asking for a result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from control_msgs.action import FollowJointTrajectory, GripperCommand, ParallelGripperCommand
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from koch_core.errors import KochError
from koch_driver.arm.control_loop import ControlLoop, LoopPhase
from koch_driver.arm.gripper_motion import GripperMotion
from koch_driver.nodes.command_topics import Senders
from koch_driver.trajectory.runner import Execution, Tolerances, TrajectoryResult
from koch_driver.trajectory.trajectory import (
    ResultCode,
    TrajectoryError,
    TrajectoryPoint,
    check_trajectory,
)
from koch_rig.joints import plain_joints
from koch_ros.qos import ACTION_SERVICES
from koch_ros.senders import sender_of

if TYPE_CHECKING:
    from builtin_interfaces.msg import Duration, Time

    from koch_driver.arm.follower_controller import FollowerController
    from koch_driver.nodes.parameters import FollowerParameters
    from koch_ros.stamps import RosStamper

#: The command source as which the topic's refusals are counted.
TOPIC = "joint_trajectory"
_FEEDBACK_S = 0.05
_WARN_EVERY_S = 10.0
_NODE = "arm_controller"
#: Of two senders at the same moment a depth of one would keep the later: the rival stayed unheard.
_TRAJECTORIES = QoSProfile(depth=10)


def _make_node(namespace: str) -> Node:
    # A `__node:=` for the process means the driver; local arguments win over global ones.
    names = ["-r", f"__node:={_NODE}", "-r", f"__ns:={namespace}"]
    return Node(
        _NODE,
        namespace=namespace,
        cli_args=["--ros-args", *names],
        # The stamper knows simulated time; here /clock would wake four threads at each tick.
        parameter_overrides=[Parameter("use_sim_time", value=False)],
    )


class TrajectoryServer:
    """A node of its own in the follower's process, because its goals wait while they execute.

    rclpy's single-threaded executor cannot deliver a cancel request while an execute callback
    waits, and polls a coroutine that awaits; so the two actions have threads of their own, idle
    while no goal is under way. Callbacks of the actions are reentrant: the runner locks.

    Bad goals are accepted and aborted with result code and sentence: a rejection has neither.
    """

    def __init__(
        self,
        controller: FollowerController,
        loop: ControlLoop,
        stamper: RosStamper,
        parameters: FollowerParameters,
        namespace: str,
        joint_prefix: str = "",
    ) -> None:
        self._controller = controller
        self._loop = loop
        self._stamper = stamper
        self._prefix = joint_prefix
        self._joints, self._gripper = controller.model.joints, controller.model.gripper
        self._defaults = Tolerances(
            path=dict.fromkeys(controller.model.arm_joints, parameters.path_tolerance),
            goal=dict.fromkeys(controller.model.arm_joints, parameters.goal_tolerance),
            goal_time_s=parameters.goal_time,
        )
        limits = controller.guard.limits
        pairs = zip(limits.lower, limits.upper, strict=True)
        self._limits = dict(zip(self._joints, pairs, strict=True))
        self.node = _make_node(namespace)
        self._servers = self._serve_actions()
        topic = self.node.create_subscription(
            JointTrajectory,
            "~/joint_trajectory",
            self._on_trajectory,
            _TRAJECTORIES,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )
        self.senders = Senders(self.node, str(topic.topic_name))
        self._warned_s = float("-inf")
        self._executor = MultiThreadedExecutor(num_threads=4)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(
            target=self._executor.spin, name="trajectory-server", daemon=True
        )
        self._thread.start()

    def _serve_actions(self) -> list[ActionServer]:
        group = ReentrantCallbackGroup()
        actions = (
            (FollowJointTrajectory, "arm_controller/follow_joint_trajectory", self._follow),
            (GripperCommand, "gripper_controller/gripper_cmd", self._grip),
            (
                ParallelGripperCommand,
                "parallel_gripper_controller/gripper_cmd",
                self._grip_parallel,
            ),
        )
        return [
            ActionServer(
                self.node,
                kind,
                name,
                execute,
                callback_group=group,
                cancel_callback=_accept_cancel,
                **ACTION_SERVICES,
            )
            for kind, name, execute in actions
        ]

    def close(self) -> None:
        """End the actions under way and the threads; idempotent."""
        self._controller.trajectories.abort("the driver is ending")
        self._executor.shutdown(timeout_sec=1.0)
        if self._thread.is_alive():
            self._thread.join(1.0)
            for server in self._servers:
                server.destroy()
            self.node.destroy_node()

    # -- follow_joint_trajectory ----------------------------------------------------------------

    def _follow(self, handle: ServerGoalHandle) -> FollowJointTrajectory.Result:
        try:
            execution = self._start(handle.request)
        except TrajectoryError as exc:
            handle.abort()
            return _follow_result(TrajectoryResult(exc.code, str(exc)))
        outcome = self._wait(handle, execution, self._follow_feedback)
        _close_goal(handle, outcome)
        return _follow_result(outcome, execution.changes)

    def _start(self, goal: FollowJointTrajectory.Goal) -> Execution:
        """Check a goal and hand it to the bus loop. Raises TrajectoryError."""
        if goal.multi_dof_trajectory.points:
            raise TrajectoryError(
                ResultCode.INVALID_GOAL, "multi_dof_trajectory is not supported; leave it empty"
            )
        tolerances = self._defaults.override(
            path=self._by_joint(goal.path_tolerance),
            goal=self._by_joint(goal.goal_tolerance),
            goal_time_s=_seconds(goal.goal_time_tolerance),
            own_joints=self._joints,
        )
        return self._begin(goal.trajectory, tolerances)

    def _by_joint(self, tolerances: Sequence[Any]) -> dict[str, float]:
        """Position tolerances by plain joint names."""
        names = plain_joints([item.name for item in tolerances], self._prefix, self._joints)
        return dict(zip(names, (item.position for item in tolerances), strict=True))

    def _begin(self, message: JointTrajectory, tolerances: Tolerances) -> Execution:
        """Check a trajectory and hand it to the bus loop. Raises TrajectoryError."""
        trajectory = check_trajectory(
            list(plain_joints(message.joint_names, self._prefix, self._joints)),
            [_waypoint(point) for point in message.points],
            own_joints=self._joints,
            limits=self._limits,
        )
        pose = self._ready_pose()
        if self._gripper in trajectory.joints:
            self._controller.trajectories.gripper.abort(
                "preempted: a trajectory moves the gripper"
            )
        return self._controller.trajectories.arm.start(
            trajectory,
            tolerances,
            stamp_s=_seconds(message.header.stamp),
            now_s=self._controller.ros_now_s(),
            pose=pose,
        )

    def _ready_pose(self) -> dict[str, float]:
        """The measured pose of an arm that can move. Raises TrajectoryError."""
        controller, status = self._controller, self._loop.status()
        reason = ""
        if status.phase is not LoopPhase.RUNNING or controller.reading is None:
            reason = f"the arm is not connected: {status.reason or 'still connecting'}"
        elif not controller.torque_on:
            reason = (
                f"the torque is off ({controller.why_still}); call the torque service with true"
            )
        elif controller.guard.stopped:
            reason = f"the arm is {controller.why_still}; call the resume service"
        if reason or controller.reading is None:
            raise TrajectoryError(ResultCode.INVALID_GOAL, reason)
        return dict(zip(self._joints, controller.reading.positions, strict=True))

    def _follow_feedback(self, handle: ServerGoalHandle, execution: Execution) -> None:
        progress = execution.progress
        if progress is None:
            return
        feedback = FollowJointTrajectory.Feedback()
        feedback.header.stamp = self._stamper.stamp(time.monotonic_ns())
        feedback.joint_names = [f"{self._prefix}{joint}" for joint in execution.trajectory.joints]
        wanted, actual = progress.desired, progress.actual
        elapsed = max(0.0, wanted.time_s)
        feedback.desired = _point(elapsed, wanted.positions, wanted.velocities)
        feedback.actual = _point(elapsed, actual)
        errors = [a - b for a, b in zip(wanted.positions, actual, strict=True)]
        feedback.error = _point(elapsed, errors)
        handle.publish_feedback(feedback)

    # -- joint_trajectory -----------------------------------------------------------------------

    def _on_trajectory(self, message: JointTrajectory, info: Mapping[str, Any]) -> None:
        """Execute what comes on the topic, as JTC: without tolerances; the newest one counts.

        An empty trajectory ends the one under way. There is no result: why one is not executed is
        logged, and so is a second publisher, with which none is.
        """
        if not self.senders.hears(info):
            self._controller.trajectories.arm.abort("joint_trajectory has several publishers")
            self._controller.guard.refuse_senders(TOPIC, self.senders.rivals, time.monotonic())
            return
        if not message.points:
            self._controller.trajectories.arm.abort("an empty joint_trajectory came")
            return
        try:
            self._begin(message, Tolerances())
        except TrajectoryError as exc:
            if time.monotonic() - self._warned_s > _WARN_EVERY_S:
                self._warned_s = time.monotonic()
                self.senders.learn([sender_of(info)])
                who = ", ".join(self.senders.names([sender_of(info)])) or "unknown sender"
                self.node.get_logger().warning(f"joint_trajectory of {who} is refused: {exc}")

    # -- gripper_cmd ----------------------------------------------------------------------------

    def _grip(self, handle: ServerGoalHandle) -> GripperCommand.Result:
        command = handle.request.command
        motion = self._move_gripper(
            handle, command.position, command.max_effort, 0.0,
            lambda motion: _filled(GripperCommand.Feedback(), motion),
        )  # fmt: skip
        return (
            GripperCommand.Result() if motion is None else _filled(GripperCommand.Result(), motion)
        )

    def _grip_parallel(self, handle: ServerGoalHandle) -> ParallelGripperCommand.Result:
        command = handle.request.command
        joints = plain_joints(command.name, self._prefix, self._joints)
        if joints not in ((), (self._gripper,)) or len(command.position) != 1:
            self.node.get_logger().error(
                f"parallel gripper_cmd: got joints {list(command.name)} with "
                f"{len(command.position)} positions, expected one position of "
                f"{self._prefix}{self._gripper}"
            )
            handle.abort()
            return ParallelGripperCommand.Result()
        motion = self._move_gripper(
            handle,
            command.position[0],
            command.effort[0] if command.effort else 0.0,
            command.velocity[0] if command.velocity else 0.0,
            lambda motion: ParallelGripperCommand.Feedback(state=self._gripper_state(motion)),
        )
        if motion is None:
            return ParallelGripperCommand.Result()
        return ParallelGripperCommand.Result(
            state=self._gripper_state(motion), stalled=motion.stalled, reached_goal=motion.reached
        )

    def _gripper_state(self, motion: GripperMotion) -> JointState:
        state = JointState(name=[f"{self._prefix}{self._gripper}"])
        state.position, state.effort = [motion.position], [motion.effort_nm]
        state.header.stamp = self._stamper.stamp(time.monotonic_ns())
        return state

    def _move_gripper(
        self,
        handle: ServerGoalHandle,
        position: float,
        max_effort_nm: float,
        max_speed: float,
        feedback: Callable[[GripperMotion], Any],
    ) -> GripperMotion | None:
        """Move the gripper until it arrives or holds something; None when it cannot begin."""
        motion = GripperMotion(self._controller, self._limits[self._gripper])
        try:
            self._ready_pose()
            execution = motion.start(position, self._controller.ros_now_s(), max_speed)
            self._loop.call(lambda bus: motion.limit_effort(bus, max_effort_nm))
        except KochError as exc:
            self.node.get_logger().error(f"gripper_cmd: {exc}")
            handle.abort()
            return None

        def publish(handle: ServerGoalHandle, _: Execution) -> None:
            motion.watch()
            handle.publish_feedback(feedback(motion))

        _close_goal(handle, self._wait(handle, execution, publish))
        return motion

    # -- common ---------------------------------------------------------------------------------

    def _wait(
        self, handle: ServerGoalHandle, execution: Execution, feedback: Any
    ) -> TrajectoryResult:
        """Wait in this goal's thread for the end, passing cancel requests and feedback on."""
        while True:
            outcome = execution.wait(_FEEDBACK_S)
            if outcome is not None:
                return outcome
            if handle.is_cancel_requested:
                self._controller.trajectories.arm.cancel(execution)
                continue
            feedback(handle, execution)


def _accept_cancel(_: Any) -> CancelResponse:
    return CancelResponse.ACCEPT


def _close_goal(handle: ServerGoalHandle, outcome: TrajectoryResult) -> None:
    """Put a goal into its final state; a goal whose cancel was accepted may not be aborted."""
    if outcome.cancelled and handle.is_cancel_requested:
        handle.canceled()
    elif outcome.code is ResultCode.SUCCESSFUL and not outcome.cancelled:
        handle.succeed()
    else:
        handle.abort()


def _follow_result(outcome: TrajectoryResult, changes: str = "") -> FollowJointTrajectory.Result:
    """The result; what the guard changed is said also where the goal counts as reached."""
    result = FollowJointTrajectory.Result()
    result.error_code = int(outcome.code)
    result.error_string = "; ".join(text for text in (outcome.message, changes) if text)
    return result


def _filled(message: Any, motion: GripperMotion) -> Any:
    """Result and feedback of gripper_cmd have the same fields."""
    message.position = motion.position
    message.effort = motion.effort_nm
    message.stalled = motion.stalled
    message.reached_goal = motion.reached
    return message


def _seconds(value: Time | Duration) -> float:
    return float(value.sec) + 1e-9 * float(value.nanosec)


def _waypoint(point: JointTrajectoryPoint) -> TrajectoryPoint:
    return TrajectoryPoint(
        _seconds(point.time_from_start),
        tuple(point.positions),
        tuple(point.velocities),
        tuple(point.accelerations),
    )


def _point(
    time_s: float, positions: Sequence[float], velocities: Sequence[float] = ()
) -> JointTrajectoryPoint:
    point = JointTrajectoryPoint()
    point.positions = list(positions)
    point.velocities = list(velocities)
    point.time_from_start.sec = int(time_s)
    point.time_from_start.nanosec = int((time_s - int(time_s)) * 1e9)
    return point
