# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The camera node: publishes what one camera of the rig gives."""

from __future__ import annotations

import sys
import threading
import time
import traceback

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from koch_interfaces.msg import StreamState
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rclpy.time import Time

from koch_cameras.capture_loop import Backoff, CaptureLoop, Delivery, LinkState
from koch_cameras.errors import CorruptFrameError
from koch_cameras.frame import TimeBase
from koch_cameras.image import thumbnail
from koch_cameras.mjpeg_http import public_url
from koch_cameras.nodes.diagnostics import CameraFacts, camera_status
from koch_cameras.nodes.image_publishers import ImagePublishers
from koch_cameras.nodes.parameters import CameraParameters
from koch_cameras.open_source import open_source
from koch_cameras.rig_camera import (
    expectation_of,
    find_camera,
    usb_neighbours,
)
from koch_cameras.source import SourceConfig
from koch_cameras.stamp import FrameGate, ros_stamp
from koch_cameras.watch import ImageFault, StreamWatch
from koch_core.errors import KochError
from koch_rig.load import load_rig
from koch_rig.stream import camera_stream
from koch_ros.node import on_stop
from koch_ros.parameters import declare
from koch_ros.qos import DIAGNOSTICS, LATCHED

# Some images a second are decoded small: a share of damaged ones of 10 % shows within two seconds.
# Every image is, while damaged ones come, so that none of these is published.
_LOOK_PERIOD_S = 0.2
_TAKE_TIMEOUT_S = 0.2


