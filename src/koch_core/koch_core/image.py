# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Images from bytes and back: JPEG, PNG and the raw encodings of sensor_msgs/Image.

All code that looks into an image's bytes is here, for cameras, recorder, converter, policy and
simulation alike. JPEG goes through libjpeg-turbo (simplejpeg): strict, so that damage is an error
and not a grey patch. What it does not know (PNG, MJPEG without Huffman tables, planes for an
encoder) goes through FFmpeg (PyAV). Both are imported where they are used: a policy that runs in
LeRobot's Python gets arrays, and needs neither.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from koch_core.errors import DecodeError, KochError
from koch_core.registry import Registry

if TYPE_CHECKING:
    import av

Image = npt.NDArray[np.uint8]
Crop = tuple[float, float, float, float]
"""A box in an image: left, top, width, height as fractions of the whole, whatever its size."""
DecodeRaw = Callable[[str, int, int, int, "bytes | memoryview"], Image]
"""Encoding, height, width, step and data of a sensor_msgs/Image to RGB, as `raw_image`."""

#: Decoders of raw images beyond those of `raw_image`, by encoding.
RAW_IMAGES: Registry[DecodeRaw] = Registry("raw image encoding", "koch_vla.raw_images")
CV_BRIDGE = "cv_bridge"  # the one that tries any encoding

_RAW_CHANNELS = {
    "rgb8": 3,
    "bgr8": 3,
    "8UC3": 3,
    "rgba8": 4,
    "bgra8": 4,
    "mono8": 1,
    "8UC1": 1,
    "yuv422_yuy2": 2,  # the two orders of sensor_msgs/image_encodings.hpp, old names and new
    "yuyv": 2,
    "yuv422": 2,
    "uyvy": 2,
}
_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
# Some UVC cameras pad the packet behind the end marker.
_PADDING_BYTES = 4096
# Start-of-frame markers (ITU-T T.81, table B.1) without DHT (C4), JPG (C8) and DAC (CC).
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL_MARKERS = frozenset((0xC0, 0xC1))
_SCAN_MARKER = 0xDA
# Inside a scan: FF 00 is a byte of data, FF D0..D7 are restart markers, FF FF is padding.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def is_png(data: bytes) -> bool:
    """Tell whether a compressed image is a PNG."""
    return data[:8] == _PNG_START


def image_size(data: bytes) -> tuple[int, int]:
    """Read (height, width) in [px] from a JPEG or PNG header, and check that it is complete.

    A few microseconds; nothing is decoded.

    Raises:
        DecodeError: Not a JPEG or PNG, or cut off.
    """
    if is_png(data):
        if len(data) < 33 or b"IEND" not in data[-12:]:
            raise DecodeError("PNG image", "cut off")
        width, height = struct.unpack(">II", data[16:24])
        if data[24] == 16:
            # A depth image in millimetres: 8 bits of it would show nothing.
            raise DecodeError("PNG image", "16 bits per channel, expected 8 (a depth image?)")
        return height, width
    if data[:2] != _JPEG_START:
        raise DecodeError(
            "image", f"{len(data)} bytes, neither JPEG nor PNG (starts with {data[:4].hex()!r})"
        )
    if data[-2:] != _JPEG_END and data.rfind(_JPEG_END, max(0, len(data) - _PADDING_BYTES)) < 0:
        raise DecodeError("JPEG image", "cut off (no end marker)")
    place = 2
    while place + 9 <= len(data):
        if data[place] != 0xFF:
            break
        marker = data[place + 1]
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return height, width
        if marker == 0xFF:
            place += 1
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    raise DecodeError("JPEG image", "no frame header")


def check_jpeg(data: bytes) -> None:
    """Check that a JPEG's segments follow one another and that its scan ends with the image.

    FFmpeg passes over a broken header and paints what it can; libjpeg refuses such an image.

    Raises:
        DecodeError: They do not.
    """
    place, components = 2, 0
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker in _SEQUENTIAL_MARKERS and place + 9 < len(data):
            components = data[place + 9]
        start = place + 4
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _SCAN_MARKER:
            end = _AFTER_SCAN.search(data, place)
            # An image of several scans has markers between them.
            one_scan = data[start : start + 1] == bytes([components])
            if one_scan and (end is None or end[0] != _JPEG_END):
                raise DecodeError("JPEG image", "a marker inside the image data")
            return
    raise DecodeError("JPEG image", f"no segment at byte {place}")


