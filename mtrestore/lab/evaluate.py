"""The honest table: known faces and photos are worn by seeded recipes, restored, and compared.

Beside our nets stand the input itself, a bicubic smoothing (half size and back) and OpenCV's
non-local means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from ..face import Face, detect
from ..io.text import shown
from ..pipeline import Restorer, identity
from ..training import batches, likeness

Method = Callable[..., Any]  # a photo, and of a face its 468 points, in; a photo out
SEVERITIES = ("mild", "medium", "severe", "heavy", "old-photo")
PHOTO_FAULTS = {
    **{f"noise {s}": {"op": "gaussian_noise", "sigma": float(s)} for s in (15, 25, 50)},
    **{f"jpeg {q}": {"op": "jpeg", "quality": q} for q in (10, 30)},
    **{"blur 1.5": {"op": "gaussian_blur", "sigma": 1.5}, "clean": None},
}
FACE_NETS = {"fidelity": "face_fidelity", "generative": "face"}
FOLDERS = ("faces_clean", "photos_clean", "polyu_pairs")
JUDGED = ("landmarks", "identity", "dlib", "mobile", "weave")  # only of faces, in this order
HEAD = (
    *("pictures", "fault", "method", "PSNR dB", "gain dB", "SSIM", "sharpness", "landmarks"),
    *("identity", "identity (dlib)", "identity (MobileFaceNet)", "weave", "n"),
)


@dataclass(frozen=True)
class Row:
    """One line of the table: pictures under one fault, one method, means over pictures and seeds.

    Faces also have the landmark error (mean distance of the 468 points that our net finds, over the
    eye distance), the identity distance by our own embedding and by two nets of others
    (likeness.py; None where those are not installed), and the weave score (metrics.py).
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
    """Half the size, antialiased, and back by cubic interpolation: the cheapest denoiser."""
    h, w = photo.shape[:2]
    return image.resize(image.resize(photo, (max(1, h // 2), max(1, w // 2))), (h, w))


def non_local_means(photo: np.ndarray) -> np.ndarray:
    """OpenCV's coloured non-local means, as strong as the noise that scikit-image estimates."""
    from skimage.restoration import estimate_sigma

    sigma = float(np.clip(255 * np.mean(estimate_sigma(photo, channel_axis=-1)), 1, 50))
    bgr = np.ascontiguousarray(image.as_samples(photo, np.uint8)[..., ::-1])
    out = cv2.fastNlMeansDenoisingColored(bgr, None, sigma, sigma, 7, 21)
    return out[..., ::-1].astype(np.float32) / 255


def face_cases(
    folder: Path, severity: str, seeds: Sequence[int], size: int = 256
) -> Iterator[tuple[np.ndarray, ...]]:
    """(degraded, truth with what a restoration keeps, its 468 points) of each labelled face."""
    for i, (name, points) in enumerate(labels_of(folder).items()):
        crop = landmark_crop(points, size=size)
        inside = (folder / name).exists()  # a label may be named from the folder above, too
        truth = crop.cut(image.read((folder if inside else folder.parent) / name))
        for seed in seeds:
            recipe = degrade.draw(severity, np.random.default_rng([seed, i]))
            target = degrade.apply(truth, batches.tone(recipe))
            yield degrade.apply(truth, recipe), target, crop.points(points)


def labels_of(folder: Path) -> dict[str, np.ndarray]:
    """File name -> 468 points: the labels of a folder, or what we find in its pictures."""
    if (folder / "mesh468.npz").is_file():
        return batches.mesh_points(folder)
    points: dict[str, np.ndarray] = {}
    for path in pictures_in(folder):
        faces = detect(image.read(path), landmarks=landmark_net())
        dense = [face.landmarks for face in faces if len(face.landmarks) == 468]
        if dense:
            points[path.name] = dense[0]  # the largest
    return points


def pictures_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in image.SUFFIXES)


def photo_cases(
    folder: Path, fault: dict[str, Any] | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(degraded, truth) of each picture of a folder; noise has a seed for each."""
    for i, path in enumerate(pictures_in(folder)):
        truth, steps = image.read(path), [] if fault is None else [dict(fault)]
        if fault and fault["op"].endswith("noise"):
            steps[0]["seed"] = i
        yield degrade.apply(truth, degrade.Recipe(tuple(steps))), truth


def real_noise(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(noisy, clean) photographs of PolyU: the truth is the mean of many exposures."""
    for path in sorted(folder.glob("*_real.*")):
        yield image.read(path), image.read(path.with_name(path.name.replace("_real", "_mean")))


def measure(
    name: str, fault: str, cases: Iterable[tuple[np.ndarray, ...]], methods: Mapping[str, Method]
) -> list[Row]:
    """Every method on every case (degraded, truth, points), averaged; PSNR is cut at 60 dB."""
    scores: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    bar = {"desc": f"{name}, {fault}", "unit": "picture", "leave": False, "mininterval": 1}
    for poor, truth, *points in tqdm(cases, disable=None, **bar):
        person = likeness.described(truth, *points) if points else {}
        for method, fn in methods.items():
            out = fn(poor, *points)
            score = {"psnr": min(metrics.psnr(out, truth), 60.0)}
            score["ssim"] = metrics.ssim(out, truth)
            score["sharpness"] = metrics.sharpness(out, truth)
            if points:
                score["landmarks"] = landmark_error(out, *points)
                score["identity"] = metrics.identity_distance(out, truth)
                score |= likeness.distances(likeness.described(out, *points), person)
                score["weave"] = metrics.weave(out, truth, points[0])
            scores[method].append(score)
    rows = []
    for method, each in scores.items():
        if each:
            means = {key: float(np.mean([score[key] for score in each])) for key in each[0]}
            rows.append(Row(name, fault, method, n=len(each), **means))
    return rows


def alone(fn: Callable[[np.ndarray], np.ndarray]) -> Method:
    """A method for faces that does without their points."""
    return lambda photo, points: fn(photo)


def default_face(restorer: Restorer) -> Method:
    """What the face branch makes of a face by default: its size, its choice of net, its mixture.

    The given points stand for what a detector finds. Not in it: the whole-photo branch, the
    feathered mask and the sharpener.
    """

    def method(photo: np.ndarray, points: np.ndarray) -> np.ndarray:
        face = Face((*points.min(0), *points.max(0)), points)
        with torch.inference_mode():
            crop, fixed, share, _ = restorer._face(photo, face, 1.0)
        new = warp(fixed, crop.resized(len(fixed)).inverse, photo.shape[:2], crisp=1.25)
        return photo + np.float32(share) * (new - photo)

    return method


def landmark_error(face: np.ndarray, points: np.ndarray) -> float:
    """How far off our landmark net sees a face's points, in the crop that the true ones give."""
    crop = eye_crop(points, size=nets.LandmarkNet.size)
    with torch.inference_mode():
        mesh = landmark_net()(image.to_tensor(crop.cut(face)))[0].numpy().astype(np.float64)
    return metrics.landmark_distance(crop.on_photo(mesh * crop.size - 0.5), points)


@cache
def landmark_net() -> Any:
    return weights.load("landmarks", nets.LandmarkNet)


def face_method(name: str | Path) -> Method:
    """A face net of ours, or in a weights file."""
    net = weights.load(name)

    def method(photo: np.ndarray, points: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return image.to_photo(net(image.to_tensor(photo)))

    return method


def evaluate(
    folder: str | Path,
    seeds: Sequence[int] = (0, 1, 2),
    size: int = 256,
    nlm: bool = True,
    what: Sequence[str] = ("faces", "photos"),
    more: Mapping[str, str | Path] | None = None,
) -> list[Row]:
    """All rows for a folder laid out like dev_eval, or for one of clean pictures.

    The first has faces_clean/ with mesh468.npz, photos_clean/, polyu_pairs/, of which any may be
    missing. In the second the largest face of each picture is found. seeds: degradations of each
    face. size: of a face, px. nlm: with non-local means. more: title -> weights file of further
    face nets. Raises FileNotFoundError where the folder is neither.
    """
    folder, rows = Path(folder), []
    faces, photos, pairs = (folder / name for name in FOLDERS)
    if not any((folder / name).is_dir() for name in FOLDERS):
        if not folder.is_dir() or not pictures_in(folder):
            hint = "give a folder with one of them, or of clean pictures"
            what = f"none of {'/, '.join(FOLDERS)}/ and no picture"
            raise FileNotFoundError(f"{folder} has {what}; {hint}")
        faces = photos = folder
    methods: dict[str, Method] = {"input": identity, "bicubic": bicubic}
    if nlm:
        methods["non-local means"] = non_local_means
    if "faces" in what and faces.is_dir():
        face_nets = {k: v for k, v in FACE_NETS.items() if v in weights.shipped()} | {
            **(more or {})
        }
        of_faces = {title: alone(fn) for title, fn in methods.items()}
        of_faces |= {title: face_method(net) for title, net in face_nets.items()}
        of_faces["default"] = default_face(Restorer(sharpener=identity))
        for severity in SEVERITIES:
            cases = face_cases(faces, severity, seeds, size)
            rows += measure("faces", severity, cases, of_faces)
    whole, sharp = Restorer(faces=False, sharpener=identity), Restorer(faces=False)
    methods["photo branch"] = lambda photo: whole(photo).image
    methods["photo branch, sharpened"] = lambda photo: sharp(photo).image
    if "photos" in what and photos.is_dir():
        for fault, step in PHOTO_FAULTS.items():
            rows += measure("photos", fault, photo_cases(photos, step), methods)
    if "photos" in what and pairs.is_dir():
        rows += measure("polyu", "real noise", real_noise(pairs), methods)
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table; gain is over the input of the same set and fault."""
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    base = {(r.set, r.fault): r.psnr for r in rows if r.method == "input"}
    for r in rows:
        numbers = [f"{r.psnr:.2f}", f"{r.psnr - base[r.set, r.fault]:+.2f}", f"{r.ssim:.3f}"]
        values = [getattr(r, name) for name in JUDGED]
        numbers += [f"{r.sharpness:.2f}", *("" if v is None else f"{v:.3f}" for v in values)]
        method = shown(r.method).replace("|", "\\|")  # a title that a user or a file name gave
        lines.append(f"| {' | '.join([r.set, r.fault, method, *numbers, str(r.n)])} |")
    return "\n".join(lines)
