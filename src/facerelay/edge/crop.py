"""A face cut out of its frame, and encoded."""

from __future__ import annotations

from typing import Final, Literal, cast

import cv2

from facerelay.edge.detect import Image

Format = Literal["jpeg", "png", "webp"]
Box = tuple[int, int, int, int]

_ENDING: Final = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}


def crop_box(box: tuple[float, float, float, float], frame_size: tuple[int, int], margin: float) -> Box:
    """Return x, y, width, height, in whole pixels, of a face with a margin, inside the frame.

    Args:
        box: x, y, width, height of the face, in pixels; it may reach over the frame's edge.
        frame_size: width and height of the frame.
        margin: added on each side, as a share of the box's width and height.

    Returns:
        At least one pixel wide and high.
    """
    x, y, w, h = box
    width, height = frame_size
    left = min(max(0, round(x - margin * w)), width - 1)
    top = min(max(0, round(y - margin * h)), height - 1)
    right = max(left + 1, min(width, round(x + w + margin * w)))
    bottom = max(top + 1, min(height, round(y + h + margin * h)))
    return left, top, right - left, bottom - top


def cut(image: Image, box: Box) -> Image:
    """Return a copy of a part of the picture, so that the frame itself can go."""
    x, y, w, h = box
    return image[y : y + h, x : x + w].copy()


def encode(
    image: Image,
    *,
    format: Format = "jpeg",  # noqa: A002 - the setting's name
    quality: int = 90,
    grey: bool = False,
    max_side: int = 640,
) -> bytes:
    """Encode a picture.

    Args:
        image: height x width x 3, BGR.
        format: `jpeg`, `png` or `webp`.
        quality: 1 to 100, of JPEG and WebP.
        grey: in shades of grey; WebP knows none, so there only its colours go.
        max_side: larger pictures are scaled down to this long side, in pixels.

    Raises:
        ValueError: OpenCV cannot encode it (an empty picture, an unknown format).
    """
    longest = max(image.shape[:2])
    if longest > max_side:
        height, width = (max(1, round(side * max_side / longest)) for side in image.shape[:2])
        image = cast("Image", cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    if grey and image.ndim == 3:  # noqa: PLR2004 - height, width, channels
        image = cast("Image", cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    options = {
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
        "png": [cv2.IMWRITE_PNG_COMPRESSION, 6],
    }
    try:
        done, data = cv2.imencode(_ENDING[format], image, options[format])
    except (cv2.error, KeyError) as error:
        raise ValueError(f"cannot encode a picture of {image.shape} as {format}") from error
    if not done:
        raise ValueError(f"cannot encode a picture of {image.shape} as {format}")
    return data.tobytes()