def decode_image(data: bytes, *, bgr: bool = False) -> Image:
    """Decode a compressed image (JPEG, with or without Huffman tables, or PNG).

    Args:
        data: The `data` field of a sensor_msgs/CompressedImage.
        bgr: Blue first, as OpenCV has it.

    Returns:
        RGB or BGR, uint8, shape (H, W, 3).

    Raises:
        DecodeError: The image is cut off or damaged anywhere.
    """
    import simplejpeg

    image_size(data)
    if not is_png(data):
        try:
            # strict: libjpeg's warnings (it paints what is missing grey) are errors here.
            order = "BGR" if bgr else "RGB"
            return cast(Image, simplejpeg.decode_jpeg(data, colorspace=order, strict=True))
        except ValueError as exc:
            if "Huffman" not in str(exc) and "DHT" not in str(exc):
                raise DecodeError("JPEG image", str(exc)) from exc
    from koch_core.yuv import rgb_of_frame

    rgb = rgb_of_frame(PacketDecoder().decode(data))
    return rgb[:, :, ::-1] if bgr else rgb


def grey_eighth(data: bytes) -> Image:
    """Decode a JPEG to grey at an eighth of its size: for a look each second, not for eyes.

    Returns:
        uint8, shape (ceil(H / 8), ceil(W / 8)).

    Raises:
        DecodeError: The decoder found damage.
    """
    import simplejpeg

    try:
        grey = simplejpeg.decode_jpeg(data, colorspace="GRAY", min_factor=8, strict=True)
    except ValueError as exc:
        raise DecodeError("JPEG image", str(exc)) from exc
    return cast(Image, grey[:, :, 0])


def encode_jpeg(image: Image, quality: int, *, bgr: bool = False, fast: bool = False) -> bytes:
    """Encode an image of shape (H, W, 3) or (H, W) as JPEG.

    Args:
        image: uint8; RGB unless told otherwise.
        quality: 1..100.
        bgr: Blue first.
        fast: A quicker and slightly less exact cosine transform, for rendered images.
    """
    import simplejpeg

    order, subsampling = ("BGR" if bgr else "RGB"), "420"
    if image.ndim == 2:
        image, order, subsampling = image[:, :, None], "GRAY", "Gray"
    data = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image),
        quality=quality,
        colorspace=order,
        colorsubsampling=subsampling,
        fastdct=fast,
    )
    return cast(bytes, data)


def crop_rgb(image: Image, crop: Crop) -> Image:
    """Cut a box out of an RGB image (..., H, W, 3), the same way live and in training."""
    rows, columns = crop_slices(image.shape[-3], image.shape[-2], crop)
    return image[..., rows, columns, :]


def crop_slices(height: int, width: int, crop: Crop) -> tuple[slice, slice]:
    """Return the rows and columns of a box; at least one pixel each."""
    left, top, wide, high = crop
    first_row = min(round(top * height), height - 1)
    first_column = min(round(left * width), width - 1)
    last_row = max(first_row + 1, round((top + high) * height))
    last_column = max(first_column + 1, round((left + wide) * width))
    return slice(first_row, last_row), slice(first_column, last_column)


def resize_rgb(image: Image, height: int, width: int) -> Image:
    """Resize an RGB image (area average), the same way live and in training.

    Args:
        image: uint8, shape (H, W, 3).
        height: New height in [px].
        width: New width in [px].
    """
    if image.shape[:2] == (height, width):
        return image
    import av
    from av.video.reformatter import Interpolation, VideoReformatter

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    scaled = VideoReformatter().reformat(
        frame, width=width, height=height, format="rgb24", interpolation=Interpolation.AREA
    )
    return np.asarray(scaled.to_ndarray(), dtype=np.uint8)


def fit_rgb(
    image: Image,
    height: int,
    width: int,
    *,
    crop: Sequence[float] | None = None,
    resizes: bool = True,
) -> Image:
    """Bring RGB images (..., H, W, 3) to the size that a policy was trained with.

    One that has this size is prepared already, it comes from a dataset's reader, and stays.

    Args:
        image: uint8.
        height: Of the policy's images, in [px].
        width: Of the policy's images, in [px].
        crop: What it saw of them: left, top, width, height as fractions.
        resizes: Whether it was trained with images of another size than the camera's.
    """
    if image.shape[-3:-1] == (height, width):
        return image
    if crop is not None:
        left, top, wide, high = crop
        image = crop_rgb(image, (left, top, wide, high))
    if not resizes or image.shape[-3:-1] == (height, width):
        return image
    if image.ndim == 3:
        return resize_rgb(image, height, width)
    return np.stack([resize_rgb(step, height, width) for step in image])


