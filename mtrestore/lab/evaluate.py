"""The honest table: known faces and photos are degraded by seeded recipes, restored, and compared with the truth.

Beside our nets stand the input itself, a bicubic smoothing (half size and back) and OpenCV's non-local means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm.auto import tqdm

from .. import degrade, image, metrics, nets, weights
from ..crop import eye_crop, landmark_crop, warp
from ..face import Face
from ..pipeline import Restorer, identity
from ..training import batches as data
from ..training import likeness

SEVERITIES = tuple(
    s for s in ("mild", "medium", "severe", "heavy", "old-photo") if s in degrade.PRESETS
)
PHOTO_FAULTS = {"noise 15": {"op": "gaussian_noise", "sigma": 15.0}, "noise 25": {"op": "gaussian_noise", "sigma": 25.0},
                "noise 50": {"op": "gaussian_noise", "sigma": 50.0}, "jpeg 10": {"op": "jpeg", "quality": 10},
                "jpeg 30": {"op": "jpeg", "quality": 30}, "blur 1.5": {"op": "gaussian_blur", "sigma": 1.5}, "clean": None}  # fmt: skip
FACE_NETS = {"fidelity": "face_fidelity", "generative": "face"}
JUDGED = (
    "landmarks",
    "identity",
    "dlib",
    "mobile",
    "weave",
)  # what only faces have, in the table's order


@dataclass(frozen=True)
class Row:
    """One line of the table: a set of pictures under one fault, one method, means over pictures and seeds.

    Faces also have the landmark error (mean distance of the 468 points that our net finds, over the eye distance), the identity distance by our
    own embedding and by two nets of others (likeness.py; None where those are not installed), and the weave score (metrics.py).
    """

    set: str
    fault: str
    method: str
    psnr: float
    ssim: float
    sharpness: float
    n: int
    landmarks: float | None = None
    identity: float | None = None
    dlib: float | None = None
    mobile: float | None = None
    weave: float | None = None


def bicubic(photo: np.ndarray) -> np.ndarray:
    """Half the size, antialiased, and back by cubic interpolation: the cheapest denoiser there is."""
    h, w = photo.shape[:2]
    return image.resize(image.resize(photo, (max(1, h // 2), max(1, w // 2))), (h, w))


def non_local_means(photo: np.ndarray) -> np.ndarray:
    """OpenCV's coloured non-local means, its strength from the noise level that scikit-image estimates."""
    from skimage.restoration import estimate_sigma

    sigma = float(np.clip(255 * np.mean(estimate_sigma(photo, channel_axis=-1)), 1, 50))
    bgr = np.ascontiguousarray(image.as_samples(photo, np.uint8)[..., ::-1])
    out = cv2.fastNlMeansDenoisingColored(bgr, None, sigma, sigma, 7, 21)
    return out[..., ::-1].astype(np.float32) / 255


def face_cases(
    folder: Path, severity: str, seeds: Sequence[int], size: int = 256
) -> Iterator[tuple[np.ndarray, ...]]:
    """(degraded, truth, its 468 points) of each labelled face, cut by the landmark rule at `size` px; what a restoration keeps is in both."""
    for i, (name, p) in enumerate(data.mesh_points(folder).items()):
        crop = landmark_crop(p, size=size)
        truth = crop.cut(image.read(folder.parent / name if "/" in name else folder / name))
        for seed in seeds:
            recipe = degrade.draw(severity, np.random.default_rng([seed, i]))
            yield (
                degrade.apply(truth, recipe),
                degrade.apply(truth, data.tone(recipe)),
                crop.points(p),
            )


