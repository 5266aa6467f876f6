"""What film and paper do to a portrait: grain, dot screens, faded ranges, borders, damage.

Operations as in `operations`, with the same units. The numbers of the grain were measured on 185
scanned portraits of 1850 to 1990 by experiments/grain_report.py, which prints them.
"""

import functools
import math

import cv2
import numpy as np
from scipy import fft

from .operations import LUMA, SEED, Photo, operation, turned

# Amplitude on rings of 1/32 cycles a pixel in prints of about 300 px; white noise has 1.
# fmt: off
GRAIN = {
    "fine": (0.84, 1.88, 1.92, 1.76, 1.68, 1.61, 1.54, 1.49,
             1.37, 1.21, 1.00, 0.81, 0.64, 0.51, 0.43, 0.32),
    "medium": (1.38, 2.97, 2.88, 2.50, 2.26, 1.92, 1.63, 1.35,
               1.07, 0.82, 0.62, 0.48, 0.38, 0.31, 0.26, 0.20),
    "coarse": (2.18, 4.55, 3.98, 2.82, 2.10, 1.56, 1.17, 0.87,
               0.63, 0.47, 0.36, 0.28, 0.23, 0.19, 0.17, 0.13),
}
# fmt: on
# Its deviation at luma 0.05, 0.15, ... 0.95, relative to the largest.
GRAIN_TONE = (0.32, 0.57, 0.88, 0.97, 1.00, 0.86, 0.73, 0.57, 0.43, 0.11)


@operation(sigma=(0, 255), kind=tuple(GRAIN), size=(0.1, 10), seed=SEED)
def film_grain(photo: Photo, sigma: float, kind: str, size: float, seed: int) -> Photo:
    """The grain of old prints, equal in R, G and B, strongest in mid tones.

    White noise coloured in the frequency domain by GRAIN[kind]. sigma is its deviation in levels
    (1/255) at luma 0.45; `size` enlarges the grain, 1 being that of a print of 300 pixels.
    """
    h, w = photo.shape[:2]
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal((h, w), np.float32)
    spectrum = fft.rfft2(noise)
    noise = np.asarray(fft.irfft2(spectrum * grain_amplitude(h, w, kind, size), (h, w)))
    tone = np.interp(photo @ LUMA, np.arange(0.05, 1, 0.1), GRAIN_TONE).astype(np.float32)
    return photo + (noise * tone * np.float32(sigma / 255))[..., None]


def grain_amplitude(h: int, w: int, kind: str, size: float) -> np.ndarray:
    """Float32 gains for rfft2 of an h×w picture; over the whole spectrum their mean square is 1."""
    across, down = np.fft.rfftfreq(w), np.fft.fftfreq(h)
    ring = np.hypot(across[None], down[:, None]) * (32 * size) - 0.5
    gain = np.interp(ring, np.arange(16), GRAIN[kind])
    twice = np.where((across == 0) | (across == 0.5), 1, 2)  # rfft2 leaves the other half out
    return (gain / math.sqrt((gain**2 * twice).sum() / (h * w))).astype(np.float32)


@operation(pitch=(1, 100), angle=(-360, 360), apart=(0, 90), soft=(0, 20))
def halftone(photo: Photo, pitch: float, angle: float, apart: float, soft: float) -> Photo:
    """Printed in dots `pitch` pixels apart, which keep the tone, then blurred by `soft` pixels.

    The screens of cyan, magenta and yellow are turned by angle, angle + apart and angle + 2·apart:
    apart 0 keeps a grey picture grey, 30 is a colour print (15, 45, 75 degrees for angle 15).
    """
    h, w = photo.shape[:2]
    turns = [angle] if apart == 0 else [angle, angle + apart, angle + 2 * apart]
    screens = np.stack([dot_screen(h, w, pitch, turn) for turn in turns], -1)
    edge = np.float32(min(1.0, 2 / pitch))  # a pixel that the rim of a dot crosses is half inked
    dark = 1 - photo
    ends = np.minimum(dark, photo)  # there rims are cut off: larger dots make up for it
    rim = np.sqrt(2 * edge * np.minimum(ends, edge / 2)) - edge / 2
    dark = np.where(ends < edge / 2, np.where(dark < 0.5, rim, 1 - rim), dark)
    ink = (dark - screens) / edge + np.float32(0.5)
    out = 1 - np.clip(ink, 0, 1)
    return cv2.GaussianBlur(out, (0, 0), soft) if soft > 0 else out


def dot_screen(h: int, w: int, pitch: float, angle: float) -> np.ndarray:
    """Float32 H×W thresholds, even over 0..1: where the darkness is above them there is ink."""
    u, v = turned(np.arange(h)[:, None], np.arange(w)[None], angle)
    wave = np.cos(2 * math.pi / pitch * u) + np.cos(2 * math.pi / pitch * v)
    return np.interp(wave, *_rank()).astype(np.float32)


@functools.cache
def _rank() -> tuple[np.ndarray, np.ndarray]:
    """Values of cos a + cos b and the share of the plane on which it is lower."""
    cosine = np.cos(2 * math.pi * (np.arange(256) + 0.5) / 256)
    values = np.sort((cosine[:, None] + cosine).ravel())[::64]
    return values, np.linspace(0, 1, len(values))


