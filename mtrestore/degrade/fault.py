"""How noisy, blurred, compressed and pale a picture is, and how far each net may act on that.

tone  = Tone.of(small)                       # a pale or dark picture in a normal range, and back
fault = estimate(tone(small))                # noise, JPEG, blur, contrast: once, at working size
fault = replace(fault, change=change(...))   # what the restorer takes from the flattest squares
share = restoring(fault)                     # 0: a clean picture is left; 1: the net's own result

All is relative to the picture's own contrast; a face is looked at inside `face_mask` alone. The
constants lie between what clean and worn pictures show, each with its numbers beside it, on the
photographs and faces kept for development (`experiments/no_harm.py --faults` prints them).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .operations import LUMA, Photo

BLOCK = 16  # px: noise is looked for in squares of this side
SEEN = 1 / 255  # a step far below this is not seen
LOW = 0.8  # the least twentieth of medians of 64 differences, over that of all
NORMAL = 0.36  # of the full range: what a normal face spans (nine of ten: 0.40 and more)
MOST_GAIN = 10.0  # of the stretch: beyond, 8 bits hold less than 9 levels of a picture
NOISE = (1.1 / 255, 1.5 / 255)  # a photo's: clean to 0.99 (one 1.16), σ 4 from 1.76
FACE_CHANGE = (0.5 / 255, 1.0 / 255)  # a face's: clean to 0.43, noise of σ 4 from 1.07
JPEG = (1.1, 1.3)  # blocking: clean to 1.05 (one of 32 1.15), quality 75 from 1.09, 15 1.38
CLOSE_NOISE = (2.0 / 255, 3.0 / 255)  # at a photo's own size: clean to 1.9, σ 3 from 2.5
LEFT_NOISE = 1.5 / 255  # where half of the sharpener's change is too much
LIVING = (3.0 / 255, 7.0 / 255)  # what the true net takes: mild 2.1, medium 7, severe 15
GIVEN = 2.0  # times the fault: what else a net takes is detail (1.5 to 3 tried on 21 pictures)
HELD = 3.0  # px of the net's face: what any input still holds
BLUR = (0.85, 1.05)  # px: clean to 0.85, a blur of σ 1 from 0.91, in the middle 1.1


@dataclass(frozen=True)
class Tone:
    """A linear map y = gain·(x − middle) + 0.5; gain 1 is no map at all."""

    gain: float = 1.0
    middle: float = 0.5

    @classmethod
    def of(cls, photo: Photo, mask: np.ndarray | None = None) -> Tone:
        """The map that stretches the 2nd to 98th percentile of grey to a normal range."""
        low, high = span(luma(photo), mask)
        gain = float(np.clip(NORMAL / max(high - low, 1e-6), 1, MOST_GAIN))
        return cls(gain, float(low + high) / 2) if gain > 1 else cls()

    def __call__(self, photo: Photo) -> Photo:
        if self.gain == 1:
            return photo
        middle, gain = np.float32(self.middle), np.float32(self.gain)
        return np.clip((photo - middle) * gain + np.float32(0.5), 0, 1)

    def back(self, photo: Photo, before: Photo, after: Photo) -> Photo:
        """`photo` with what became of it in the normal range: `before` -> `after`, in its own."""
        if self.gain == 1:
            return after
        return np.clip(photo + (after - before) / np.float32(self.gain), 0, 1)


@dataclass(frozen=True)
class Fault:
    """What is wrong with a picture, each by a number; levels are of 0..1, of a normal range.

    noise: standard deviation of the finest detail in the flattest squares; grain: the same twice
    as coarse. jpeg: steps across the borders of 8×8 blocks over those inside, 1 where none shows.
    blur: width (sigma, px) of the sharpest quarter of the edges, 0 where there is none. contrast:
    the 2nd to 98th percentile of grey. change: what the net takes from the flattest tenth, RMS.
    """

    noise: float = 0.0
    grain: float = 0.0
    jpeg: float = 1.0
    blur: float = 0.0
    contrast: float = 1.0
    change: float = 0.0


def luma(photo: Photo) -> np.ndarray:
    """H×W grey."""
    return cv2.transform(np.ascontiguousarray(photo, np.float32), LUMA[None])


def span(grey: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The 2nd and 98th percentile of H×W grey, or of its part where `mask` is true."""
    return np.quantile(grey if mask is None else grey[mask], [0.02, 0.98])