def photo_cases(
    folder: Path, fault: dict[str, Any] | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(degraded, truth) of each picture of a folder, with a noise seed of its own; a whole photo has pixels enough for one seed."""
    for i, path in enumerate(
        sorted(p for p in folder.iterdir() if p.suffix.lower() in image.SUFFIXES)
    ):
        truth = image.read(path)
        step = (
            []
            if fault is None
            else [{**fault, "seed": i} if fault["op"].endswith("noise") else fault]
        )
        yield degrade.apply(truth, degrade.Recipe(tuple(step))), truth


def real_noise(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(noisy, clean) photographs of PolyU: the truth is the mean of many exposures."""
    for path in sorted(folder.glob("*_real.*")):
        yield image.read(path), image.read(path.with_name(path.name.replace("_real", "_mean")))


def measure(
    name: str, fault: str, cases: Iterator[tuple[np.ndarray, ...]], methods: dict[str, Callable[..., np.ndarray]]
) -> list[Row]:  # fmt: skip
    """Every method on every case (degraded, truth, and for a face its points), averaged; a method is given all but the truth."""
    scores: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    for poor, truth, *points in tqdm(
        cases, desc=f"{name}, {fault}", unit="picture", leave=False, mininterval=1, disable=None
    ):
        person = likeness.described(truth, *points) if points else {}
        for method, fn in methods.items():
            out = fn(poor, *points)
            score = {
                "psnr": min(metrics.psnr(out, truth), 60.0),
                "ssim": metrics.ssim(out, truth),
                "sharpness": metrics.sharpness(out, truth),
            }
            if points:
                score |= {
                    "landmarks": landmark_error(out, *points),
                    "identity": metrics.identity_distance(out, truth),
                }
                score |= likeness.distances(likeness.described(out, *points), person)
                score["weave"] = metrics.weave(out, truth, *points)
            scores[method].append(score)
    return [
        Row(
            name,
            fault,
            method,
            n=len(each),
            **{key: float(np.mean([score[key] for score in each])) for key in each[0]},
        )
        for method, each in scores.items()
        if each
    ]


def alone(fn: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """A method for faces that does without their points."""
    return lambda photo, points: fn(photo)


def default_face(restorer: Restorer) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """What the face branch makes of a face by default: its size, its choice between both nets, its mixture.

    The given points stand for what a detector finds. Not in it: the whole-photo branch, the feathered mask and the sharpener.
    """

    def restored(photo: np.ndarray, points: np.ndarray) -> np.ndarray:
        face = Face((*points.min(0), *points.max(0)), points)
        with torch.inference_mode():
            crop, fixed, share, _ = restorer._face(photo, face, 1.0)
        new = warp(fixed, crop.resized(len(fixed)).inverse, photo.shape[:2], crisp=1.25)
        return photo + np.float32(share) * (new - photo)

    return restored


def landmark_error(face: np.ndarray, points: np.ndarray) -> float:
    """Where our landmark net sees the points on a face, against where they are on the truth; the crop it looks at is the truth's."""
    crop = eye_crop(points, size=nets.LandmarkNet.size)
    with torch.inference_mode():
        found = landmark_net()(image.to_tensor(crop.cut(face)))[0].numpy().astype(np.float64)
    return metrics.landmark_distance(crop.on_photo(found * crop.size - 0.5), points)


@cache
def landmark_net() -> nets.LandmarkNet:
    return weights.load("landmarks", nets.LandmarkNet)


def evaluate(
    folder: str | Path, seeds: Sequence[int] = (0, 1, 2), size: int = 256, nlm: bool = True, what: Sequence[str] = ("faces", "photos"),
    more: Mapping[str, str | Path] | None = None,
) -> list[Row]:  # fmt: skip
    """All rows for a folder laid out like dev_eval: faces_clean/ with mesh468.npz, photos_clean/, polyu_pairs/; what is missing is left out.

    `more`: title -> weights file of further face nets. PSNR is cut at 60 dB so that a picture that comes back unchanged does not make a mean infinite.
    """
    folder, rows = Path(folder), []
    if not any((folder / d).is_dir() for d in ("faces_clean", "photos_clean", "polyu_pairs")):
        raise FileNotFoundError(
            f"{folder} has none of faces_clean/, photos_clean/, polyu_pairs/; give a folder with at least one of them"
        )
    others = {"input": identity, "bicubic": bicubic} | (
        {"non-local means": non_local_means} if nlm else {}
    )

    def face(name: str | Path) -> Callable[[np.ndarray], np.ndarray]:
        net = weights.load(name)

        def restored(photo: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return image.to_photo(net(image.to_tensor(photo)))

        return restored

    whole, sharp = Restorer(faces=False, sharpener=identity), Restorer(faces=False)
    ours = {
        "photo branch": lambda p: whole(p).image,
        "photo branch, sharpened": lambda p: sharp(p).image,
    }
    if "faces" in what and (folder / "faces_clean").is_dir():
        face_nets = {
            title: face(name) for title, name in FACE_NETS.items() if name in weights.shipped()
        }
        face_nets |= {title: face(path) for title, path in (more or {}).items()}
        methods = {title: alone(fn) for title, fn in (others | face_nets).items()} | {
            "default": default_face(Restorer(sharpener=identity))
        }
        for severity in SEVERITIES:
            rows += measure(
                "faces",
                severity,
                face_cases(folder / "faces_clean", severity, seeds, size),
                methods,
            )
    if "photos" in what and (folder / "photos_clean").is_dir():
        for fault, step in PHOTO_FAULTS.items():
            rows += measure(
                "photos", fault, photo_cases(folder / "photos_clean", step), others | ours
            )
    if "photos" in what and (folder / "polyu_pairs").is_dir():
        rows += measure("polyu", "real noise", real_noise(folder / "polyu_pairs"), others | ours)
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table; gain is over the input of the same set and fault, identity by our embedding and by two nets of others."""
    lines = [
        "| pictures | fault | method | PSNR dB | gain dB | SSIM | sharpness | landmarks | identity | identity (dlib) | identity (MobileFaceNet) "
        "| weave | n |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    base = {(r.set, r.fault): r.psnr for r in rows if r.method == "input"}
    for r in rows:
        gain = r.psnr - base[r.set, r.fault]
        values = [getattr(r, name) for name in JUDGED]
        more = " | ".join("" if v is None else f"{v:.3f}" for v in values)
        lines.append(
            f"| {r.set} | {r.fault} | {r.method} | {r.psnr:.2f} | {gain:+.2f} | {r.ssim:.3f} | {r.sharpness:.2f} | {more} | {r.n} |"
        )
    return "\n".join(lines)