@operation(contrast=(0, 1), place=(0, 1), red=(0, 1), green=(0, 1), blue=(0, 1))
def levels(
    photo: Photo, contrast: float, place: float, red: float, green: float, blue: float
) -> Photo:
    """Faded to a part of the range: `contrast` is its width, `place` 0 the dark end, 1 the light.

    Black becomes place·(1 - contrast), white contrast more, each times (red, green, blue).
    """
    low = np.float32(place * (1 - contrast))
    return (low + np.float32(contrast) * photo) * np.array([red, green, blue], np.float32)


@operation(kind=("corners", "edges", "turned"), share=(0, 0.5), level=(0, 1), seed=SEED)
def border(photo: Photo, kind: str, share: float, level: float, seed: int) -> Photo:
    """An even grey of `level` on `share` of the picture, at its rim.

    "corners" cuts off one to four, "edges" lays bars along one to four sides, "turned" is what a
    rotated crop leaves. A restoration keeps it, so it belongs to what the truth keeps.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    h, w = photo.shape[:2]
    y, x = np.linspace(-1, 1, h)[:, None], np.linspace(-1, 1, w)[None]
    sides = np.arange(4) * (math.pi / 2)
    if kind == "turned":
        turns = math.radians(rng.uniform(3, 30)) * rng.choice([-1, 1]) + sides
    else:
        turns = sides if kind == "edges" else sides + math.pi / 4 + rng.uniform(-0.35, 0.35, 4)
        turns = turns[rng.permutation(4)[: rng.integers(1, 5)]]
    back = rng.uniform(0, 0.15, len(turns))
    outside = np.max([x * math.cos(t) + y * math.sin(t) - b for t, b in zip(turns, back)], 0)
    rim = np.quantile(outside, 1 - share)
    mask = np.clip((outside - rim) * (min(h, w) / 2), 0, 1).astype(np.float32)[..., None]
    return photo + mask * (np.float32(level) - photo)


@operation(
    kind=("scratches", "hair", "dust", "crease"),
    count=(0, 200),
    width=(0, 50),
    level=(0, 1),
    alpha=(0, 1),
    seed=SEED,
)
def damage(
    photo: Photo, kind: str, count: int, width: float, level: float, alpha: float, seed: int
) -> Photo:
    """Scratches, hairs, heaps of dust or creases of grey `level`, laid over by `alpha`.

    count: how many; width: of a line or the largest speck, in pixels. Scratches are straight,
    broken and roughly parallel, hairs are curved, creases run from side to side. Whether a
    restoration keeps it is for the training data to say: the name of the operation tells it.
    """
    h, w = photo.shape[:2]
    mask = damage_mask(h, w, kind, count, width, seed)
    return photo + (mask * np.float32(alpha))[..., None] * (np.float32(level) - photo)


def damage_mask(h: int, w: int, kind: str, count: int, width: float, seed: int) -> np.ndarray:
    """Float32 H×W, 1 where the damage hides everything."""
    rng = np.random.Generator(np.random.PCG64(seed))
    mask, side = np.zeros((h, w), np.uint8), max(h, w)
    common = rng.uniform(0, math.pi)
    for _ in range(count):
        start = rng.uniform(0, 1, 2) * (w, h)
        if kind == "dust":
            specks = start + rng.standard_normal((30, 2)) * (side * 0.08)
            for centre, radius in zip(specks, width / 2 * rng.random(30) ** 3):
                _disc(mask, centre, radius)
        elif kind == "scratches":
            headings = np.full(8, common + 0.25 * rng.standard_normal())
            path = _path(start, headings, side * rng.uniform(0.05, 0.3))
            for piece in np.flatnonzero(rng.random(8) < 0.75):
                _stroke(mask, path[piece : piece + 2], width)
        elif kind == "hair":
            bends = 0.1 * rng.standard_normal() + 0.03 * np.cumsum(rng.standard_normal(32))
            headings = rng.uniform(0, 2 * math.pi) + np.cumsum(bends)
            _stroke(mask, _path(start, headings, side * rng.uniform(0.15, 0.7)), width)
        else:
            heading = rng.choice([0, math.pi / 2]) + 0.3 * rng.standard_normal()
            back = 1.5 * side * np.array([math.cos(heading), math.sin(heading)])
            path = _path(start - back, np.full(128, heading), 3 * side)
            _stroke(mask, path + rng.standard_normal((129, 2)) * (0.003 * side), width)
    return mask.astype(np.float32) / 255


def _path(start: np.ndarray, headings: np.ndarray, length: float) -> np.ndarray:
    """Points (N + 1)×2 of N equal steps, `length` pixels in all, along headings in radians."""
    ahead = np.stack([np.cos(headings), np.sin(headings)], 1) * (length / len(headings))
    return start + np.concatenate([[[0, 0]], np.cumsum(ahead, 0)])


def _stroke(mask: np.ndarray, path: np.ndarray, width: float) -> None:
    """Draw a path; a line thinner than a pixel is one pixel wide and fainter."""
    ink, thick = round(255 * min(1.0, width)), max(1, round(width))
    points = np.rint(path * 16).astype(np.int32)[:, None]
    cv2.polylines(mask, [points], False, ink, thick, cv2.LINE_AA, shift=4)


def _disc(mask: np.ndarray, centre: np.ndarray, radius: float) -> None:
    """Draw a disc; one smaller than a pixel is half a pixel wide and fainter."""
    ink, r = round(255 * min(1.0, 2 * radius)), max(8, round(radius * 16))
    x, y = np.rint(centre * 16).astype(int).tolist()
    cv2.circle(mask, (x, y), r, ink, -1, cv2.LINE_AA, shift=4)
