"""Portraits that are hard to restore, made from good ones, with the reason why."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..face import detect
from ..image import resize
from .samples import worn


@dataclass(frozen=True)
class Case:
    """The hard photo, the good one it was made from, and why it is hard."""

    photo: np.ndarray
    truth: np.ndarray
    why: str


def lean(photo: np.ndarray, degrees: float = 45) -> np.ndarray:
    """The photo turned about its middle, mirrored at its border."""
    h, w = photo.shape[:2]
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), degrees, 1)
    border = cv2.BORDER_REFLECT_101
    return cv2.warpAffine(photo, turn, (w, h), borderMode=border).clip(0, 1)


def covered(photo: np.ndarray, low: tuple[float, float], high: tuple[float, float]) -> np.ndarray:
    """The photo with a dark patch on its largest face, from `low` to `high` (x, y), of its box."""
    box = np.array(detect(photo)[0].box)
    start, size = box[:2], box[2:] - box[:2]
    (x0, y0), (x1, y1) = (np.rint(start + np.array(p) * size).astype(int) for p in (low, high))
    photo = photo.copy()
    photo[max(y0, 0) : y1, max(x0, 0) : x1] = 0.15
    return photo


def cases(portrait: np.ndarray, seed: int) -> dict[str, Case]:
    """Name -> case, made of a portrait of 512×512 or so and of scikit-image's photographer."""
    import skimage.data

    from ..image import read

    aside, tiny = np.rot90(portrait).copy(), resize(portrait, (64, 64))
    leaning, photographer = lean(portrait), read(skimage.data.camera())

    def grain(photo: np.ndarray, sigma: float = 15.0) -> np.ndarray:
        return worn(photo, "gaussian_noise", sigma=sigma, seed=seed)

    half, eyes, mouth = (
        covered(portrait, low, high)
        for low, high in (
            ((-0.1, 0), (0.6, 1)),
            ((-0.1, 0), (1.1, 0.5)),
            ((-0.1, 0.45), (1.1, 1.1)),
        )
    )
    blurred = worn(portrait, "gaussian_blur", sigma=12.0)
    rows = {
        "upright": (grain(portrait), portrait, "an easy one, to compare with"),
        "sideways": (grain(aside), aside, "looked for in quarter turns, and cut upright"),
        "leaning": (grain(leaning), leaning, "a detector bears some lean; the crop is upright"),
        "profile": (grain(photographer), photographer, "half of the points are hidden"),
        "half covered": (half, portrait, "enough is left to be found; a cover is not removed"),
        "eyes covered": (eyes, portrait, "without eyes the detector sees no face"),
        "mouth covered": (mouth, portrait, "nor without nose and mouth"),
        "too small": (grain(tiny), tiny, "under 16 px there is nothing to restore from"),
        "heavy noise": (grain(portrait, 120.0), portrait, "its cleared copy is not clear enough"),
        "heavy blur": (blurred, portrait, "no feature is left: a face drawn here is not hers"),
    }
    return {name: Case(*row) for name, row in rows.items()}
