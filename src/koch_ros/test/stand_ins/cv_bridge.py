# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""cv_bridge's documented interface, with OpenCV behind it as in the original.

Source: ros-perception/vision_opencv, cv_bridge/python/cv_bridge/core.py. A first row and column
of "rggb" is what OpenCV calls BayerBG.
"""

import cv2
import numpy as np


class CvBridgeError(TypeError):
    """As the original's."""


_BAYER = {
    "bayer_rggb8": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr8": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGB2RGB,
}


class CvBridge:
    def imgmsg_to_cv2(self, img_msg, desired_encoding="passthrough"):
        wide = img_msg.encoding == "mono16"
        kind = np.dtype("uint16" if wide else "uint8")
        kind = kind.newbyteorder(">" if img_msg.is_bigendian else "<")
        rows = np.frombuffer(img_msg.data, kind).reshape(img_msg.height, -1)
        pixels = rows[:, : img_msg.width]
        if desired_encoding == "rgb8" and img_msg.encoding in _BAYER:
            return cv2.cvtColor(np.ascontiguousarray(pixels), _BAYER[img_msg.encoding])
        if desired_encoding == "rgb8" and wide:
            return cv2.cvtColor((pixels / 257.0).round().astype(np.uint8), cv2.COLOR_GRAY2RGB)
        raise CvBridgeError(f"[{img_msg.encoding}] is not a color format. but [rgb8] is.")
