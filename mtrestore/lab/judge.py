"""How a notebook judges a restored face or photo: against the truth, with measures of metrics.py.

Photos are float32 RGB, H×W×3, 0..1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import degrade, image, metrics
from ..training import batches
from . import evaluate

MEASURES = (metrics.psnr, metrics.ssim, metrics.sharpness)


@torch.inference_mode()
def answer(net: Callable, *photos: np.ndarray) -> np.ndarray:
    """What a net makes of a photo, or of several that it takes together; cut to 0..1."""
    return image.to_photo(net(*map(image.to_tensor, photos)))


def scores(
    photo: np.ndarray,
    truth: np.ndarray,
    poor: np.ndarray | None = None,
    measures: Sequence[Callable] = MEASURES,
) -> dict[str, float]:
    """Each measure by its name; with the worn photo, `gain`, dB of PSNR over it, too."""
    row = {measure.__name__: measure(photo, truth) for measure in measures}
    return row if poor is None else row | {"gain": row["psnr"] - metrics.psnr(poor, truth)}


def held_back(data: str | Path, size: int) -> dict[str, np.ndarray]:
    """Name -> clean face at `size` px, of those in data/dev_eval/faces_clean/ that have labels."""
    folder = Path(data) / "dev_eval" / "faces_clean"
    names = [name.split(".")[0] for name in batches.mesh_points(folder)]
    cases = evaluate.face_cases(folder, "clean", (0,), size)
    return dict(zip(names, (truth for _, truth, _ in cases), strict=True))


def worn_faces(
    faces: Mapping[str, np.ndarray], seed: int, severities: Sequence[str] = ("medium", "severe")
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """(name, severity, worn face, its truth); recipes hang on `seed` and the face's place alone.

    The truth keeps what a restoration keeps: tone and border.
    """
    for severity in severities:
        for i, (name, face) in enumerate(faces.items()):
            rng = np.random.default_rng([seed, i])
            recipe = degrade.draw(severity, rng, scale=(len(face) / 256) ** 0.5)
            truth = degrade.apply(face, batches.tone(recipe))
            yield name, severity, degrade.apply(face, recipe), truth


def means(
    rows: Iterable[Mapping[str, Any]], by: Sequence[str], columns: Sequence[str]
) -> dict[tuple, dict[str, float]]:
    """Values of `by` -> the mean of each column over the rows that have them."""
    groups: dict[tuple, list[list[float]]] = {}
    for row in rows:
        key = tuple(row[name] for name in by)
        groups.setdefault(key, []).append([row[column] for column in columns])
    averages = {key: np.mean(values, 0).tolist() for key, values in groups.items()}
    return {key: dict(zip(columns, values, strict=True)) for key, values in averages.items()}


def _rings(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spectrum of the grey picture, tapered, and each place's frequency (1: a wave of 2 px)."""
    grey, (h, w) = photo.mean(-1), photo.shape[:2]
    taper = np.outer(np.hanning(h), np.hanning(w))
    frequency = 2 * np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None])
    return np.fft.fft2((grey - grey.mean()) * taper), frequency


def spectrum(photo: np.ndarray, bins: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """(middles of the rings, mean amplitude there): how strong the waves of a frequency are."""
    values, frequency = _rings(photo)
    edges = np.linspace(0, 1, bins + 1)
    total = np.histogram(frequency, edges, weights=np.abs(values) ** 2)[0]
    count = np.histogram(frequency, edges)[0]
    return (edges[1:] + edges[:-1]) / 2, np.sqrt(total / np.maximum(count, 1))


def coherence(photo: np.ndarray, truth: np.ndarray, bins: int = 24) -> np.ndarray:
    """How well the truth predicts the photo, as a file of 8 bits stores it, in rings of frequency.

    |Σ T·conj(W)|² / (Σ|T|² Σ|W|²): 1, a filter could bring the detail back; 0, nothing is left.
    """
    (t, frequency), (w, _) = _rings(truth), _rings(np.rint(photo * 255) / 255)
    edges = np.linspace(0, 1, bins + 1)

    def total(values: np.ndarray) -> np.ndarray:
        return np.histogram(frequency, edges, weights=values)[0]

    cross = t * w.conj()
    both = total(cross.real) ** 2 + total(cross.imag) ** 2
    return both / np.maximum(total(abs(t) ** 2) * total(abs(w) ** 2), 1e-12)
