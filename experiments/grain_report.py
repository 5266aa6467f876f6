"""The grain of real old prints, measured: what `film_grain` in mtrestore/prints.py draws.

    python experiments/grain_report.py DATA/old_prints_real

Of each print the flattest patches of 32 px are taken (smallest gradient after a blur of 3 px, mid
tones), less the parabola that fits each best. Their power spectra, under a Hann window, are
averaged over patches, then over rings of 1/32 cycles a pixel. Prints with a line or dot screen,
told by a spectrum that is much higher on one spot of a ring than on the rest of it, and clean ones,
are left out. The others fall into three groups by the centre of mass of their spectrum; each is
printed as the amplitude on 16 rings, white noise of the same variance being 1. The last lines say
how the grain's deviation depends on the tone: the median over prints of the deviation in the
flattest patches of that tone, relative to the print's own in mid tones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import ndimage

from mtrestore import image
from mtrestore.degrade import LUMA

SIDE, RINGS, KINDS = 32, 16, ("fine", "medium", "coarse")
Y, X = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
PARABOLA = np.stack([np.ones_like(X), X, Y, X * X, X * Y, Y * Y], -1).reshape(-1, 6)
FIT = PARABOLA @ np.linalg.pinv(PARABOLA)
TONES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
WINDOW = np.outer(np.hanning(SIDE), np.hanning(SIDE))
FREQUENCY = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
RING = np.minimum((FREQUENCY * SIDE).astype(int), RINGS - 1)  # the corners count to the last ring


def patches(luma: np.ndarray) -> list[tuple[float, float, np.ndarray]]:
    """(slope, tone, patch of SIDE x SIDE) all over the print, half overlapping, flattest first."""
    slope = ndimage.gaussian_gradient_magnitude(luma, 3)
    rows = []
    for y in range(0, luma.shape[0] - SIDE + 1, SIDE // 2):
        for x in range(0, luma.shape[1] - SIDE + 1, SIDE // 2):
            place = np.s_[y : y + SIDE, x : x + SIDE]
            rows.append((slope[place].mean(), luma[place].mean(), luma[place]))
    return sorted(rows, key=lambda row: row[0])


def flattest(rows: list[tuple], low: float, high: float, most: int) -> list[np.ndarray]:
    """The flattest patches of a tone from low to high: at most `most`, and a quarter of them."""
    inside = [patch for _, tone, patch in rows if low < tone < high]
    return inside[: min(most, len(inside) // 4)]


def residual(patch: np.ndarray) -> np.ndarray:
    """The patch less the parabola that fits it best."""
    return (patch.ravel() - FIT @ patch.ravel()).reshape(SIDE, SIDE)


def rings(power: np.ndarray) -> np.ndarray:
    """The mean of a SIDE x SIDE power spectrum over each ring."""
    return np.bincount(RING.ravel(), power.ravel(), RINGS) / np.bincount(RING.ravel(), None, RINGS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prints", type=Path, help="a folder of scanned prints (jpg)")
    spectra, sigmas, tones, screens, clean = [], [], [], 0, 0
    for path in sorted(parser.parse_args().prints.glob("*.jpg")):
        rows = patches(image.read(path).astype(np.float64) @ LUMA)
        flat = flattest(rows, 0.15, 0.85, 24)
        if len(flat) < 6:
            continue
        rest = [residual(p) for p in flat]
        power = np.mean([np.abs(np.fft.fft2(r * WINDOW)) ** 2 for r in rest], 0)
        ring = rings(power)
        sigma = float(np.median([r.std() for r in rest])) * 255
        peak = (power / ring[RING])[FREQUENCY > 0.08].max()
        screens += peak > 8
        clean += sigma < 1.5
        if peak > 8 or sigma < 1.5:
            continue
        spectra.append(np.sqrt(ring / power.mean()))
        sigmas.append(sigma)
        for low in TONES:
            here = [residual(p).std() for p in flattest(rows, low, low + 0.1, 6)]
            if here:
                tones.append((low, np.median(here) * 255 / sigma))
    spectra, sigmas = np.array(spectra), np.array(sigmas)
    centre = (spectra**2 * (np.arange(RINGS) + 0.5)).sum(1) / (spectra**2).sum(1) / (2 * RINGS)
    groups = np.array_split(np.argsort(-centre), len(KINDS))
    print(f"{len(spectra)} prints with grain; left out: {screens} with a screen, {clean} clean")
    for kind, group in zip(KINDS, groups):
        amplitude = np.exp(np.log(spectra[group]).mean(0))
        print(f'    "{kind}": ({", ".join(f"{a:.2f}" for a in amplitude)}),')
        low, middle, high = np.percentile(sigmas[group], (10, 50, 90))
        levels = f"{low:.1f}, {middle:.1f}, {high:.1f} levels (10, 50, 90 %)"
        print(f"        # {len(group)} prints, sigma {levels}")
    for low in TONES:
        here = [strength for tone, strength in tones if tone == low]
        print(f"tone {low:.1f} to {low + 0.1:.1f}: {np.median(here):.2f}, {len(here)} prints")


if __name__ == "__main__":
    main()
