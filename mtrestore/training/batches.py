"""Training data: pictures are decoded once into memory; a batch is a pure function of the step.

Each class below is called with a step's number and returns {"inputs": (tensors...), "target":
tensor}. The random generator is seeded by (seed, step), so runs repeat and resume exactly, whoever
computes which batch first.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from tqdm.auto import tqdm

from .. import degrade, image
from ..crop import Crop, eye_crop, landmark_crop
from ..degrade import Recipe

Batch = dict[str, Any]
TONE = ("grey", "fade", "levels", "border")  # a restoration keeps these: the truth has them too
# Sets of faces that a net drew; the others are of real people.
GENERATED = {"omi512", "hmd256", "sg3_256", "sfhq", "sfhq_t2i"}
# px, sizes at which the faces of a set are still sharp.
BEARS = {"ukmp": 128, "bw_portraits": 128, "sfhq_t2i": 256}
# Sets that were sharpened too much, and the share of their size at which that is gone.
HALOED = {"civil512": 0.5}
BORDER = cv2.BORDER_REFLECT_101
REAL = "_real.JPG"  # of a pair, beside _mean.JPG


# ---- what lies in a folder


def manifest(folder: str | Path, kinds: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Rows of folder/manifest.csv (at least the column `file`), of files in folders `kinds`."""
    path = Path(folder) / "manifest.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: training data is a folder with a manifest.csv (column file) "
            "and the pictures it names"
        )
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if rows and "file" not in rows[0]:
        came = ", ".join(map(str, rows[0]))
        raise ValueError(f"{path} must have a column called file, got {came}")
    return [r for r in rows if kinds is None or set_of(r) in kinds]


def set_of(row: dict[str, str]) -> str:
    """The set of pictures that a manifest row belongs to: its first folder."""
    return row["file"].split("/")[0]


def mesh_points(folder: str | Path) -> dict[str, np.ndarray]:
    """File name -> 468 mesh points (x, y) in its pixels, of each face labelled in a folder."""
    with np.load(Path(folder) / "mesh468.npz") as labels:
        points = labels["points"].astype(np.float64)
        return dict(zip(labels["names"].tolist(), points, strict=True))


def progress(rows: Sequence[Any], unit: str) -> Iterable[Any]:
    return tqdm(rows, desc=f"{unit}s", unit=unit, leave=False, disable=None)


def labelled_faces(
    folder: str | Path, kinds: Sequence[str] | None = None
) -> Iterator[tuple[dict[str, str], np.ndarray, np.ndarray]]:
    """(manifest row, photo, 468 points in px) of each face with labels in folder/mesh468.npz."""
    points = mesh_points(folder)
    for row in progress(manifest(folder, kinds), "face"):
        if row["file"] in points:
            yield row, image.read(Path(folder) / row["file"]), points[row["file"]]


def truth_side(row: dict[str, str], side: float) -> float:
    """The size in px at which a face whose crop is `side` px wide can stand for the truth.

    No larger than it was before it was enlarged, no larger than its set is sharp, and so small that
    no halo is left.
    """
    native = float(row.get("native_side") or np.inf)
    grown = min(1.0, native / float(row.get("width") or native)) if np.isfinite(native) else 1.0
    return min(side * grown * HALOED.get(set_of(row), 1.0), BEARS.get(set_of(row), np.inf))


# ---- pictures


def tone(recipe: Recipe) -> Recipe:
    """The part of a recipe that the truth keeps too."""
    return replace(recipe, steps=tuple(s for s in recipe.steps if s["op"] in TONE))


def draw(preset: str, rng: np.random.Generator, scale: float = 1.0) -> Recipe:
    """A recipe, three in ten of them in any order."""
    order = "shuffled" if rng.random() < 0.3 else "fixed"
    return degrade.draw(preset, rng, scale=scale, order=order)


def plain_noise(rng: np.random.Generator) -> Recipe:
    """Gaussian noise alone, sigma 2..55, by which nets are compared."""
    sigma, seed = float(rng.uniform(2, 55)), int(rng.integers(2**31))
    return Recipe(({"op": "gaussian_noise", "sigma": sigma, "seed": seed},))


def to_uint8(photo: np.ndarray) -> np.ndarray:
    return image.as_samples(photo, np.uint8)


def to_float(stored: np.ndarray) -> np.ndarray:
    return stored.astype(np.float32) / 255


def stack(photos: Sequence[np.ndarray]) -> Tensor:
    """Photos of one size -> B×3×H×W."""
    planes = np.stack(photos).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(planes, np.float32))


