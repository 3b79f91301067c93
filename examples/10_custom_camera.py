# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A camera of your own: anything that gives frames with the time at which they were taken.

A source has `mode`, `read` and `close` (`koch_cameras.FrameSource`). `CaptureLoop`, which the
camera node uses, reads it in a thread and opens it again when it is lost: here after frame 5.

Output:
    opened: stream 64x48 50 fps
    lost: the cable is out
    opened: stream 64x48 50 fps
    ... frames, connections 1 and 2, brightness 0 to 250
"""

import time

import numpy as np

from koch_cameras import CameraError, CameraFrame, CaptureLoop, Encoding, LinkState, Mode, TimeBase

PERIOD_S = 0.02


class RampCamera:
    """A grey image that gets brighter; its cable falls out once, after five frames."""

    opened = 0

    def __init__(self) -> None:
        RampCamera.opened += 1
        self._sequence = 0
        self.mode = Mode(width=64, height=48, fps=1.0 / PERIOD_S, fourcc="")

    def read(self) -> CameraFrame:
        """Wait for the next image."""
        if RampCamera.opened == 1 and self._sequence == 5:
            raise CableOut("the cable is out")
        time.sleep(PERIOD_S)
        stamp_ns = time.monotonic_ns()  # when the image was taken, not when it was decoded
        image = np.full((48, 64), min(10 * self._sequence, 250), dtype=np.uint8)
        self._sequence += 1
        return CameraFrame(
            self._sequence, stamp_ns, TimeBase.MONOTONIC, Encoding.MONO8, 64, 48, image
        )

    def close(self) -> None:
        """Release the device."""


class CableOut(CameraError):
    """Worth another try, unlike a wrong setting."""

    retry = True


def tell(state: LinkState) -> None:
    """Say each change of the connection."""
    print(f"opened: {state.mode}" if state.connected else f"lost: {state.error}")


def main() -> None:
    """Take frames until the ramp is at its end."""
    loop = CaptureLoop(RampCamera, on_change=tell)
    loop.start()
    connections, levels = set(), []
    while 250 not in levels:
        delivery = loop.take(timeout_s=2.0)
        if delivery is None or delivery.frame.pixels is None:  # the connection was lost just now
            continue
        connections.add(delivery.connection)
        levels.append(int(delivery.frame.pixels[0, 0]))
    loop.close()
    numbers = " and ".join(map(str, sorted(connections)))
    brightness = f"brightness {min(levels)} to {max(levels)}"
    print(f"{len(levels)} frames, connections {numbers}, {brightness}")


if __name__ == "__main__":
    main()