class CameraNode(Node):
    """One camera. Threads: capture (owns the source), work (publishes), executor (diagnostics).

    The work thread alone touches gate and publishers; the watch is shared with the diagnostics
    timer under a lock.
    """

    def __init__(
        self,
        *,
        parameter_overrides: list[Parameter] | None = None,
        finished: Future[int] | None = None,
    ) -> None:
        """Load the rig and start.

        Args:
            parameter_overrides: Values in place of those of the command line.
            finished: Gets the exit code once the camera can give nothing more.

        Raises:
            KochError: The rig or the camera's settings cannot be used.
        """
        super().__init__("camera", namespace="cameras", parameter_overrides=parameter_overrides)
        self._settings = declare(self, CameraParameters)
        rig = load_rig(self._settings.rig)
        camera = find_camera(rig, self._settings.camera)
        self._config = SourceConfig.from_rig(
            camera, timeout_s=self._settings.timeout_s, loop=self._settings.loop
        )
        self._source_name = public_url(str(self._config.index_or_path))
        self._images = ImagePublishers(self, camera, self._config, self._settings.jpeg_quality)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
        self._lock = threading.Lock()
        self._watch = StreamWatch(expectation_of(rig, camera, self._settings))
        self._gate = FrameGate()
        self._damaged = 0
        self._foreign_clock = False
        self._awaits_world = rig.simulation is not None
        self._next_look_s = 0.0
        self._cut_off = 0
        self._told = False
        self._said: ImageFault | None = None
        self._state = self.create_publisher(StreamState, f"{camera.name}/state", LATCHED)
        self._stream = camera_stream(camera.name)
        self._sharers = usb_neighbours(self._config.index_or_path)
        self.finished: Future[int] = Future() if finished is None else finished
        self._capture = CaptureLoop(
            lambda: open_source(self._config),
            backoff=Backoff(longest_s=self._settings.reconnect_longest_s),
            on_change=self._log_change,
        )
        self._closing = threading.Event()
        self._worker = threading.Thread(target=self._work, name="camera work", daemon=True)
        self.create_timer(1.0, self._report)
        self._capture.start()
        self._worker.start()

    def close(self) -> None:
        """Stop both threads; harmless when called twice."""
        self._closing.set()
        self._capture.close()
        self._worker.join(timeout=5.0)

    def _log_change(self, state: LinkState) -> None:
        """Called by the capture thread at each change."""
        if state.ended:
            self.get_logger().info(state.error)
        elif state.error and self._awaits_world:
            # A simulated world opens its cameras some seconds after the nodes have started.
            self.get_logger().info(f"{self._source_name}: waiting for the simulated camera")
        elif state.error:
            self.get_logger().error(state.error)
        else:
            self._awaits_world = False
            self.get_logger().info(f"{self._source_name}: streaming {state.mode}")

    def _work(self) -> None:
        try:
            while not self._closing.is_set():
                delivery = self._capture.take(_TAKE_TIMEOUT_S)
                if delivery is not None:
                    self._handle(delivery)
                elif (state := self._capture.state()).fatal is not None:
                    self.finished.set_result(2)
                    return
                elif state.ended:
                    self.finished.set_result(0)
                    return
        except Exception:  # top of a thread: the node ends, and says why
            if not self._closing.is_set() and rclpy.ok(context=self.context):
                self.get_logger().fatal(traceback.format_exc())
                self.finished.set_result(1)

    def _handle(self, delivery: Delivery) -> None:
        frame = delivery.frame
        ros_now_ns = self.get_clock().now().nanoseconds
        sim_time = self.get_clock().ros_time_is_active
        if sim_time and ros_now_ns == 0 and frame.time_base is TimeBase.MONOTONIC:
            return  # no /clock yet: there is no time to stamp this image with
        stamp = ros_stamp(
            frame,
            arrival_ns=delivery.arrival_ns,
            monotonic_ns=time.monotonic_ns(),
            ros_now_ns=ros_now_ns,
            sim_time=sim_time,
        )
        if not self._gate.passes(frame, stamp, ros_now_ns, delivery.connection):
            return
        try:
            self._look(delivery)
            self._images.publish(frame, stamp.ros_ns)
        except CorruptFrameError as exc:
            self._damaged += 1
            self.get_logger().warning(str(exc), throttle_duration_sec=5.0)
            with self._lock:
                self._watch.damaged(1, time.monotonic_ns())
            self._tell(stamp.ros_ns)
            return
        self._foreign_clock = stamp.foreign_clock
        with self._lock:
            self._watch.add(
                frame,
                stamp_ns=stamp.ros_ns,
                arrival_ns=delivery.arrival_ns,
                latency_s=(self.get_clock().now().nanoseconds - stamp.ros_ns) / 1e9,
                connection=delivery.connection,
            )
        self._tell(stamp.ros_ns)

    def _look(self, delivery: Delivery) -> None:
        """Decode an image small, some times a second: damage and blackness show only then."""
        cut_off = self._capture.state().corrupt
        now_ns = time.monotonic_ns()
        with self._lock:
            self._watch.damaged(cut_off - self._cut_off, now_ns)
            wanted = self._watch.wants_look(now_ns)
        self._cut_off = cut_off
        if now_ns < self._next_look_s * 1e9 and not wanted:
            return
        self._next_look_s = now_ns / 1e9 + _LOOK_PERIOD_S
        small = thumbnail(self._source_name, delivery.frame)
        with self._lock:
            self._watch.look(small)

    def _tell(self, stamp_ns: int) -> None:
        """Say whether images are usable, once at the start and whenever it changes.

        Recorder, converter and policy node obey this. Called with the stamp of the newest image.
        """
        with self._lock:
            fault = self._watch.fault(time.monotonic_ns())
        if self._told and (fault is None) == (self._said is None):
            return
        self._told, self._said = True, fault
        since_ns = stamp_ns if fault is None else fault.since_ns
        message = StreamState(stream=self._stream, usable=fault is None)
        message.header.stamp = self.get_clock().now().to_msg()
        message.since = Time(nanoseconds=since_ns).to_msg()
        message.reason = "" if fault is None else fault.reason
        self._state.publish(message)
        if fault is not None:
            self.get_logger().error(f"{self._source_name}: unusable: {fault.reason}")

    def _report(self) -> None:
        """1 Hz, in the executor."""
        with self._lock:
            stream = self._watch.report(time.monotonic_ns())
        extras = CameraFacts(
            refused=self._gate.refused,
            damaged=self._damaged,
            foreign_clock=self._foreign_clock,
            sharers=self._sharers,
        )
        name = f"{self.get_fully_qualified_name()}: stream"
        status = camera_status(name, self._source_name, self._capture.state(), stream, extras)
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop; 2 = the rig or the camera cannot be used."""
    finished: Future[int] = Future()
    with on_stop(lambda: finished.set_result(0)):
        # rclpy's own handlers would invalidate the context under the capture thread.
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = CameraNode(finished=finished)
        except KochError as exc:
            rclpy.logging.get_logger("camera").fatal(str(exc))
            rclpy.try_shutdown()
            return 2
        try:
            rclpy.spin_until_future_complete(node, finished)
        finally:
            node.close()
            node.destroy_node()
            rclpy.try_shutdown()
    return int(finished.result())


if __name__ == "__main__":
    sys.exit(main())
