"""How many of the faces in a folder of pictures are found, and how many boxes are false.

    python experiments/faces_found.py FOLDER [--sets rows albums] [--count 12] [--seed 0]

FOLDER holds `train_faces` (aligned faces with `mesh468.npz`), `train_photos2` and `train_photos`
(backgrounds) and `dev_eval/landmarks` (pictures with points or boxes made by hand). Rows, albums,
panoramas and screenshots are made of them anew, the same for the same seed. `--draw TO` writes the
pictures with boxes: green found, red missed, orange false.
"""

from __future__ import annotations

import argparse
import json
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mtrestore.crop import five_from_mesh
from mtrestore.face import detect, faces_from
from mtrestore.image import as_photo, load, write

Five = np.ndarray  # 5 x 2: eyes, nose, corners of the mouth, in pixels


@dataclass
class Sample:
    """A picture, uint8 H x W x 3, with the five points of each face."""

    name: str
    picture: np.ndarray
    faces: list[Five]


class Source:
    """Faces and backgrounds to make pictures of."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.folder = folder / "train_faces"
        mesh = np.load(self.folder / "mesh468.npz")
        self.points = dict(zip(mesh["names"].tolist(), mesh["points"], strict=True))
        self.names = sorted(self.points)
        self.photos = sorted((folder / "train_photos2").glob("**/*.jpg"))

    def face(self) -> tuple[np.ndarray, Five]:
        """An aligned face and its points."""
        while True:
            name = self.names[self.rng.integers(len(self.names))]
            file = self.folder / name
            if file.is_file():
                five = five_from_mesh(self.points[name].astype(float))
                return load(file).samples, five

    def background(self, height: int, width: int) -> np.ndarray:
        """Photographs beside or above each other, mirrored at the seams."""
        photo = load(self.photos[self.rng.integers(len(self.photos))]).samples
        if self.rng.random() < 0.5:
            photo = photo[:, ::-1]
        scale = max(min(height, width) / min(photo.shape[:2]), 0.2)
        photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        down, right = max(0, height - len(photo)), max(0, width - photo.shape[1])
        photo = cv2.copyMakeBorder(photo, 0, down, 0, right, cv2.BORDER_REFLECT)
        return np.ascontiguousarray(photo[:height, :width])


def side_of(five: Five) -> float:
    """The side of the box that a detector draws around five points."""
    return faces_from([five])[0].side


def place(page: np.ndarray, source: Source, centre: tuple, side: float, oval: bool) -> Five:
    """A face whose box is `side` px, its middle at `centre` (x, y) of the page; its points there.

    It is oval with a soft edge, or square as it lies in its file.
    """
    face, five = source.face()
    size = min(max(8, round(len(face) * side / side_of(five))), *page.shape[:2])
    k = size / len(face)
    face = cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA)
    five = (five + 0.5) * k - 0.5
    x, y = (round(c - m) for c, m in zip(centre, five.mean(0), strict=True))
    x, y = (int(np.clip(v, 0, n - size)) for v, n in ((x, page.shape[1]), (y, page.shape[0])))
    mask = np.zeros((size, size), np.float32)
    if oval:
        axes = (round(size * 0.4), round(size * 0.48))
        cv2.ellipse(mask, (size // 2, size // 2), axes, 0, 0, 360, 1, -1)
        mask = cv2.GaussianBlur(mask, (0, 0), max(0.6, size / 40))
    else:
        mask[:] = 1
    part = page[y : y + size, x : x + size]
    part[:] = np.rint(part + mask[..., None] * (face.astype(np.float32) - part))
    return five + (x, y)


def rows(source: Source, count: int) -> Iterator[Sample]:
    """Class and company pictures: 50 to 300 faces of 20 to 60 px in rows."""
    for i in range(count):
        number, least = int(source.rng.integers(50, 301)), source.rng.uniform(20, 45)
        most = source.rng.uniform(least, 60)
        step = 2.3 * most
        lines = int(source.rng.integers(2, 9))
        across = -(-number // lines)
        page = source.background(round((lines + 1) * step), round((across + 1) * step))
        faces = []
        for n in range(number):
            centre = (np.array([n % across, n // across]) + 1) * step
            centre += source.rng.uniform(-0.1, 0.1, 2) * step
            side = source.rng.uniform(least, most)
            faces.append(place(page, source, tuple(centre), side, oval=True))
        yield Sample(f"rows {i}", page, faces)


def albums(source: Source, count: int) -> Iterator[Sample]:
    """Pages of 2 to 9 prints, each in a quarter turn of its own and up to 6 degrees askew."""
    rng = source.rng
    for i in range(count):
        number, unit = int(rng.integers(2, 10)), int(rng.integers(300, 700))
        across = int(np.ceil(number**0.5))
        shape = (-(-number // across) * unit, across * unit, 3)
        page = rng.normal(rng.uniform(60, 235, 3), 4, shape)
        page = np.clip(page, 0, 255).astype(np.uint8)
        faces = []
        for n in range(number):
            height, width = (int(unit * f) for f in rng.uniform(0.6, 0.72, 2))
            print_ = source.background(height, width)
            side = rng.uniform(0.25, 0.5) * min(height, width)
            middle = (width * rng.uniform(0.4, 0.6), height * rng.uniform(0.4, 0.6))
            five = place(print_, source, middle, side, oval=bool(rng.random() < 0.5))
            if rng.random() < 0.4:
                print_ = print_.mean(-1, keepdims=True) * rng.uniform(0.8, 1, 3)
            angle = 90 * rng.integers(4) + rng.uniform(-6, 6)
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
            turn[:, 2] += (
                (n % across + 0.5) * unit - width / 2,
                (n // across + 0.5) * unit - height / 2,
            )
            size = page.shape[1::-1]
            mask = cv2.warpAffine(np.ones((height, width), np.float32), turn, size)[..., None]
            laid = cv2.warpAffine(print_.astype(np.float32), turn, size)
            page = np.rint(page * (1 - mask) + laid * (mask > 0)).clip(0, 255).astype(np.uint8)
            faces.append(five @ turn[:, :2].T + turn[:, 2])
        yield Sample(f"album {i}", page, faces)


def panoramas(source: Source, count: int) -> Iterator[Sample]:
    """6:1 to 10:1, 500 to 1200 px high, with 5 to 12 faces of 24 to 110 px."""
    rng = source.rng
    for i in range(count):
        height = int(rng.integers(500, 1201))
        page = source.background(height, round(height * rng.uniform(6, 10)))
        number = int(rng.integers(5, 13))
        faces = []
        for n in range(number):
            centre = (page.shape[1] * (n + rng.uniform(0.3, 0.7)) / number, height * 0.55)
            faces.append(place(page, source, centre, rng.uniform(24, 110), oval=True))
        yield Sample(f"panorama {i}", page, faces)


def screenshots(source: Source, count: int) -> Iterator[Sample]:
    """1:8: lines of text with a small portrait each, and a few large photographs."""
    rng = source.rng
    for i in range(count):
        width = int(rng.integers(500, 800))
        page = np.full((8 * width, width, 3), rng.integers(230, 256), np.uint8)
        y, faces = 40, []
        while y < len(page) - width:
            if rng.random() < 0.12:
                page[y : y + width * 2 // 3] = source.background(width * 2 // 3, width)
                part = page[y : y + width * 2 // 3]
                side = rng.uniform(0.2, 0.3) * width
                faces.append(place(part, source, (width / 2, width / 3), side, oval=True) + (0, y))
                y += width * 2 // 3 + 30
                continue
            if rng.random() < 0.5:
                side = rng.uniform(20, 40)
                faces.append(place(page, source, (60, y + 40), side, oval=False))
            for line in range(3):
                words = "".join(rng.choice(list("etaoin shrdlu"), 30))
                at = (140, int(y + 20 + 24 * line))
                cv2.putText(page, words, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (60, 60, 60), 1)
            y += 110
        yield Sample(f"screenshot {i}", page, faces)


def hand_made(folder: Path) -> Iterator[Sample]:
    """Helen and AFW with 68 points, dlib with boxes."""
    for file in sorted((folder / "dev_eval/landmarks").glob("*.json")):
        faces = []
        for points in json.loads(file.read_text())["landmarks68"]:
            p = np.array(points)
            eyes = [p[36:42].mean(0), p[42:48].mean(0)]
            faces.append(np.array([*eyes, p[30], p[48], p[54]]))
        yield Sample(file.stem, load(file.with_suffix(".jpg")).samples, faces)
    for name in ("testing", "training"):
        file = folder / f"dev_eval/landmarks/dlib/{name}.xml"
        for entry in ElementTree.parse(file).iter("image"):
            boxes = []
            for b in entry.iter("box"):
                x, y, w, h = (float(b.attrib[k]) for k in ("left", "top", "width", "height"))
                boxes.append((x, y, x + w, y + h))
            photo = entry.attrib["file"]
            picture = load(file.parent / photo).samples
            yield Sample(photo, picture, [f.five for f in faces_from(boxes)])


def without_faces(folder: Path) -> Iterator[Sample]:
    """Landscapes and towns: each box there is false, or a passer-by that nobody marked."""
    files = sorted((folder / "train_photos2").glob("**/*.jpg"))
    files += sorted((folder / "train_photos/bsds").glob("*.jpg"))
    for file in files:
        yield Sample(file.stem, load(file).samples, [])


def axis(five: Five) -> np.ndarray:
    """From the eyes to the mouth, of length 1."""
    down = five[3:].mean(0) - five[:2].mean(0)
    return down / max(np.hypot(*down), 1e-9)


def matches(five: Five, truth: Five) -> bool:
    """At the same place, within 60 degrees the same way up."""
    near = np.hypot(*(five.mean(0) - truth.mean(0))) < 0.4 * side_of(truth)
    return bool(near and axis(five) @ axis(truth) > 0.5)


def compared(sample: Sample, faces: list) -> tuple[list[bool], list[bool]]:
    """For each true face, whether it is found; for each found one, whether it is true."""
    hit, right = [False] * len(sample.faces), [False] * len(faces)
    for i, face in enumerate(faces):
        for j, truth in enumerate(sample.faces):
            if not hit[j] and matches(face.five, truth):
                hit[j] = right[i] = True
                break
    return hit, right


def drawn(sample: Sample, faces: list, hit: list[bool], right: list[bool]) -> np.ndarray:
    """The picture with a box around each face and a line from its eyes to its mouth."""
    picture = np.ascontiguousarray(sample.picture)
    boxes = [(f.box, f.five, (0, 255, 0) if ok else (255, 140, 0)) for f, ok in zip(faces, right)]
    for truth, ok in zip(sample.faces, hit, strict=True):
        if not ok:
            side = side_of(truth) / 2
            box = (*(truth.mean(0) - side), *(truth.mean(0) + side))
            boxes.append((box, truth, (255, 0, 0)))
    thick = max(1, round(max(picture.shape) / 900))
    for box, five, colour in boxes:
        x0, y0, x1, y1 = (round(v) for v in box)
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, thick)
        eyes, mouth = np.rint([five[:2].mean(0), five[3:].mean(0)]).astype(int).tolist()
        cv2.line(picture, eyes, mouth, colour, thick)
    return picture


def sets(folder: Path, count: int, seed: int) -> dict[str, Iterator[Sample]]:
    made = (rows, albums, panoramas, screenshots)
    return {
        "hand-made": hand_made(folder),
        **{make.__name__: make(Source(folder, seed), count) for make in made},
        "without faces": without_faces(folder),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", help="only these")
    parser.add_argument("--count", type=int, default=12, help="pictures of each made set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detector", default="mtcnn")
    parser.add_argument("--draw", type=Path, help="a folder for the pictures with boxes")
    args = parser.parse_args()
    print("set            pictures     MP       found  recall  false  cpu s")
    for name, samples in sets(args.folder, args.count, args.seed).items():
        if args.sets and name not in args.sets:
            continue
        pictures = pixels = true = total = false = seconds = 0
        for sample in samples:
            began = time.process_time()
            faces = detect(sample.picture, args.detector)
            seconds += time.process_time() - began
            hit, right = compared(sample, faces)
            pictures, pixels = pictures + 1, pixels + sample.picture[..., 0].size
            true, total, false = true + sum(hit), total + len(hit), false + right.count(False)
            if args.draw and not (all(hit) and all(right)):
                args.draw.mkdir(parents=True, exist_ok=True)
                picture = drawn(sample, faces, hit, right)
                write(args.draw / f"{name} {sample.name}.png", as_photo(picture))
        recall = f"{100 * true / total:.1f}" if total else ""
        print(
            f"{name:14} {pictures:8} {pixels / 1e6:6.1f} {true:5}/{total:<5} {recall:>7} {false:6} "
            f"{seconds:6.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
