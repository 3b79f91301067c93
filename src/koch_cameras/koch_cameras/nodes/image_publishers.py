# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The three topics of a camera: compressed, raw, camera_info."""

from __future__ import annotations

import array

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from koch_cameras.frame import CameraFrame
from koch_cameras.image import compressed, pixels
from koch_cameras.mjpeg_http import public_url
from koch_cameras.rig_camera import intrinsics_of
from koch_cameras.source import SourceConfig
from koch_rig.rig import Camera
from koch_ros.qos import IMAGE
from koch_ros.stamps import ros_time


class ImagePublishers:
    """Publishes images with one stamp on all topics, doing only what someone looks at."""

    def __init__(self, node: Node, camera: Camera, config: SourceConfig, quality: int) -> None:
        """Create the publishers.

        Args:
            node: Owner of the publishers; its namespace is that of the topics.
            camera: Name and intrinsics.
            config: Rotation and channel order.
            quality: JPEG quality 1..100 where encoding is needed.

        Raises:
            IntrinsicsError: The file named in the rig cannot be used.
        """
        self._config = config
        self._quality = quality
        self._source_name = public_url(str(config.index_or_path))
        self._frame_id = f"{camera.name}_optical_frame"
        self._info = CameraInfo(width=camera.width, height=camera.height)
        intrinsics = intrinsics_of(camera)
        if intrinsics is None:
            node.get_logger().warning(
                f"uncalibrated: run koch calibrate camera {camera.name} for camera_info"
            )
        else:
            intrinsics.fill_camera_info(self._info)
        base = f"{camera.name}/image_raw"
        self._compressed = node.create_publisher(CompressedImage, f"{base}/compressed", IMAGE)
        self._raw = node.create_publisher(Image, base, IMAGE)
        self._infos = node.create_publisher(CameraInfo, f"{camera.name}/camera_info", IMAGE)

    def publish(self, frame: CameraFrame, stamp_ns: int) -> None:
        """Publish an image with its stamp in ROS time [ns].

        Raises:
            CorruptFrameError: It had to be decoded and is damaged; a later topic may lack it.
        """
        header = Header(stamp=ros_time(stamp_ns), frame_id=self._frame_id)
        rotation = self._config.rotation
        untouched = frame.jpeg is not None and not rotation
        if untouched or self._compressed.get_subscription_count():
            data = compressed(self._source_name, frame, rotation, self._quality)
            message = CompressedImage(header=header, format="jpeg")
            # array.array passes the setter without a check of each byte.
            message.data = array.array("B", data)
            self._compressed.publish(message)
        self._info.header = header
        self._infos.publish(self._info)
        if self._raw.get_subscription_count():
            self._publish_raw(frame, header)

    def _publish_raw(self, frame: CameraFrame, header: Header) -> None:
        color_mode = self._config.color_mode
        image = pixels(self._source_name, frame, self._config.rotation, color_mode)
        height, width = image.shape[:2]
        message = Image(header=header, height=height, width=width, step=image[0].nbytes)
        message.encoding = "mono8" if image.ndim == 2 else f"{color_mode.value}8"
        # array.array passes the setter without a check of each byte.
        message.data = array.array("B", np.ascontiguousarray(image).tobytes())
        self._raw.publish(message)