def pairs(poor: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> Batch:
    return {"inputs": (stack(poor),), "target": stack(truth)}


def widened(crop: Crop, margin: float, size: int) -> Crop:
    """The crop with `margin` times its side about the same centre, at `size` px."""
    turn = np.arctan2(crop.matrix[1, 0], crop.matrix[0, 0])
    return Crop.at(crop.corners().mean(0), margin * crop.side, turn, size)


def mirrored(mean: np.ndarray) -> np.ndarray:
    """Which point takes whose place in a mirrored face.

    mean: the mean shape, N×2, in units of the crop's side.
    """
    distance = np.linalg.norm((mean * [-1, 1] + [1, 0])[:, None] - mean[None], axis=-1)
    return linear_sum_assignment(distance)[1].argsort()


def jitter(
    rng: np.random.Generator,
    stored: int,
    margin: float,
    size: int,
    turn: float,
    zoom: float,
    shift: float,
) -> Crop:
    """A random crop inside a stored square, of 1/margin its side.

    Turned by at most `turn` degrees, zoomed `zoom`, moved `shift` of its side.
    """
    side = stored / margin * np.exp(rng.uniform(-1, 1) * np.log(zoom))
    centre = (stored - 1) / 2 + rng.uniform(-shift, shift, 2) * side
    return Crop.at(centre, side, np.deg2rad(rng.uniform(-turn, turn)), size)


def quick_cut(stored: np.ndarray, crop: Crop) -> np.ndarray:
    """`crop.cut` of a uint8 picture, faster where it hardly shrinks.

    cv2.warpAffine has no antialiasing.
    """
    if crop.side > 1.25 * crop.size:
        return crop.cut(to_float(stored))
    flags, size = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, (crop.size, crop.size)
    return to_float(cv2.warpAffine(stored, crop.matrix, size, flags=flags, borderMode=BORDER))


# ---- faces


@dataclass(eq=False)
class FaceBatches:
    """Degraded and clean faces at `sizes` px, cut by the landmark rule, flipped half of the time.

    A step has one size, drawn from `sizes`; `batch` faces at the first size, fewer at larger ones
    so that the pixels stay about the same. Only faces that are a truth at `sharpness` × that size
    are drawn (see `truth_side`): others could only teach blur. folder: one or several. even: as
    many real faces as generated ones. loose: how far the crop moves, 1 as a landmark net errs, 0
    not at all. enlarged: share of faces that are degraded at 1/3 to the whole of their size and
    then enlarged, as small faces on a photo are, whose noise is then wide. leave_out: sets. labels:
    the batch also has `points`, B×468×2 mesh points in units of the picture's side, and `blur`, B
    numbers: how wide each recipe blurs, in px.
    """

    folder: str | Path | Sequence[str | Path]
    sizes: Sequence[int] = (128,)
    batch: int = 16
    preset: str = "mixed"
    seed: int = 0
    kinds: Sequence[str] | None = None
    sharpness: float = 0.7
    enlarged: float = 0.0
    even: bool = False
    loose: float = 1.0
    leave_out: Sequence[str] = ()
    labels: bool = False
    MARGIN = 1.25  # stored faces are larger than what is shown: jitter rarely meets a border

    def __post_init__(self) -> None:
        self.faces, self.points = [], []
        rows = list(self._read())
        sides = np.array([side for side, _ in rows])
        real = np.array([real for _, real in rows])
        self.pools = {
            s: self._pools(sides >= self.sharpness * s, real, self.even) for s in self.sizes
        }
        if blurred := [size for size, pools in self.pools.items() if not pools]:
            raise ValueError(
                f"no labelled face in {self.folder} is sharp enough for {max(blurred)} px; "
                "lower sharpness or the size"
            )
        upright = [(eye_crop(p, size=128).points(p) + 0.5) / 128 for p in self.points]
        self.mirror = mirrored(np.mean(upright, 0))

    def _read(self) -> Iterator[tuple[float, bool]]:
        """Store each face that is sharp enough for any size; (side, real) of it."""
        folders = [self.folder] if isinstance(self.folder, (str, Path)) else self.folder
        for folder in folders:
            for row, photo, points in labelled_faces(folder, self.kinds):
                crop = landmark_crop(points)
                side = truth_side(row, crop.side)
                if set_of(row) in self.leave_out or side < self.sharpness * min(self.sizes):
                    continue
                stored = round(self.MARGIN * min(max(self.sizes), side))
                wide = widened(crop, self.MARGIN, stored)
                self.faces.append(to_uint8(wide.cut(photo)))
                self.points.append(wide.points(points))
                yield side, set_of(row) not in GENERATED

    @staticmethod
    def _pools(sharp: np.ndarray, real: np.ndarray, even: bool) -> list[np.ndarray]:
        """Numbers of the faces that may be drawn, in groups that are drawn equally often."""
        groups = (sharp & real, sharp & ~real) if even else (sharp,)
        return [np.flatnonzero(group) for group in groups if group.any()]

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        size = int(rng.choice(self.sizes))
        count = max(2, round(self.batch * (self.sizes[0] / size) ** 2))
        clean, poor, points, blurs = [], [], [], []
        for _ in range(count):
            face, marks = self._face(rng, size)
            small = size
            if self.enlarged and rng.random() < self.enlarged:
                small = round(size / rng.uniform(1, 3))
            recipe = draw(self.preset, rng, (small / 256) ** 0.5)
            clean.append(degrade.apply(face, tone(recipe)))
            worn = degrade.apply(image.resize(face, (small, small)), recipe)
            poor.append(image.resize(worn, (size, size)))
            points.append((marks + 0.5) / size)
            blurs.append(degrade.blur_scale(recipe) * size / small)
        batch = pairs(poor, clean)
        if self.labels:
            batch["points"] = torch.from_numpy(np.array(points, np.float32))
            batch["blur"] = torch.tensor(blurs, dtype=torch.float32)
        return batch

    def _face(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        """A clean face, moved a little, mirrored half of the time, and its 468 points in px."""
        pools = self.pools[size]
        pool = pools[rng.integers(len(pools))] if len(pools) > 1 else pools[0]
        number = pool[rng.integers(len(pool))]
        stored, loose = self.faces[number], self.loose
        moves = {"turn": 8 * loose, "zoom": 1 + 0.12 * loose, "shift": 0.04 * loose}
        crop = jitter(rng, len(stored), self.MARGIN, size, **moves)
        face, points = quick_cut(stored, crop), crop.points(self.points[number])
        if rng.random() < 0.5:
            return face[:, ::-1].copy(), (points * [-1, 1] + [size - 1, 0])[self.mirror]
        return face, points


@dataclass(eq=False)
class LandmarkBatches:
    """Degraded faces at 128 px, cut by the eye rule with strong jitter, and their 468 points.

    `target` is in units of the crop's side.
    """

    folder: str | Path
    batch: int = 32
    preset: str = "mixed"
    seed: int = 0
    kinds: Sequence[str] | None = None
    SIZE, MARGIN = 128, 1.5

    def __post_init__(self) -> None:
        self.faces, self.points = [], []
        stored = round(self.SIZE * self.MARGIN)
        for _, photo, points in labelled_faces(self.folder, self.kinds):
            wide = widened(eye_crop(points), self.MARGIN, stored)
            self.faces.append(to_uint8(wide.cut(photo)))
            self.points.append(wide.points(points))
        if not self.faces:
            raise ValueError(
                f"no labelled face in {self.folder}; mesh468.npz must name files of manifest.csv"
            )
        mean = np.mean([(p + 0.5) / stored for p in self.points], 0)
        self.mean = (mean - 0.5) * self.MARGIN + 0.5
        self.mirror = mirrored(self.mean)

    def __call__(self, step: int) -> Batch:
        rng, size = np.random.default_rng([self.seed, step]), self.SIZE
        poor, labels = [], []
        for _ in range(self.batch):
            i = rng.integers(len(self.faces))
            crop = jitter(rng, len(self.faces[i]), self.MARGIN, size, turn=20, zoom=1.2, shift=0.08)
            face = crop.cut(to_float(self.faces[i]))
            points = (crop.points(self.points[i]) + 0.5) / size
            if rng.random() < 0.5:
                face, points = face[:, ::-1].copy(), (points * [-1, 1] + [1, 0])[self.mirror]
            recipe = degrade.draw(self.preset, rng, scale=rng.uniform(0.5, 1))
            poor.append(degrade.apply(face, recipe))
            labels.append(points)
        return {"inputs": (stack(poor),), "target": torch.from_numpy(np.array(labels, np.float32))}


@dataclass(eq=False)
class PersonBatches:
    """Pairs of views of one person at 96 px, for the embedding.

    Two pictures of the person where the manifest has them, else one twice. Each view has its own
    jitter, light and mild fault, half of the time. `target` holds one number for each person, the
    second half of the batch repeating the first.
    """

    folder: str | Path
    batch: int = 64
    seed: int = 0
    kinds: Sequence[str] | None = None
    SIZE, MARGIN = 96, 1.25

    def __post_init__(self) -> None:
        people: dict[str, list[np.ndarray]] = {}
        for row, photo, points in labelled_faces(self.folder, self.kinds):
            wide = widened(landmark_crop(points), self.MARGIN, round(self.SIZE * self.MARGIN))
            pictures = people.setdefault(row.get("person") or row["file"], [])
            pictures.append(to_uint8(wide.cut(photo)))
        self.people = list(people.values())
        if len(self.people) < self.batch:
            count = f"{len(self.people)} people, fewer than the batch of {self.batch}"
            raise ValueError(f"{self.folder} has {count}; lower the batch")

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        people = rng.choice(len(self.people), self.batch, replace=False)
        views = [self._view(self.people[i], rng) for _ in range(2) for i in people]
        return {"inputs": (stack(views),), "target": torch.arange(self.batch).repeat(2)}

    def _view(self, pictures: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        stored = pictures[rng.integers(len(pictures))]
        crop = jitter(rng, len(stored), self.MARGIN, self.SIZE, turn=8, zoom=1.1, shift=0.05)
        face = crop.cut(to_float(stored))
        face = face[:, ::-1] if rng.random() < 0.5 else face
        face = (face - 0.5) * rng.uniform(0.7, 1.2) + 0.5
        face = face + rng.uniform(-0.12, 0.12) + rng.uniform(-0.06, 0.06, 3)
        if rng.random() >= 0.8:
            face = face.mean(-1, keepdims=True).repeat(3, -1)
        face = np.clip(face, 0, 1).astype(np.float32)
        if rng.random() >= 0.5:
            return face
        return degrade.apply(face, degrade.draw("mild", rng, scale=self.SIZE / 256))


# ---- photographs


class Photos:
    """Clean photographs in memory, and real noisy/clean pairs.

    `patch` draws a clean square, `pair` a real noisy one with its truth.
    """

    def __init__(
        self,
        folder: str | Path,
        faces: str | Path | None = None,
        face_kinds: Sequence[str] = ("civil512", "london512"),
    ) -> None:
        rows = manifest(folder)
        clean = [Path(folder) / r["file"] for r in rows if not r["file"].startswith("polyu_pairs")]
        if faces:
            clean += [Path(faces) / r["file"] for r in manifest(faces, face_kinds)]
        noisy = sorted(str(Path(folder) / r["file"]) for r in rows if r["file"].endswith(REAL))
        self.photos = [to_uint8(image.read(path)) for path in progress(clean, "photo")]
        self.pairs = [
            tuple(to_uint8(image.read(path.replace("_real.", end))) for end in ("_real.", "_mean."))
            for path in noisy
        ]
        if not self.photos:
            raise ValueError(f"no photograph in {folder}")

    def patch(self, rng: np.random.Generator, size: int, shrink: float = 0.5) -> np.ndarray:
        """A clean size×size patch, turned and mirrored, of a photo shrunk by up to `shrink`.

        Shrinking sharpens and hides JPEG traces.
        """
        photo = self.photos[rng.integers(len(self.photos))]
        side = min(photo.shape[:2])
        least = max(size / side, shrink)
        source = round(size / rng.uniform(least, 1)) if least < 1 else size
        square = self._square([photo], rng, min(max(size, source), side))[0]
        return image.resize(square, (size, size)) if len(square) != size else square

    def pair(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        noisy, truth = self._square(self.pairs[rng.integers(len(self.pairs))], rng, size)
        return noisy, truth

    @staticmethod
    def _square(
        photos: Sequence[np.ndarray], rng: np.random.Generator, size: int
    ) -> list[np.ndarray]:
        h, w = photos[0].shape[:2]
        y, x = rng.integers(h - size + 1), rng.integers(w - size + 1)
        turns, flip = int(rng.integers(4)), rng.random() < 0.5
        squares = [np.rot90(p[y : y + size, x : x + size], turns) for p in photos]
        return [np.ascontiguousarray(s[:, ::-1] if flip else s, np.float32) / 255 for s in squares]


@dataclass(eq=False)
class PhotoBatches:
    """Patches degraded in every way the whole-photo restorer should mend.

    real: share of real noisy/clean pairs. jpeg: further share with JPEG alone, quality 5..50, the
    fault that takes longest to learn. noise: and with `plain_noise`.
    """

    photos: Photos
    size: int = 96
    batch: int = 16
    preset: str = "photo"
    seed: int = 0
    real: float = 0.1
    jpeg: float = 0.0
    noise: float = 0.0

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        return pairs(*zip(*(self._one(rng) for _ in range(self.batch))))

    def _one(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if self.photos.pairs and rng.random() < self.real:
            return self.photos.pair(rng, self.size)
        truth = self.photos.patch(rng, self.size)
        return degrade.apply(truth, self._recipe(rng)), truth

    def _recipe(self, rng: np.random.Generator) -> Recipe:
        if self.jpeg and rng.random() < self.jpeg:
            return Recipe(({"op": "jpeg", "quality": int(rng.integers(5, 51))},))
        if self.noise and rng.random() < self.noise:
            return plain_noise(rng)
        return draw(self.preset, rng)


@dataclass(eq=False)
class UpsamplerBatches:
    """(small, clean, large) and the truth at the large size, for guided filter and refiner.

    On the restorer's real output. A step has one ratio of photo to small picture, drawn from
    `ratios`, and one enlargement, 1 or more, drawn from `scales`. most: px of the truth's side.
    clean, noise: shares of photos that are left as they are, or have `plain_noise`.
    """

    photos: Photos
    restorer: Callable[[Tensor], Tensor]
    small: int = 64
    batch: int = 8
    seed: int = 0
    ratios: Sequence[float] = (1.25, 1.5, 2, 3, 4, 6)
    scales: Sequence[float] = (1, 1, 1, 1.5, 2)
    most: int = 384
    clean: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        kinds = [(r, s) for r in self.ratios for s in self.scales]
        self.kinds = [(r, s) for r, s in kinds if self.small * r * s <= self.most]
        self.kinds += [(1, s) for s in set(self.scales) if s > 1]
        if not self.kinds:
            raise ValueError(
                f"no ratio times scale times small = {self.small} px stays within "
                f"most = {self.most} px; lower small or raise most"
            )

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        ratio, scale = self.kinds[rng.integers(len(self.kinds))]
        side = round(self.small * ratio)
        count = max(2, min(self.batch, round(self.batch * (self.most / 2 / (side * scale)) ** 2)))
        small, large, truth = [], [], []
        for _ in range(count):
            target = self.photos.patch(rng, round(side * scale), shrink=0.7)
            photo = image.resize(target, (side, side)) if scale != 1 else target
            photo = degrade.apply(photo, self._recipe(rng, ratio))
            truth.append(target)
            large.append(image.enlarge(photo, scale) if scale != 1 else photo)
            small.append(image.resize(photo, (self.small, self.small)) if ratio != 1 else photo)
        low = stack(small)
        with torch.no_grad():
            clean = self.restorer(low).clamp(0, 1)
        return {"inputs": (low, clean, stack(large)), "target": stack(truth)}

    def _recipe(self, rng: np.random.Generator, ratio: float) -> Recipe:
        recipe = degrade.draw("photo", rng, scale=rng.uniform(1, max(1, ratio) ** 0.7))
        chance = rng.random()
        if chance >= self.clean + self.noise:
            return recipe
        noise = plain_noise(rng)
        return noise if chance >= self.clean else Recipe(())


@dataclass(eq=False)
class SharpenerBatches:
    """For x2: patches and their antialiased halves. For x1: patches, and what the sharpener gets.

    That is the restorer's output on pictures that are slightly blurred, left alone or worn in every
    way, so that the sharpener learns what may be sharpened and what is a trace of noise or JPEG.
    Without a `restorer`, and for one patch in eight, the picture comes as it is.
    """

    photos: Photos
    scale: int = 1
    size: int = 96
    batch: int = 16
    seed: int = 0
    restorer: Callable[[Tensor], Tensor] | None = None

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        truth = [self.photos.patch(rng, self.size) for _ in range(self.batch)]
        batch = pairs([self._input(t, rng) for t in truth], truth)
        if self.scale == 1 and self.restorer:
            flow, (poor,) = torch.from_numpy(rng.random(self.batch) >= 1 / 8), batch["inputs"]
            with torch.no_grad():
                poor[flow] = self.restorer(poor[flow]).clamp(0, 1)
        return batch

    def _input(self, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.scale == 2:
            return image.resize(truth, (self.size // 2, self.size // 2))
        chance = rng.random() if self.restorer else rng.uniform(0.5, 1)
        if chance < 0.5:
            return degrade.apply(truth, degrade.draw("photo", rng))
        if chance < 0.65:
            return truth
        return cv2.GaussianBlur(truth, (0, 0), rng.uniform(0.3, 1.6), borderType=BORDER)
