# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Show a camera: open it, read images, save one.

The source is the video of the sample dataset. In its place you can give 0 or "/dev/video0" (USB),
"http://..." (MJPEG) or "rtsp://...": the rest stays the same.

Output:
    H264 320x240 15 fps
    image 0 at 0.000 s: rgb8 (240, 320, 3)
    image 1 at 0.067 s: rgb8 (240, 320, 3)
    image 2 at 0.133 s: rgb8 (240, 320, 3)
    saved camera.jpg
"""

from pathlib import Path

from koch_cameras import SourceConfig, open_source
from koch_core.image import encode_jpeg

ROOT = Path(__file__).resolve().parents[1]
VIDEOS = ROOT / "docs" / "sample" / "dataset" / "videos" / "observation.images.above"


def main() -> None:
    """Read three images."""
    source = open_source(SourceConfig(str(VIDEOS / "chunk-000" / "file-000.mp4")))
    try:
        print(source.mode)
        begin_ns = 0
        for _ in range(3):
            frame = source.read()  # waits for the next image; SourceStalledError after 2 s
            begin_ns = begin_ns or frame.time_ns
            # A USB or MJPEG camera gives frame.jpeg, the bytes as they came, and no pixels.
            assert frame.pixels is not None
            after_s = (frame.time_ns - begin_ns) / 1e9
            print(
                f"image {frame.sequence} at {after_s:.3f} s: "
                f"{frame.encoding.value} {frame.pixels.shape}"
            )
        Path("camera.jpg").write_bytes(encode_jpeg(frame.pixels, quality=90))
        print("saved camera.jpg")
    finally:
        source.close()


if __name__ == "__main__":
    main()
