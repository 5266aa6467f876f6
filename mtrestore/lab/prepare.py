"""Own portraits become training data: a folder of photos of any kind -> aligned, labelled faces.

    mtrestore prepare album -o faces
    mtrestore train face --settings my.yaml --data faces        # reads faces/train_faces
    mtrestore evaluate faces/dev_eval                           # people who are not in train_faces

Each face is found, cut upright with a wide margin, and labelled by our landmark net. What is no
truth for a restorer is left out and listed with the reason: what looks like no face, is small,
blurred or noisy, or is a copy of another one. docs/own_faces.md describes what comes out.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm.auto import tqdm

from .. import face, image, metrics, view, weights
from ..crop import Crop, eye_crop, five_from_mesh, landmark_crop
from ..io.claims import check_folder
from ..io.files import ImageError, below, make_folders, write_bytes
from ..io.text import cell, one_line
from ..nets.guided import noise_level
from ..pipeline import detail_size

COLUMNS = (
    "file", "source", "face", "person", "width", "height", "native_side", "score",
    "confidence", "lapvar256", "noise",
)  # fmt: skip
MARGIN = 1.4  # of the landmark crop's side: what a face is stored with
LARGEST = 640  # px of a stored face
SURE = 0.9  # the detector's score
SIZES = (32, 48, 64, 96, 128, 160, 192, 224)  # px at which a face may hold all its detail
DOUBT = 0.06  # eye distances by which two looks at one face may differ; 0.02 to 0.04 is usual
NOISY = 8.0  # 8-bit levels
COPY = 0.985  # correlation of two faces at 24 px, above which one is a copy of the other
SAME_PERSON = 0.75  # cosine of our embedding; unknown people who are closer stay in one split
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".avif")


@dataclass
class Candidate:
    """A face that was found: its picture, labels and measures; `reason` where it is left out."""

    source: str
    number: int
    reason: str = ""
    picture: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8))  # square
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # 468 in its pixels
    measures: dict[str, float] = field(default_factory=dict)
    person: str = ""
    group: str = ""  # what is in one split only: the person, or the photo where all are one person
    file: str = ""

    @property
    def row(self) -> dict[str, object]:
        """Its line of manifest.csv."""
        side = len(self.picture) or ""
        measures = {name: round(value, 3) for name, value in self.measures.items()}
        names: dict[str, object] = {"file": self.file, "source": self.source, "face": self.number}
        return names | {"person": self.person, "width": side, "height": side} | measures


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    size: int = 128,
    dev: float = 0.15,
    person: str | None = None,
    seed: int = 0,
) -> dict[str, int]:
    """Fill the folder `out` from every photo below `source`; counts by outcome.

    size: px at which a face must be sharp to be a truth. dev: the share of people kept apart for
    evaluation, drawn by `seed`. person: a regular expression whose first group in a file's path is
    the person's name; without it people are told apart by our embedding. Raises ValueError where
    an option or `source` cannot be, ImageError where `out` holds something else.
    """
    if not 32 <= size <= 512:
        raise ValueError(f"size must be 32 to 512 px, got {size}")
    if not 0 <= dev < 1:
        raise ValueError(f"dev must be a share from 0 up to but not 1, got {dev}")
    try:
        pattern = re.compile(person) if person else None
    except re.error as e:
        raise ValueError(f"person must be a regular expression, got {person!r}: {e}") from None
    if pattern and pattern.groups < 1:
        raise ValueError(f"person needs a group, as in '([^/]+)/', got {person!r}")
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise ValueError(f"prepare needs a folder of photos, and {source} is none")
    photos = [p for p in sorted(_photos(source)) if not p.is_relative_to(out)]
    if not photos:
        raise ValueError(f"no photo below {source}; these are read: {', '.join(SUFFIXES)}")
    check_folder(out, ("left_out.csv",))
    candidates = [c for path in tqdm(photos, unit="photo") for c in _faces(path, source, size)]
    keep = [c for c in candidates if not c.reason]
    _drop_copies(keep)
    keep = [c for c in keep if not c.reason]
    _name_people(keep, pattern)
    people = {c.person for c in keep}
    for c in keep:
        c.group = c.person if len(people) > 1 else c.source
    held = _held(sorted({c.group for c in keep}), dev, seed)
    splits = {"train_faces": [], "dev_eval/faces_clean": []}
    for c in keep:
        splits["dev_eval/faces_clean" if c.group in held else "train_faces"].append(c)
    for name, faces in splits.items():
        _write_split(out / name, faces)
    _write_lists(out, keep, [c for c in candidates if c.reason])
    reasons = Counter(re.split(": | of ", c.reason)[0] for c in candidates if c.reason)
    counts = {name: len(faces) for name, faces in splits.items()} | {"people": len(people)}
    return counts | dict(reasons)


def advice(counts: Mapping[str, int], size: int) -> str:
    """What to do where an album gave nothing to train on, or nobody to judge with; else nothing."""
    if not counts["train_faces"] and counts.get(f"not sharp at {size} px") and size > SIZES[0]:
        return f"no face is sharp at {size} px; try --size {max(SIZES[0], size // 2)}"
    if not counts["train_faces"]:
        return "no face is fit to train on; left_out.csv says of each why"
    if not counts["dev_eval/faces_clean"]:
        return "no face is kept apart, so `evaluate` has none; add photos, or raise --dev"
    if counts["people"] == 1:
        what = "all faces look like one person, so other photos of the same one are kept apart"
        return f"{what}, and the numbers will flatter; --person says who is who"
    return ""


def _photos(folder: Path) -> Iterator[Path]:
    for path, _ in below(folder, None):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            yield path


def _faces(path: Path, source: Path, size: int) -> Iterator[Candidate]:
    """Every face of a photo, measured; a photo without one, or that cannot be read, is one too."""
    name = path.relative_to(source).as_posix()
    try:
        photo = image.read(path)
    except ImageError as e:
        yield Candidate(name, 0, f"unreadable: {one_line(e)}")
        return
    net = weights.load("landmarks")
    faces = face.detect(photo, landmarks=net)
    if not faces:
        yield Candidate(name, 0, "no face")
    for number, f in enumerate(faces, 1):
        candidate = Candidate(name, number, measures={"score": f.score})
        candidate.reason = _unfit(f)
        if not candidate.reason:
            _cut(candidate, photo, f, net, size)
        yield candidate


def _unfit(f: face.Face) -> str:
    if f.status != "found":
        return "too small"
    if f.score < SURE:
        return "hardly a face"
    if len(f.landmarks) != 468:
        return "no landmarks"
    return ""


def _cut(candidate: Candidate, photo: np.ndarray, f: face.Face, net: Callable, size: int) -> None:
    """Fill in the picture, its labels and measures, and the reason if it is no truth."""
    tight = landmark_crop(f)
    wide = Crop.at(tight.centre, MARGIN * tight.side, tight.roll, 64)
    wide = wide.resized(max(64, min(LARGEST, round(wide.side))))
    picture = wide.cut(photo)
    points = wide.points(f.landmarks)
    doubt = _doubt(picture, points, net)
    middle = tight.resized(min(256, max(64, round(tight.side)))).cut(photo)
    tensor = image.to_tensor(middle)
    native = detail_size(middle, SIZES) / len(middle) * tight.side * len(picture) / wide.side
    measures = {
        "native_side": native,
        "confidence": float(np.exp(-doubt / DOUBT)),
        "lapvar256": _laplacian_variance(image.resize(middle, (256, 256))),
        "noise": 255 * float(noise_level(tensor).mean()),
    }
    candidate.picture = image.as_samples(picture, np.uint8)
    candidate.points, candidate.measures = points, candidate.measures | measures
    if doubt > DOUBT:
        candidate.reason = "landmarks in doubt"
    elif measures["native_side"] < 0.7 * size:
        candidate.reason = f"not sharp at {size} px"
    elif measures["noise"] > NOISY:
        candidate.reason = "noisy"


def _laplacian_variance(photo: np.ndarray) -> float:
    """In 8-bit levels, of the mean of the channels: a few is blurred, hundreds are sharp."""
    return float(cv2.Laplacian(255 * np.float64(photo).mean(-1), cv2.CV_64F).var())


def _doubt(picture: np.ndarray, points: np.ndarray, net: Callable) -> float:
    """How far the landmarks move when the face is shown mirrored, in eye distances."""
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    five = five_from_mesh(points)[[1, 0, 2, 4, 3]] * [-1, 1] + [len(picture) - 1, 0]
    crop = eye_crop(five, 128)
    with torch.inference_mode():
        answer = net(image.to_tensor(crop.cut(mirrored)))[0].numpy().astype(np.float64)
    again = five_from_mesh(crop.on_photo(answer * crop.size - 0.5))[[1, 0, 2, 4, 3]]
    again = again * [-1, 1] + [len(picture) - 1, 0]
    first = five_from_mesh(points)
    return float(np.linalg.norm(again - first, axis=1).mean() / np.linalg.norm(first[1] - first[0]))


# ---- who is who


def _drop_copies(faces: Sequence[Candidate]) -> None:
    """Of faces that show the same picture, also mirrored, all but the sharpest get a reason."""
    if len(faces) < 2:
        return
    order = sorted(faces, key=lambda c: -c.measures["native_side"] - c.measures["lapvar256"] / 1e6)
    small = [image.resize(image.as_photo(c.picture), (24, 24)).mean(-1) for c in order]
    first = _normalised(np.stack(small))
    other = _normalised(np.stack([s[:, ::-1] for s in small]))
    alike = np.maximum(first @ first.T, first @ other.T)
    for n, candidate in enumerate(order):
        for earlier in np.flatnonzero(alike[n, :n] > COPY):
            if not order[earlier].reason:
                candidate.reason = f"a copy of {order[earlier].source}"
                break


def _normalised(pictures: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and length 1."""
    rows = pictures.reshape(len(pictures), -1)
    rows = rows - rows.mean(1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _name_people(faces: Sequence[Candidate], pattern: re.Pattern | None) -> None:
    """The person of each: out of the path, else faces that the embedding holds for one person."""
    unknown = []
    for candidate in faces:
        match = pattern.search(candidate.source) if pattern else None
        candidate.person = (match.group(1) or "") if match else ""
        if not candidate.person:
            unknown.append(candidate)
    if not unknown:
        return
    crops = [landmark_crop(c.points, size=96).cut(image.as_photo(c.picture)) for c in unknown]
    vectors = metrics.embedded(crops)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    group = np.arange(len(unknown))
    for a, b in np.argwhere(np.triu(vectors @ vectors.T > SAME_PERSON, 1)):
        group[group == group[b]] = group[a]
    for candidate, number in zip(unknown, group, strict=True):
        candidate.person = f"person {number + 1}"


def _held(people: Sequence[str], share: float, seed: int) -> set[str]:
    """The people who are kept for evaluation: where there are two, at least one and never all."""
    count = min(round(share * len(people)), max(0, len(people) - 1))
    if share and len(people) > 1:
        count = max(1, count)
    return set(np.random.default_rng(seed).permutation(people)[:count].tolist())


# ---- the folder


def _write_split(folder: Path, faces: Sequence[Candidate]) -> None:
    """faces/*.png, manifest.csv and mesh468.npz."""
    if not faces:
        return
    make_folders(folder / "faces")
    for number, candidate in enumerate(faces):
        candidate.file = f"faces/{number:05d}.png"
        image.write(folder / candidate.file, candidate.picture)
    labels = io.BytesIO()
    names, points = [c.file for c in faces], [c.points for c in faces]
    np.savez_compressed(labels, names=np.array(names), points=np.array(points, np.float32))
    write_bytes(folder / "mesh468.npz", labels.getvalue())
    write_bytes(folder / "manifest.csv", _table(COLUMNS, (c.row for c in faces)))


def _write_lists(out: Path, keep: Sequence[Candidate], rest: Sequence[Candidate]) -> None:
    """manifest.csv of all, left_out.csv, and two sheets to look at."""
    rows = (c.row | {"file": ""} | {"reason": c.reason} for c in rest)
    write_bytes(out / "left_out.csv", _table((*COLUMNS, "reason"), rows))
    write_bytes(out / "manifest.csv", _table(COLUMNS, (c.row for c in keep)))
    for name, faces in {"faces": keep, "left_out": rest}.items():
        pictures = [image.as_photo(c.picture) for c in faces if len(c.picture)]
        if pictures:
            tiles = [image.resize(p, (96, 96)) for p in pictures[:400]]
            image.write(out / f"{name}.jpg", view.grid(tiles, 16, gap=0))


def _table(columns: Sequence[str], rows: Iterable[dict[str, object]]) -> bytes:
    """A CSV file whose cells no spreadsheet takes for formulas."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        words = {k: cell(v) if isinstance(v, str) else v for k, v in row.items() if k in columns}
        writer.writerow(words)
    return text.getvalue().encode()