def face_mask(size: int) -> np.ndarray:
    """size×size bool: where a crop holds the face itself, whatever its corners hold."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    return ((x - 0.5) / 0.30) ** 2 + ((y - 0.54) / 0.38) ** 2 < 1


def estimate(photo: Photo, mask: np.ndarray | None = None) -> Fault:
    """The faults of a photo of a normal range, or of its part where `mask` (H×W) is true."""
    grey = luma(photo)
    fine = noise(photo, mask)
    low, high = span(grey, mask)
    height, width = (max(1, n // 2) for n in grey.shape)
    half = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    coarse = 2 * noise(half, None if mask is None else mask[::2, ::2][:height, :width])
    return Fault(fine, coarse, blocking(grey), blur(grey, fine, mask), float(high - low))


def noise(photo: Photo, mask: np.ndarray | None = None) -> float:
    """Deviation of white noise, the channels' mean, by the finest diagonal detail (Donoho &
    Johnstone, 1994) of the flattest twentieth of squares, which lies LOW of what it is in all.

    Black and white, where noise is cut off, do not count.
    """
    if min(photo.shape[:2]) < 4:
        return 0.0
    height, width = (n // 2 * 2 for n in photo.shape[:2])
    inside = None if mask is None else mask[:height:2, :width:2].astype(np.float32)
    return float(np.mean([_channel(x[:height, :width], inside) for x in cv2.split(photo)])) / LOW


def _channel(x: np.ndarray, inside: np.ndarray | None) -> float:
    a, b, c, d = x[::2, ::2], x[::2, 1::2], x[1::2, ::2], x[1::2, 1::2]
    levels = np.median(squares(np.abs(a - b - c + d) / 2, BLOCK // 2), 1) / 0.6745
    mean = squares((a + b + c + d) / 4, BLOCK // 2)
    good = (mean.min(1) > 4 / 255) & (mean.max(1) < 251 / 255)
    if inside is not None:
        good &= squares(inside, BLOCK // 2).mean(1) > 0.7
    return float(np.quantile(levels[good] if good.any() else levels, 0.05))


def change(before: Photo, after: Photo, mask: np.ndarray | None = None) -> float:
    """What a net changed where it changed least, RMS of the tenth of squares: noise and blocks are
    everywhere, texture is not."""
    levels = squares(((after - before) ** 2).mean(-1), BLOCK).mean(1)
    if mask is not None:
        inside = squares(mask.astype(np.float32), BLOCK).mean(1) > 0.7
        levels = levels[inside] if inside.any() else levels
    return float(np.sqrt(np.quantile(levels, 0.1)))


def squares(plane: np.ndarray, side: int) -> np.ndarray:
    """H×W -> N×side²: the plane in whole squares; all of it where it is smaller."""
    rows, cols = (n // side for n in plane.shape)
    if not rows * cols:
        return plane.reshape(1, -1)
    cut = plane[: rows * side, : cols * side].reshape(rows, side, cols, side)
    return cut.swapaxes(1, 2).reshape(rows * cols, side * side)


def blocking(grey: np.ndarray) -> float:
    """Steps across every eighth row and column over the steps elsewhere: 1 where no JPEG shows."""
    ratios = []
    for axis in (0, 1):
        steps = np.minimum(np.abs(np.diff(grey, axis=axis)), 12 / 255).mean(1 - axis)
        if len(steps) < 40:
            return 1.0
        phases = np.sort([np.median(steps[i::8]) for i in range(8)]) + SEEN
        ratios.append(phases[-1] / phases[:-1].mean())
    return float(np.sqrt(ratios[0] * ratios[1]))


def blur(grey: np.ndarray, level: float, mask: np.ndarray | None = None) -> float:
    """Width of the sharpest edges, by how much less steep they are after one more blur of 1 px.

    An edge of width s is sqrt(1 + 1/s²) times as steep as after it (Zhuo & Sim, Pattern Recognition
    2011). Only edges above the noise `level` count.
    """
    again = cv2.GaussianBlur(grey, (0, 0), 1.0)
    steep, less = (_slope(p) for p in (grey, again))
    inside = less if mask is None else less[mask]
    edge = less >= cv2.dilate(less, np.ones((3, 3), np.uint8))
    edge &= less >= max(float(np.quantile(inside, 0.95)), 1.5 * level, 1e-3)
    edge = edge if mask is None else edge & mask
    if edge.sum() < 8:
        return 0.0
    ratio = steep[edge] / less[edge]
    return float(np.quantile(1 / np.sqrt(np.maximum(ratio**2 - 1, 1e-3)), 0.25))


def _slope(grey: np.ndarray) -> np.ndarray:
    return np.hypot(*(cv2.Sobel(grey, cv2.CV_32F, x, 1 - x) for x in (0, 1))) / 8


def patches(samples: np.ndarray, side: int = 256, most: int = 3) -> list[np.ndarray]:
    """Squares of a large picture at its own size, up to `most`² of them, evenly spread."""
    rows, cols = (
        np.unique(np.linspace(0, max(n - side, 0), min(most, -(-n // side))).astype(int))
        for n in samples.shape[:2]
    )
    return [samples[y : y + side, x : x + side] for y in rows for x in cols]


def typical(faults: list[Fault]) -> Fault:
    """The lower quarter of each number: texture may pass for a fault, never a fault for none."""
    names = Fault.__dataclass_fields__
    return Fault(**{n: float(np.quantile([getattr(f, n) for f in faults], 0.25)) for n in names})


# ---- how far a net may act


def ramp(value: float, ends: tuple[float, float]) -> float:
    """0 up to the first end, 1 from the second."""
    low, high = ends
    return float(np.clip((value - low) / (high - low), 0, 1))


def restoring(fault: Fault, close: Fault) -> float:
    """How much of the restorer's change a photo needs, 0..1: as noisy or compressed as it is.

    Fine texture passes for noise and a smoothed edge for change, so both must say it. `close`: the
    fault at the photo's own size, where there is noise that the small picture does not show (its
    blocks matter not: at 1,000 px and quality 15 to 60 the restorer wins 0.03 to 0.12 dB).
    """
    rough = min(0.5 * max(fault.noise, fault.grain), fault.change)
    grainy = ramp(close.noise, CLOSE_NOISE) if close is not fault else 0.0
    return max(ramp(rough, NOISE), ramp(fault.jpeg, JPEG), grainy)


def facing(fault: Fault, k: float = 1.0) -> float:
    """How much of the face nets' change a face needs, 0..1; `k` output pixels a crop's pixel."""
    blurred = ramp(k * fault.blur, BLUR)
    return max(ramp(fault.change, FACE_CHANGE), ramp(fault.jpeg, JPEG), blurred)


def sharpening(fault: Fault, k: float = 1.0) -> float:
    """How much of the sharpener's change a photo enlarged k times needs, 0..1: as blurred as it
    is, and less where it was noisy: what the restorer left of the noise would come back."""
    return ramp(k * fault.blur, BLUR) / (1 + (max(fault.noise, fault.change) / LEFT_NOISE) ** 4)


def agreed(poor: Photo, living: Photo, near: Photo, width: float) -> Photo:
    """The living face as far as the poor one, whose own detail it must not contradict, allows.

    Living texture is wanted as far as detail is missing: by the blur, and by what the net that is
    true (`near`) takes away. Where both faces differ at the scale that the poor one still holds, by
    more than its noise, the living one is wrong. `width`: the blur of the poor one, px.
    """
    mask = face_mask(len(poor))
    taken = float(np.sqrt(((near - poor)[mask] ** 2).mean()))
    share = max(ramp(taken, LIVING), 0.5 * ramp(width, BLUR))
    apart = cv2.GaussianBlur(living - near, (0, 0), max(HELD, width))
    apart = cv2.GaussianBlur((apart**2).mean(-1), (0, 0), 4)[..., None]
    level = max(0.5 * taken, 2 / 255)
    return near + share / (1 + apart / level**2) * (living - near)


def given_back(before: Photo, after: Photo, fault: Fault) -> Photo:
    """`after`, and the detail of `before` that is missing in it and is no fault.

    What a net takes should be as strong as the fault. Where the lost part of the input's own detail
    surpasses that, as stripes and hair do, Wiener's share of it is put back; what was sharpened is
    not lost, as it does not go with the input's detail.
    """
    lost = before - after
    detail = before - cv2.GaussianBlur(before, (0, 0), 1.5)
    power = cv2.GaussianBlur((lost * detail).mean(-1), (0, 0), 4)
    level = GIVEN * max(fault.noise, fault.change)
    share = np.maximum(0, 1 - level**2 / np.maximum(power, 1e-9))
    return after + share[..., None].astype(np.float32) * lost
