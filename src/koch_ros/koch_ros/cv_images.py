# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Raw images that `koch_core.image` does not know, through cv_bridge: Bayer, 16 bits, float.

Found by its entry point, and asked only where cv_bridge can be imported. pip does not have it.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from cv_bridge import CvBridge, CvBridgeError

from koch_core.errors import DecodeError
from koch_core.image import CV_BRIDGE, RAW_IMAGES, Image

_BRIDGE = CvBridge()


@RAW_IMAGES.register(CV_BRIDGE)
def decode(encoding: str, height: int, width: int, step: int, data: bytes | memoryview) -> Image:
    """Turn the pixels of a sensor_msgs/Image into RGB, as `koch_core.image.raw_image`."""
    message = SimpleNamespace(
        encoding=encoding, height=height, width=width, step=step, data=bytes(data), is_bigendian=0
    )
    try:
        return np.array(_BRIDGE.imgmsg_to_cv2(message, desired_encoding="rgb8"), np.uint8)
    except (CvBridgeError, ValueError, TypeError) as exc:
        raise DecodeError("image", f"encoding {encoding!r}: cv_bridge says: {exc}") from exc
