"""Where a face lies on a photo, and how to cut it out upright and paste it back.

A `Crop` is a similarity (turn, one scale, shift; never a mirror) from the pixels of a small square
picture to the pixels of the photo. Cutting samples the photo at the crop's pixels, pasting samples
the restored face at the photo's pixels, both through one function, `warp`, which antialiases
whenever it shrinks. Pixel coordinates are pixel centres: the first pixel's centre is (0, 0), x
right, y down, so enlarging a photo by k maps x to k x + (k - 1) / 2. Two rules place a crop:
`landmark_crop` (minimum-area rectangle) and `eye_crop`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from .image import as_photo, as_samples

FEATHER = 0.125  # the mask rises over this share of the side: full over the middle 75 %

# Framing, fitted so that the three rules agree (medians over 2,899 aligned faces): about 0.91 of
# FFHQ's side, hair and chin inside. landmark_crop: expand, and lift towards the forehead in sides
# of the rectangle (hair is no landmark); eye_crop: expand, and how far from the eyes to the mouth.
MESH_RULE = (1.4, 0.10)
FIVE_RULE = (3.49, 0.29)
EYE_RULE = (3.68, 0.20)


def five_from_mesh(points: np.ndarray) -> np.ndarray:
    """468 mesh points -> (5, 2): viewer's left eye, right eye, nose tip, left and right mouth
    corner. Five points pass through.
    """
    p = np.asarray(points, np.float64)
    if len(p) == 5:
        return p
    return np.stack([(p[33] + p[133]) / 2, (p[362] + p[263]) / 2, p[1], p[61], p[291]])


def fit_size(side: float, scale: float = 1.0, least: int = 64, most: int = 512) -> int:
    """Net size for a face: the smallest multiple of 32 that holds side x scale pixels, kept within
    least..most.

    An untouched cut pasted back on a photo of scale 1 is within 44 dB where this leaves no spare
    pixels (a turned grid holds a little less than the photo's), 49 dB from 1.2 times as many;
    enlarged photos, which hold nothing so fine, 53 dB and more.

    >>> fit_size(100), fit_size(100, scale=2), fit_size(9), fit_size(3000)
    (128, 224, 64, 512)
    """
    return int(min(max(32 * math.ceil(side * scale / 32 - 1e-9), least), most))


@dataclass(frozen=True, eq=False)
class Crop:
    """A square of `size` x `size` pixels laid on a photo; `matrix` (2, 3) takes its pixel
    coordinates to the photo's.
    """

    matrix: np.ndarray
    size: int

    def __post_init__(self) -> None:
        m = np.array(self.matrix, np.float64)
        if m.shape != (2, 3) or not np.isfinite(m).all():
            raise ValueError(
                f"a crop needs a finite 2 x 3 matrix, got shape {m.shape}: {m.tolist()}; "
                "check the landmarks"
            )
        (a, b, _), (c, d, _) = m
        if not math.hypot(a, c) > 0 or abs(a - d) + abs(b + c) > 1e-6 * math.hypot(a, c):
            raise ValueError(
                f"a crop turns, scales and shifts without mirror or shear, got {m.tolist()}; "
                "use landmark_crop or eye_crop"
            )
        if int(self.size) != self.size or self.size < 1:
            raise ValueError(
                f"a crop's size is a whole number of pixels from 1 up, got {self.size}"
            )
        m.flags.writeable = False
        object.__setattr__(self, "matrix", m)
        object.__setattr__(self, "size", int(self.size))

    @classmethod
    def at(cls, centre: ArrayLike, side: float, roll: float, size: int) -> Crop:
        """A crop by its centre (x, y) and side in photo pixels, turned by `roll` radians (clockwise
        as seen).
        """
        k = side / size
        turn = k * np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
        shift = np.asarray(centre, np.float64) - turn @ np.full(2, (size - 1) / 2)
        return cls(np.c_[turn, shift], size)

    @property
    def side(self) -> float:
        """The crop's side in photo pixels."""
        return self.size * math.hypot(*self.matrix[:, 0])

    @property
    def centre(self) -> np.ndarray:
        """The crop's middle (x, y) on the photo."""
        return self.matrix @ [(self.size - 1) / 2, (self.size - 1) / 2, 1]

    @property
    def roll(self) -> float:
        """How far the crop is turned clockwise, in radians, -pi..pi."""
        return math.atan2(self.matrix[1, 0], self.matrix[0, 0])

    @property
    def inverse(self) -> np.ndarray:
        """(2, 3): photo pixel coordinates -> crop pixel coordinates."""
        turn = np.linalg.inv(self.matrix[:, :2])
        return np.c_[turn, -turn @ self.matrix[:, 2]]

    def points(self, xy: ArrayLike) -> np.ndarray:
        """Photo points (N, 2) in the crop's pixel coordinates."""
        return np.asarray(xy, np.float64) @ self.inverse[:, :2].T + self.inverse[:, 2]

    def on_photo(self, xy: ArrayLike) -> np.ndarray:
        """Crop points (N, 2) in the photo's pixel coordinates: the way back of `points`."""
        return np.asarray(xy, np.float64) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def corners(self) -> np.ndarray:
        """(4, 2) outer corners on the photo: top left, top right, bottom right, bottom left as the
        face sees itself upright.
        """
        low, high = -0.5, self.size - 0.5
        return self.on_photo([[low, low], [high, low], [high, high], [low, high]])

    def resized(self, size: int) -> Crop:
        """The same place of the photo in a crop of another size."""
        return Crop.at(self.centre, self.side, self.roll, size)

    def scaled(self, k: float | tuple[float, float]) -> Crop:
        """The crop for the photo enlarged by k. A pair (kx, ky) = new over old width and height is
        exact for rounded picture sizes too.
        """
        kx, ky = k if isinstance(k, tuple) else (k, k)
        factors = np.array([kx, ky], np.float64)
        centre = self.centre * factors + (factors - 1) / 2
        return Crop.at(centre, self.side * math.sqrt(kx * ky), self.roll, self.size)

    def cut(self, photo: np.ndarray) -> np.ndarray:
        """The upright face, size x size x 3 in 0..1; antialiased when shrinking, mirrored beyond
        the photo's edge.
        """
        return warp(photo, self.matrix, (self.size, self.size))

    def mask(self, shape: Sequence[int]) -> np.ndarray:
        """The feathered mask on a photo of `shape` (H, W, ...): H x W float32, 1 in the middle 75
        %, exactly 0 from the border on.
        """
        out = np.zeros(shape[:2], np.float32)
        rows, cols = self._region(shape)
        out[rows, cols] = self._feather(rows, cols)
        return out

    def paste(
        self, photo: np.ndarray, face: np.ndarray, strength: float = 1.0, match: bool = True
    ) -> np.ndarray:
        """A new photo with `face` (any square size) blended in; see `paste`, which takes many faces
        at once.
        """
        return paste(photo, [face], [self], strength, match)

    def _region(self, shape: Sequence[int]) -> tuple[slice, slice]:
        """The photo's rows and columns that the crop can touch (empty slices when it lies
        outside).
        """
        size = np.array(shape[1::-1])
        x0, y0 = np.clip(np.floor(self.corners().min(0)).astype(int), 0, size).tolist()
        x1, y1 = np.clip(np.ceil(self.corners().max(0)).astype(int) + 1, 0, size).tolist()
        return slice(y0, y1), slice(x0, x1)

    def _feather(self, rows: slice, cols: slice) -> np.ndarray:
        x, y = np.arange(cols.start, cols.stop), np.arange(rows.start, rows.stop)[:, None]
        out = np.ones((len(y), len(x)), np.float32)
        for a, b, c in self.inverse / self.size:
            u = np.float32(a * x + c + 0.5 / self.size - 0.5) + np.float32(b * y)  # -1/2..1/2
            # The millionth: rounding must not light up the border.
            t = np.clip((0.5 - 1e-6 - np.abs(u)) / FEATHER, 0, 1)
            out *= t * t * (3 - 2 * t)  # smoothstep
        return out


def paste(
    photo: np.ndarray,
    faces: Sequence[np.ndarray],
    crops: Sequence[Crop],
    strength: float | Sequence[float] = 1.0,
    match: bool = True,
) -> np.ndarray:
    """A new photo (or samples, where samples came) with every face (s x s x 3, 0..1) blended into
    its crop's place, in order.

    `strength` 0..1, one or one of each face, multiplies the feathered masks; pixels where a mask is
    0 stay the same bit for bit. With `match`, each face's low-frequency colour is first moved to
    the photo's as measured under the feather. Only each crop's surroundings are worked on.
    """
    strengths = [strength] * len(faces) if np.ndim(strength) == 0 else strength
    if not all(0 <= one <= 1 for one in strengths):
        raise ValueError(f"strength must lie in 0..1, got {strength}")
    out = np.array(photo, photo.dtype if photo.dtype in (np.uint8, np.uint16) else np.float32)
    for face, crop, strength in zip(faces, crops, strengths, strict=True):
        if face.ndim != 3 or face.shape[0] != face.shape[1] or face.shape[2] != 3:
            raise ValueError(
                f"a face to paste must be s x s x 3, got {face.shape}; "
                "give the picture that the crop's cut became"
            )
        if not np.isfinite(face).all():
            raise ValueError("a face to paste holds NaN or infinite values; leave this face out")
        crop = crop.resized(len(face))
        rows, cols = crop._region(photo.shape)
        mask = crop._feather(rows, cols)
        if strength == 0 or not mask.any():
            continue
        place = as_photo(out[rows, cols])
        matrix = np.c_[crop.inverse[:, :2], crop.inverse @ [cols.start, rows.start, 1]]
        new = warp(face, matrix, mask.shape, crisp=1.25)
        if match:
            new = np.clip(new - _low_frequencies(new - place, mask * (1 - mask), crop.side), 0, 1)
        weight = (np.float32(strength) * mask)[..., None]
        mixed = as_samples(place + weight * (new - place), out.dtype)
        out[rows, cols] = np.where(weight > 0, mixed, out[rows, cols])
    return out


def _low_frequencies(difference: np.ndarray, ring: np.ndarray, side: float) -> np.ndarray:
    """A smooth H x W x 3 picture of `difference` as seen through the weights `ring`: normalised
    convolution with a Gaussian of side / 5.
    """
    h, w = ring.shape
    cell = max(h, w, 32) / 32
    grid = (max(1, round(w / cell)), max(1, round(h / cell)))
    both = np.dstack([difference * ring[..., None], ring])
    both = cv2.resize(both, grid, interpolation=cv2.INTER_AREA)
    both = cv2.GaussianBlur(both, (0, 0), side / 5 / cell, borderType=cv2.BORDER_CONSTANT)
    mean = both[..., :3] / (both[..., 3:] + 1e-6)
    return cv2.resize(mean, (w, h), interpolation=cv2.INTER_LINEAR)


def warp(
    source: np.ndarray, matrix: np.ndarray, shape: tuple[int, int], crisp: float = 1.0
) -> np.ndarray:
    """A picture of `shape` (h, w) whose pixel (x, y) is `source` at matrix @ (x, y, 1); H x W x 3
    float32 in 0..1.

    cv2.warpAffine does not antialias, so before shrinking by k the part it needs is low-passed: by
    whole-number area averages while k is 4 or more, then by a Lanczos-3 kernel stretched by k (at k
    = 1 a no-op). `crisp` > 1 spares the last bit below k = crisp: right for a face that is already
    smooth at its own pixels. Clear enlarging is cubic like the enlarged photo's, so both agree
    between the pixels; around scale one Lanczos keeps more. Beyond its edges the source is mirrored
    (reflect-101).
    """
    m = np.array(matrix, np.float64)
    k = math.sqrt(abs(np.linalg.det(m[:, :2])))
    kernel = cv2.INTER_CUBIC if k < 0.75 else cv2.INTER_LANCZOS4
    n = max(1, int(k / 2))
    box = np.array([[x, y, 1] for x in (0, shape[1] - 1) for y in (0, shape[0] - 1)]) @ m.T
    low = np.floor(box.min(0)).astype(int) - 8 * n
    cells = (np.ceil(box.max(0)).astype(int) + 8 * n - low) // n + 1
    if (cells * n > 30000).any():
        raise ValueError(
            f"a crop may reach over 30000 pixels of a photo, this one over {int(max(cells) * n)}; "
            "check its landmarks"
        )
    part = _mirrored(source, low, low + cells * n)
    m[:, 2] -= low
    if n > 1:
        part = cv2.resize(part, tuple(int(c) for c in cells), interpolation=cv2.INTER_AREA)
        m[:, 2] -= (n - 1) / 2
        m /= n
    stretch = k / n / crisp
    if stretch > 1:
        i = np.arange(-math.ceil(3 * stretch), math.ceil(3 * stretch) + 1) / stretch
        taps = np.sinc(i) * np.sinc(i / 3) * (np.abs(i) < 3)
        taps = taps / taps.sum()
        part = cv2.sepFilter2D(part, -1, taps, taps, borderType=cv2.BORDER_REFLECT_101)
    flags, border = kernel | cv2.WARP_INVERSE_MAP, cv2.BORDER_REFLECT_101
    return np.clip(cv2.warpAffine(part, m, shape[::-1], flags=flags, borderMode=border), 0, 1)


def _mirrored(source: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """source[low y:high y, low x:high x], continued beyond the edges by reflect-101 as often as
    needed; a view when it lies inside.
    """
    if (low >= 0).all() and high[0] <= source.shape[1] and high[1] <= source.shape[0]:
        return as_photo(source[low[1] : high[1], low[0] : high[0]])
    cols, rows = (
        np.abs((np.arange(a, b) + n - 1) % max(2 * n - 2, 1) - (n - 1))
        for a, b, n in zip(low, high, source.shape[1::-1], strict=True)
    )
    return as_photo(source[rows[:, None], cols])


def landmark_crop(
    points_or_face: object, size: int | None = None, expand: float | None = None
) -> Crop:
    """Crop by the minimum-area rectangle of the landmarks, made square by its longer side and
    expanded, upright for any roll.

    Takes a Face, 468 mesh points or five points, (N, 2) in photo pixels. cv2.minAreaRect knows its
    turn only up to 90 degrees; of the four the one nearest to the eyes-to-mouth axis is taken. Five
    points span less than the mesh, hence their own `expand` default; both are lifted towards the
    forehead, for hair has no landmarks. `size` None follows the face (`fit_size`).
    """
    points, five = _landmarks(points_or_face)
    default, lift = FIVE_RULE if len(points) == 5 else MESH_RULE
    middle = points.mean(0)  # float32 inside OpenCV: keep the numbers small
    centre, sides, degrees = cv2.minAreaRect((points - middle).astype(np.float32))
    down = five[3:].mean(0) - five[:2].mean(0)
    quarter = math.pi / 2
    roll = math.radians(degrees)
    roll += quarter * round((math.atan2(-down[0], down[1]) - roll) / quarter)
    centre = middle + centre + lift * max(sides) * np.array([math.sin(roll), -math.cos(roll)])
    side = max(sides) * (default if expand is None else expand)
    return Crop.at(centre, side, roll, fit_size(side) if size is None else size)


def eye_crop(points_or_face: object, size: int | None = None, expand: float | None = None) -> Crop:
    """Crop by eyes and mouth alone, as FFHQ is aligned (Karras et al., CVPR 2019, appendix; FFHQ's
    own side is expand = 4, a little wider).

    The side is `expand` x max(eye distance, 0.9 x eye-to-mouth distance); the x axis is the mean of
    the eye line and the normal of the eyes-to-mouth line. Takes the same points as `landmark_crop`.
    """
    _, five = _landmarks(points_or_face)
    eyes, mouth = five[:2].mean(0), five[3:].mean(0)
    across, down = five[1] - five[0], mouth - eyes
    axis = across + [down[1], -down[0]]
    default, fall = EYE_RULE
    side = max(math.hypot(*across), 0.9 * math.hypot(*down))
    side *= default if expand is None else expand
    roll = math.atan2(axis[1], axis[0])
    return Crop.at(eyes + fall * down, side, roll, fit_size(side) if size is None else size)


def _landmarks(points_or_face: object) -> tuple[np.ndarray, np.ndarray]:
    """All points and the five among them, checked."""
    points = np.asarray(getattr(points_or_face, "landmarks", points_or_face), np.float64)
    if points.shape not in ((5, 2), (468, 2)):
        raise ValueError(
            f"landmarks must be 5 or 468 points (x, y), got an array of shape {points.shape}"
        )
    if not (np.abs(points) < 1e9).all():
        raise ValueError(
            "landmarks hold NaN, infinite or absurdly large values; leave this face out"
        )
    five = five_from_mesh(points)
    if not math.dist(five[:2].mean(0), five[3:].mean(0)) > 1e-3:
        raise ValueError(
            "landmarks put the eyes on the mouth, so no direction is upright; leave this face out"
        )
    return points, five
