"""How close a restored picture is to the truth, in numbers; photos are float32, 0..1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from . import image, weights

MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def psnr(photo: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio over all channels, dB; equal pictures give inf."""
    if np.array_equal(photo, truth):
        return float("inf")
    return float(peak_signal_noise_ratio(np.float64(truth), np.float64(photo), data_range=1))


def ssim(photo: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity with the paper's 11x11 Gaussian window (Wang et al., TIP 2004), mean over channels; sides from 11 px."""
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(truth, photo, channel_axis=-1, data_range=1, **window))


def ms_ssim(photo: np.ndarray, truth: np.ndarray) -> float:
    """Multi-scale SSIM (Wang et al., Asilomar 2003) on grey pictures; as many of its five scales as fit an 11 px window."""
    a, b = (np.float64(p).mean(-1) for p in (photo, truth))
    if min(a.shape) < 11:
        raise ValueError(f"MS-SSIM needs sides of at least 11 px, got {a.shape[1]}x{a.shape[0]}; enlarge both pictures")
    scales = max(1, min(5, int(np.log2(min(a.shape) / 11)) + 1))
    weights, result = np.array(MS_WEIGHTS[:scales]) / sum(MS_WEIGHTS[:scales]), 1.0
    for i, w in enumerate(weights):
        full, contrast = _ssim_parts(a, b)
        result *= max(full if i == scales - 1 else contrast, 0) ** w
        a, b = (cv2.blur(p, (2, 2), anchor=(0, 0))[: p.shape[0] // 2 * 2 : 2, : p.shape[1] // 2 * 2 : 2] for p in (a, b))
    return float(result)


def _ssim_parts(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(mean SSIM, mean contrast-structure term) of two grey pictures; windows that leave the picture are not counted."""

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (11, 11), 1.5)[5:-5, 5:-5]

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    contrast = (2 * cov + 0.03**2) / (va + vb + 0.03**2)
    return float((contrast * (2 * ma * mb + 0.01**2) / (ma**2 + mb**2 + 0.01**2)).mean()), float(contrast.mean())


def sharpness(photo: np.ndarray, truth: np.ndarray) -> float:
    """Energy of the Laplacian over the truth's: 1 as sharp, below 1 blurred, above 1 noisy or over-sharpened."""
    mine, its = (float((cv2.Laplacian(np.float64(p).mean(-1), cv2.CV_64F) ** 2).mean()) for p in (photo, truth))
    return mine / max(its, 1e-12)


def consistency(restored: np.ndarray, given: np.ndarray, factor: int = 8) -> float:
    """PSNR, dB, between restored and given pictures after both are averaged over factor×factor px: what a restoration must not change."""
    h, w = (max(1, n // factor) for n in given.shape[:2])
    return psnr(*(cv2.resize(p, (w, h), interpolation=cv2.INTER_AREA) for p in (restored, given)))


def identity_distance(photo: np.ndarray, truth: np.ndarray) -> float:
    """1 minus the cosine of two faces' embeddings (0 the same, 1 unrelated), both cut by the landmark rule; the embedding is our own."""
    a, b = (embedded([p])[0] for p in (photo, truth))
    return float(1 - a @ b)


def embedded(faces: Sequence[np.ndarray], features: bool = False) -> np.ndarray:
    """N×D: each face (H×W×3, cut by the landmark rule) as our embedding's unit vector, or as the `features` before its projection."""
    import torch

    net = _embedding()
    with torch.inference_mode():
        return np.concatenate([(net.features if features else net)(image.to_tensor(f)).numpy() for f in faces]).astype(np.float64)


@cache
def _embedding() -> Any:
    return weights.load("embedding")


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared maximum mean discrepancy of two N×D sets, unbiased, with the cubic kernel (x·y/D + 1)³ (Bińkowski et al., ICLR 2018, section 4).

    On features of our own embedding: the number may be compared with others of this project alone, never with a KID or an FID.
    """
    aa, bb, ab = ((x @ y.T / a.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise ValueError(f"kernel_distance needs at least two samples in each set, got {n} and {m}")
    return float((aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1)) - 2 * ab.mean())


def landmark_distance(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of N×2 landmarks (5 or 468) from the truth, over the truth's distance between the eyes."""
    from .crop import five_from_mesh

    eyes = five_from_mesh(truth)[:2]
    return float(np.linalg.norm(np.float64(found) - truth, axis=1).mean() / np.linalg.norm(eyes[1] - eyes[0]))