def save_image(path: Path, image: Image) -> None:
    """Write an image; the ending of the name chooses the format.

    Raises:
        KochError: The ending names no image format.
    """
    import cv2  # a quarter of a second, which the other subcommands do not need

    order = image if image.ndim == 2 else image[:, :, ::-1]
    try:
        done, data = cv2.imencode(path.suffix or ".png", order)
    except cv2.error:
        done = False
    if not done:
        raise KochError(f"{path}: got a kind of image that cannot be written, expected .png")
    path.write_bytes(data.tobytes())


def to_grey(image: Image) -> Image:
    """Luma of an RGB image (ITU-R BT.601); a grey image as it is. uint8, shape (H, W)."""
    if image.ndim == 2:
        return image
    import cv2

    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def raw_image(
    encoding: str, height: int, width: int, step: int, data: bytes | memoryview
) -> Image:
    """Turn the pixels of a sensor_msgs/Image into RGB.

    Args:
        encoding: ``rgb8 bgr8 rgba8 bgra8 mono8 8UC1 8UC3 yuv422_yuy2 yuyv yuv422 uyvy``, or one
            that an installed package registers in `RAW_IMAGES`.
        height: Rows in [px].
        width: Columns in [px].
        step: Bytes per row, padding included.
        data: Pixels, height * step bytes.

    Returns:
        RGB, uint8, shape (H, W, 3), own memory.

    Raises:
        DecodeError: Unknown encoding, or too few bytes.
    """
    channels = _RAW_CHANNELS.get(encoding)
    if channels is None:
        other = _other_decoder(encoding)
        if other is not None:
            return other(encoding, height, width, step, data)
        raise DecodeError(
            "image",
            f"encoding {encoding!r}, expected one of {', '.join(_RAW_CHANNELS)}, "
            "or cv_bridge of a ROS installation, which knows others",
        )
    flat = np.frombuffer(data, dtype=np.uint8)
    if height < 1 or width < 1 or step < width * channels or flat.size < height * step:
        raise DecodeError(
            "image", f"{flat.size} bytes do not hold {height} rows of {step} for {width} px"
        )
    rows = flat[: height * step].reshape(height, step)[:, : width * channels]
    pixels = rows.reshape(height, width, channels)
    if encoding in ("rgb8", "8UC3"):
        return np.array(pixels)
    if encoding == "rgba8":
        return np.array(pixels[..., :3])
    if encoding in ("bgr8", "bgra8"):
        return np.array(pixels[..., 2::-1])
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    if width % 2:
        raise DecodeError("image", f"{encoding} of {width} px in a row, expected an even number")
    if encoding in ("yuv422", "uyvy"):
        pixels = pixels[..., ::-1]  # chroma first
    import av

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="yuyv422")
    return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)


@lru_cache
def _other_decoder(encoding: str) -> DecodeRaw | None:
    """What another package registers for an encoding, else cv_bridge where it is installed."""
    found = RAW_IMAGES.find(encoding)
    if found is None and find_spec("cv_bridge") is not None:
        return RAW_IMAGES.find(CV_BRIDGE)
    return found


class PacketDecoder:
    """Decodes JPEG or PNG packets to FFmpeg frames in the image's own pixel format."""

    def __init__(self) -> None:
        self._contexts: dict[str, Any] = {}

    def decode(self, data: bytes) -> av.VideoFrame:
        """Decode one image.

        Raises:
            DecodeError: The image is cut off or damaged anywhere.
        """
        import av

        name = "png" if data[:4] == b"\x89PNG" else "mjpeg"
        if name == "mjpeg":
            check_jpeg(data)
        context: Any = self._contexts.get(name)
        if context is None:
            context = self._contexts[name] = av.CodecContext.create(name, "r")
            context.thread_count = 1
            context.options = {"err_detect": "explode"}
        packet = av.Packet(data)
        # Without the flag FFmpeg takes a PNG for a difference to the one before and adds them up.
        packet.is_keyframe = True
        try:
            frames = context.decode(packet)
        except (av.FFmpegError, ValueError) as exc:
            del self._contexts[name]
            raise DecodeError(f"{name} image", str(exc)) from exc
        if len(frames) != 1 or frames[0].is_corrupt:
            del self._contexts[name]
            raise DecodeError(f"{name} image", "holds no complete frame")
        frame: av.VideoFrame = frames[0]
        return frame
