"""Heads that lean and look aside, made from flat pictures, and how such a head is held.

Points are N×2 (x, y) in px; degrees are clockwise. A mesh has 468 points, `mean` is its mean face.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..crop import Crop, landmark_crop

BULGE = 0.7  # depth of a face at its middle over half its width; folds beyond atan(1/1.4), 35°


def turned(
    photo: np.ndarray, points: np.ndarray, degrees: float, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """A face's surroundings, 1.8 crops wide, turned about it, at `side` px; the points there."""
    crop = landmark_crop(points)
    around = Crop.at(crop.centre, 1.8 * crop.side, -np.deg2rad(degrees), side)
    return around.cut(photo), around.points(points)


def bend(u: np.ndarray, degrees: float) -> np.ndarray:
    """Where the place u of a face, -1..1 across it, is seen once the head has turned.

    u cos ψ + BULGE sin ψ (1 - u²); beside the face the picture just moves along.
    """
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.where(np.abs(u) <= 1, c * u + BULGE * s * (1 - u**2), u - np.sign(u) * (1 - c))


def aside(photo: np.ndarray, points: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """An upright picture and its points with the head turned by `degrees`, at most 30."""
    left, right = points[:, 0].min(), points[:, 0].max()
    middle, half = (left + right) / 2, (right - left) / 2
    fine = np.linspace(-8, 8, 8001)  # bend rises, so it can be read backwards
    places = (np.arange(photo.shape[1]) - middle) / half
    x = np.interp(places, bend(fine, degrees), fine) * half + middle
    columns, rows = np.meshgrid(np.float32(x), np.arange(photo.shape[0], dtype=np.float32))
    border = cv2.BORDER_REFLECT_101
    picture = cv2.remap(photo, columns, rows, cv2.INTER_CUBIC, borderMode=border).clip(0, 1)
    seen = middle + half * bend((points[:, 0] - middle) / half, degrees)
    return picture, np.c_[seen, points[:, 1]]


def roll_of(points: np.ndarray, mean: np.ndarray) -> float:
    """Degrees by which the mean face is turned to fit best (Procrustes, in complex numbers)."""
    a, b = (p - p.mean(0) for p in (np.float64(mean), points))
    fit = np.sum((b[:, 0] + 1j * b[:, 1]) * np.conj(a[:, 0] + 1j * a[:, 1]))
    return float(np.degrees(np.angle(fit)))


def yaw_of(points: np.ndarray, mean: np.ndarray) -> float:
    """Degrees, from where the nose tip stands between the sides of the upright face.

    The tip stands 1.29 half widths before them.
    """
    t = np.deg2rad(-roll_of(points, mean))
    left, tip, right = points[[234, 1, 454]] @ [np.cos(t), -np.sin(t)]
    return float(np.degrees(np.arctan((2 * tip - right - left) / (right - left) / 1.29)))


def apart(a: float, b: float) -> float:
    """Degrees between two directions, 0..180."""
    return abs((a - b + 180) % 360 - 180)


def label(bins: Sequence[tuple[float, float]], degrees: float) -> str:
    """The first of the bins, as words, that goes as far as `degrees` to either side."""
    return next(f"{low}..{high}°" for low, high in bins if abs(degrees) <= high)
