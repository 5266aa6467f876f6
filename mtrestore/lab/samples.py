"""Pictures inside our dependencies' wheels, and batches of them for lessons without a data folder.

Nothing is fetched: the astronaut (Eileen Collins, NASA) and the hundred small faces (Labeled Faces
in the Wild) come with scikit-image, the officer (Grace Hopper, US Navy) with matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import degrade, image
from ..crop import Crop
from ..face import Face, detect, faces_from
from ..training.batches import Batch, jitter, quick_cut, stack, to_uint8, widened


def sample(photo: str | Path = "") -> np.ndarray:
    """The portrait every notebook starts with, 512×512×3, or the picture at `photo` instead.

    float32 RGB, 0..1. Raises ImageError where there is no picture at `photo`.
    """
    if photo:
        return image.read(photo)
    import skimage.data

    return image.read(skimage.data.astronaut())


def people() -> dict[str, np.ndarray]:
    """Two portraits in the public domain: astronaut (512×512) and officer (600×512)."""
    from matplotlib.cbook import get_sample_data

    officer = get_sample_data("grace_hopper.jpg", asfileobj=False)
    return {"astronaut": sample(), "officer": image.read(officer)}


def largest_face(photo: np.ndarray, landmarks: Callable | None = None) -> Face:
    """The largest face that is found; where there is none, the whole picture is taken for one."""
    faces = detect(photo, landmarks=landmarks)
    return (faces or faces_from([(0, 0, *photo.shape[1::-1])]))[0]


def worn(photo: np.ndarray, op: str, **values: Any) -> np.ndarray:
    """One fault alone: `worn(photo, "gaussian_noise", sigma=25, seed=0)`."""
    return degrade.apply(photo, degrade.Recipe(({"op": op, **values},)))


def by_heart(face: np.ndarray, batch: int, seed: int) -> Callable[[int], Batch]:
    """The same batch at every step: one face, worn in so many ways at medium strength."""
    rng, size = np.random.default_rng(seed), len(face)
    poor = [degrade.apply(face, degrade.draw("medium", rng, size=size)) for _ in range(batch)]
    same = {"inputs": (stack(poor),), "target": stack([face] * batch)}
    return lambda step: same


def around(
    photo: np.ndarray, crop: Crop, size: int, batch: int, seed: int
) -> Callable[[int], Batch]:
    """One face cut anew at each step, a little moved, turned and zoomed, and worn afresh."""
    stored = to_uint8(widened(crop, 1.25, 2 * size).cut(photo))  # wider: jitter stays inside

    def batches(step: int) -> Batch:
        rng, poor, truth = np.random.default_rng([seed, step]), [], []
        for _ in range(batch):
            place = jitter(rng, len(stored), 1.25, size, turn=8, zoom=1.12, shift=0.04)
            truth.append(quick_cut(stored, place))
            poor.append(degrade.apply(truth[-1], degrade.draw("medium", rng, size=size)))
        return {"inputs": (stack(poor),), "target": stack(truth)}

    return batches


def small_faces(size: int, batch: int, seed: int) -> Callable[[int], Batch]:
    """A hundred grey faces of 25 px enlarged to `size`, drawn and mirrored at random."""
    import skimage.data

    grey = skimage.data.lfw_subset()[:100, ..., None]  # the other hundred show no face
    faces = [image.resize(np.float32(f.repeat(3, -1)), (size, size)) for f in grey]

    def batches(step: int) -> Batch:
        rng = np.random.default_rng([seed, step])
        drawn = rng.integers(len(faces), size=batch)
        chosen = stack([faces[i][:, :: rng.choice([-1, 1])] for i in drawn])
        return {"inputs": (chosen,), "target": chosen}

    return batches
