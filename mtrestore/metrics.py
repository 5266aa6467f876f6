"""How close a restored picture is to the truth, in numbers; photos are float32, 0..1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from . import image, weights


def psnr(photo: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio over all channels, dB; equal pictures give inf."""
    if np.array_equal(photo, truth):
        return float("inf")
    return float(peak_signal_noise_ratio(np.float64(truth), np.float64(photo), data_range=1))


def ssim(photo: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity with the paper's 11x11 Gaussian window (Wang et al., TIP 2004), mean
    over channels; sides from 11 px.
    """
    window: dict[str, Any] = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
    }
    score: Any = structural_similarity(truth, photo, channel_axis=-1, data_range=1, **window)
    return float(score)


def sharpness(photo: np.ndarray, truth: np.ndarray) -> float:
    """Energy of the Laplacian over the truth's: 1 as sharp, below 1 blurred, above 1 noisy or
    over-sharpened.
    """
    mine, its = (
        float((cv2.Laplacian(np.float64(p).mean(-1), cv2.CV_64F) ** 2).mean())
        for p in (photo, truth)
    )
    return mine / max(its, 1e-12)


def consistency(restored: np.ndarray, given: np.ndarray, factor: int = 8) -> float:
    """PSNR, dB, between restored and given pictures after both are averaged over factor×factor px:
    what a restoration must not change.
    """
    h, w = (max(1, n // factor) for n in given.shape[:2])
    return psnr(*(cv2.resize(p, (w, h), interpolation=cv2.INTER_AREA) for p in (restored, given)))


def identity_distance(photo: np.ndarray, truth: np.ndarray) -> float:
    """1 minus the cosine of two faces' embeddings (0 the same, 1 unrelated), both cut by the
    landmark rule; the embedding is our own.
    """
    a, b = (embedded([p])[0] for p in (photo, truth))
    return max(0.0, float(1 - a @ b))  # not -0.0 by rounding


def embedded(faces: Sequence[np.ndarray], features: bool = False) -> np.ndarray:
    """N×D: each face (H×W×3, cut by the landmark rule) as our embedding's unit vector, or as the
    `features` before its projection.
    """
    import torch

    net = _embedding()
    with torch.inference_mode():
        return np.concatenate(
            [(net.features if features else net)(image.to_tensor(f)).numpy() for f in faces]
        ).astype(np.float64)


@cache
def _embedding() -> Any:
    return weights.load("embedding")


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared maximum mean discrepancy of two N×D sets, unbiased, with the cubic kernel (x·y/D +
    1)³ (Bińkowski et al., ICLR 2018, section 4).

    On features of our own embedding: the number may be compared with others of this project alone,
    never with a KID or an FID.
    """
    aa, bb, ab = ((x @ y.T / a.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise ValueError(f"kernel_distance needs at least two samples in each set, got {n} and {m}")
    return float(
        (aa.sum() - np.trace(aa)) / (n * (n - 1))
        + (bb.sum() - np.trace(bb)) / (m * (m - 1))
        - 2 * ab.mean()
    )


def landmark_distance(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of N×2 landmarks (5 or 468) from the truth, over the truth's distance between
    the eyes.
    """
    from .crop import five_from_mesh

    eyes = five_from_mesh(truth)[:2]
    return float(
        np.linalg.norm(np.float64(found) - truth, axis=1).mean() / np.linalg.norm(eyes[1] - eyes[0])
    )


CHEEKS = ((50, 101, 205), (280, 330, 425))  # mesh points around the middle of each cheek


def weave(photo: np.ndarray, truth: np.ndarray, points: np.ndarray, window: int = 16) -> float:
    """How strong a regular pattern a restoration put on the skin: 0 none.

    In windows of 16×16 px all over both cheeks (squares of 0.4 of the eye distance around `CHEEKS`;
    points: 468, px of both pictures) the energy spectra of photo − truth and of the truth are
    averaged, in grey, under a Hann window. Of the frequencies with a period of 2 to 6 px, the score
    is the difference's highest energy over the truth's mean energy (at least that of white noise of
    half a level, for skin that has no texture left).

    A weave has all its energy at one frequency, noise at a hundred. On our faces at 256 px, median:
    a weave of 4 levels (RMS) 110, noise of 4 levels 4, a blur that took all texture 3.
    """
    from .crop import five_from_mesh

    eyes = five_from_mesh(points)[:2]
    side = max(window, round(0.4 * float(np.linalg.norm(eyes[1] - eyes[0]))))
    grey = np.stack([np.float64(photo).mean(-1), np.float64(truth).mean(-1)])
    squares = [_square(grey, np.asarray(points)[list(cheek)].mean(0), side) for cheek in CHEEKS]
    given, own = np.mean([_spectra(s[0] - s[1], s[1], window) for s in squares], axis=0)

    frequency = np.hypot(np.fft.fftfreq(window)[:, None], np.fft.fftfreq(window)[None])
    ring = (frequency >= 1 / 6) & (frequency <= 1 / 2)
    noise = (0.5 / 255) ** 2 * (_hann(window) ** 2).sum()
    return float(given[ring].max() / max(own[ring].mean(), noise))


def _square(pictures: np.ndarray, centre: np.ndarray, side: int) -> np.ndarray:
    """The side×side part of N×H×W pictures around (x, y), moved inside where it would leave."""
    high = np.array(pictures.shape[:0:-1]) - side
    x, y = np.clip(np.rint(centre - side / 2), 0, np.maximum(high, 0)).astype(int)
    return pictures[:, y : y + side, x : x + side]


def _hann(window: int) -> np.ndarray:
    return np.outer(*[np.hanning(window + 2)[1:-1]] * 2)


def _spectra(a: np.ndarray, b: np.ndarray, window: int) -> np.ndarray:
    """2×window×window: the mean energy spectrum of each grey picture, over windows 4 px apart."""
    if min(a.shape) < window:
        raise ValueError(
            f"weave needs pictures of at least {window} px, got {a.shape[1]}x{a.shape[0]}"
        )
    views = np.lib.stride_tricks.sliding_window_view(np.stack([a, b]), (window, window), (1, 2))
    parts = views[:, ::4, ::4].reshape(2, -1, window, window)
    parts = (parts - parts.mean((2, 3), keepdims=True)) * _hann(window)
    return (np.abs(np.fft.fft2(parts)) ** 2).mean(1)
