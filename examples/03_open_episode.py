# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Open an episode: what the recorder wrote, message by message.

An episode is a rosbag2 folder, so `ros2 bag play` and Foxglove open it as well. No ROS is needed
to read it here.

Output:
    task: Pick up the rectangular block and put it into the cup.
    /episodes/events  koch_interfaces/msg/EpisodeEvent
    ...
    /cameras/above/image_raw/compressed  sensor_msgs/msg/CompressedImage
    ...
    /follower/joint_states  sensor_msgs/msg/JointState
    /follower/joint_command  sensor_msgs/msg/JointState
    ...
    1306 joint states in 13.0 s, shoulder_pan from -48 to 17 deg
    196 images of (240, 320, 3)
"""

from pathlib import Path

import numpy as np

from koch_core.image import decode_image
from koch_episodes import StampedBag, open_bag
from koch_episodes.decode import joint_vector

ROOT = Path(__file__).resolve().parents[1]
EPISODE = ROOT / "docs" / "sample" / "episode_000000"
JOINTS, CAMERA = "/follower/joint_states", "/cameras/above/image_raw/compressed"


def main() -> None:
    """Read joint states and images of the sample episode."""
    times_s, angles, images = [], [], 0
    with open_bag(EPISODE) as bag:
        print(f"task: {bag.custom['koch.task']}")
        for topic in bag.topics.values():
            print(f"{topic.name}  {topic.type}")
        for message in StampedBag(bag, [JOINTS, CAMERA]).messages():
            if message.topic == JOINTS:
                times_s.append(message.stamp_ns / 1e9)  # when the servos were read
                angles.append(joint_vector(message.value.name, message.value.position))
            else:
                images += 1
                image = decode_image(bytes(message.value.data))  # uint8 RGB
    pan = np.degrees(np.array(angles)[:, 0])
    print(
        f"{len(angles)} joint states in {times_s[-1] - times_s[0]:.1f} s, "
        f"shoulder_pan from {pan.min():.0f} to {pan.max():.0f} deg"
    )
    print(f"{images} images of {image.shape}")


if __name__ == "__main__":
    main()
