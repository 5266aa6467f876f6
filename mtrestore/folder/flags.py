"""What a look at a result should not miss, in a word: no face, soft, blurred.

A picture is soft where half its width would hold all its detail, and blurred where a quarter would,
both as a screen shows it; one without any contrast is neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .. import image

SCREEN = 1280  # px, the long side that is looked at
BLOCK = 16  # px: of squares of this side those with the most detail count
LOST = {4: ("blurred", 3.5), 2: ("soft", 2.5)}  # 1/255, at Gaussian blurs of about 3 and 1.5 px
CONTRAST = 4  # 1/255, the standard deviation of a picture that is not flat


def flags(samples: np.ndarray, faces: Sequence[str], looked: bool) -> list[str]:
    """The words for a result (photo or samples) with faces of these statuses, if any was looked
    for.
    """
    photo = image.as_photo(image.shrink(samples, SCREEN))
    grey = np.ascontiguousarray(photo.mean(-1))
    words = ["no face"] if looked and not faces else []
    if 255 * grey.std() > CONTRAST:
        words += [word for k, (word, least) in LOST.items() if lost(grey, k) < least][:1]
    return words


def lost(grey: np.ndarray, k: int) -> float:
    """RMS, in 1/255, of what the most detailed squares of a picture lose at 1/k of its width."""
    size = grey.shape[::-1]
    small = tuple(max(1, n // k) for n in size)
    back = cv2.resize(
        cv2.resize(grey, small, interpolation=cv2.INTER_AREA), size, interpolation=cv2.INTER_CUBIC
    )
    squares = tuple(max(1, n // BLOCK) for n in size)
    squares = cv2.resize((back - grey) ** 2, squares, interpolation=cv2.INTER_AREA)
    return 255 * float(np.sqrt(np.quantile(squares, 0.98)))
