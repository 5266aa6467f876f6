"""Finding faces: a ready-made CNN detector, made steady, and dense landmarks on what it finds.

A detector is any function from a uint8 RGB picture to rows of 15 numbers; two come ready, MTCNN (a
package, the default) and YuNet (a file for OpenCV). They look where `search` says: at the whole
photo, at tiles fine enough for a face of 16 px, at the quarter turns. A function of one's own is
shown the whole photo. Everything comes back in photo pixels.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch

from .crop import eye_crop, five_from_mesh
from .fast import onnxfile
from .guard import forks
from .image import as_photo, as_samples, enlarge, shrink, to_tensor
from .search import LEAST_SIDE, Detector, Scores, everywhere, on_photo, suppress, whole

__all__ = ["Face", "Faces", "dense", "detect", "faces_from", "five_from_mesh", "suppress"]

LEAST_LONG_SIDE = 256  # px: smaller photos are enlarged before detection
# Scores: what a face needs on the upright photo; what ends the search there; what it needs on
# turned or cleared copies, which invite false boxes. Measured on 74 labelled portraits and 171
# landscapes and street scenes.
SCORES = {"mtcnn": Scores(0.9, 0.99, 0.99), "yunet": Scores(0.7, 0.9, 0.8)}
# In MTCNN's box 0..1, median of 70 faces.
MEAN_FIVE = np.array([[0.27, 0.41], [0.73, 0.41], [0.5, 0.61], [0.285, 0.75], [0.715, 0.75]])


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a photo: `box` (x0, y0, x1, y1), `landmarks` (5 or 468, 2) read-only, both in
    photo pixels, and what became of it.

    Five points are viewer's left eye, right eye, nose tip, left and right mouth corner of the
    upright face; 468 are MediaPipe's mesh. `status` is "found", "too_small" (box side under 16 px),
    "restored", "soft" (restored, and too blurred still to hold its features), "left_out" (nobody
    asked for it) or "failed: <reason>".
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float = 1.0
    status: str = "found"

    def __post_init__(self) -> None:
        points = np.array(self.landmarks, np.float64)
        if (
            points.shape not in ((5, 2), (468, 2))
            or len(self.box) != 4
            or not np.isfinite([*self.box, *points.ravel()]).all()
        ):
            raise ValueError(
                "a face is a finite box of 4 numbers and 5 or 468 points (x, y), "
                f"got {self.box} and points {points.shape}"
            )
        points.flags.writeable = False
        object.__setattr__(self, "landmarks", points)
        object.__setattr__(self, "box", tuple(float(v) for v in self.box))

    @property
    def five(self) -> np.ndarray:
        """The five points, (5, 2)."""
        return five_from_mesh(self.landmarks)

    @property
    def corners(self) -> str:
        """x0,y0,x1,y1 in whole px, as --box takes them."""
        return ",".join(str(round(v)) for v in self.box)

    @property
    def side(self) -> float:
        """The shorter side of the box in photo pixels."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])


class Faces(list[Face]):
    """A list of faces; `notes` says, a short sentence each, what could not have been seen."""

    def __init__(self, faces: Iterable[Face] = (), notes: Iterable[str] = ()) -> None:
        super().__init__(faces)
        self.notes = tuple(notes)


def detect(
    photo: np.ndarray,
    detector: str | Detector = "auto",
    size: int = 640,
    landmarks: Callable | None = None,
    yunet_file: str | Path | None = None,
) -> Faces:
    """The faces of a photo (H x W x 3, 0..1, or samples), largest first, with notes of what could
    not have been seen; an empty list when there are none.

    `detector`: "mtcnn", "yunet", "auto" (YuNet if its file is there, else MTCNN) or a function as
    `search.Detector`, which sees the whole photo only. `size` is the long side of the first look (a
    panorama's is longer); smaller faces than it shows are found in tiles (see `search`).
    `landmarks`: a net for `dense`. `yunet_file`: where YuNet's ONNX file lies; else the environment
    variable MTRESTORE_YUNET, else ~/.cache/mtrestore/yunet_s_dynamic.onnx.
    """
    forks.check()
    forks.used()
    look, scores = _detector(detector, yunet_file)
    if scores is None:
        rows, notes = _shown_whole(look, photo, size)
    else:
        height, width = photo.shape[:2]
        scale = min(1, max(size / max(height, width), 0.75 * size / (height * width) ** 0.5))
        scale = max(scale, LEAST_LONG_SIDE / max(height, width))
        rows, notes = everywhere(look, photo, scale, scores)
    faces = [
        Face((*p[0], *p[1]), p[2:], min(float(s), 1.0))
        for p, s in zip(rows[:, :14].reshape(-1, 7, 2), rows[:, 14], strict=True)
    ]
    faces = [
        replace(f, status="too_small") if f.side < LEAST_SIDE else f for f in _largest_first(faces)
    ]
    if landmarks:
        faces = [dense(photo, f, landmarks) if f.status == "found" else f for f in faces]
    return Faces(faces, notes)


def _shown_whole(look: Detector, photo: np.ndarray, size: int) -> tuple[np.ndarray, list[str]]:
    """Rows and notes of a person's own function: it sees the whole photo, and is believed."""
    long = max(photo.shape[:2])
    small = enlarge(photo, LEAST_LONG_SIDE / long) if long < LEAST_LONG_SIDE else photo
    small = shrink(small, size)
    if min(small.shape[:2]) < 16:
        return np.zeros((0, 15)), []
    rows = whole(look, as_samples(as_photo(small), np.uint8))
    rows = on_photo(rows, photo.shape, small.shape)
    if small.size >= photo.size:
        return rows, []
    shape = "x".join(str(n) for n in small.shape[1::-1])
    return rows, [f"the detector function saw the whole photo at {shape} px, not in tiles"]


def dense(photo: np.ndarray, face: Face, net: Callable) -> Face:
    """The face with 468 landmarks by `net` (Tensor 1 x 3 x 128 x 128, the upright eye crop -> 1 x
    468 x 2 in 0..1 of the crop's side).

    An answer that is not finite, or whose five points lie on average further from the detector's
    than 0.35 of the face's unit (the eye distance, or 0.9 of eyes to mouth where that is more: a
    profile), is not believed: the face comes back with its five points.
    """
    crop = eye_crop(face.five, 128)
    with torch.inference_mode():
        answer = net(to_tensor(crop.cut(photo)))
    points = np.asarray(answer.detach().cpu().float(), np.float64).reshape(-1, 2)
    if points.shape != (468, 2) or not np.isfinite(points).all():
        return face
    points = crop.on_photo(points * crop.size - 0.5)
    eyes, mouth = face.five[:2], face.five[3:]
    unit = max(np.hypot(*(eyes[1] - eyes[0])), 0.9 * np.hypot(*(mouth.mean(0) - eyes.mean(0))))
    apart = np.hypot(*(five_from_mesh(points) - face.five).T).mean()
    return replace(face, landmarks=points) if apart <= 0.35 * unit else face


def faces_from(items: Iterable) -> list[Face]:
    """Faces from what a person gives: boxes (x0, y0, x1, y1) or landmarks (5 or 468 points x, y),
    in photo pixels, largest first.

    A box alone gets the five points of a mean upright face; landmarks alone get the box around
    their five points as a detector draws it.
    """
    faces = []
    for item in items:
        a = np.asarray(item, np.float64)
        finite = np.isfinite(a).all()
        if finite and a.shape == (4,) and a[2] > a[0] and a[3] > a[1]:
            face = Face(tuple(a), a[:2] + MEAN_FIVE * (a[2:] - a[:2]))
        elif finite and a.shape in ((5, 2), (468, 2)):
            low, high = five_from_mesh(a).min(0), five_from_mesh(a).max(0)
            span, middle = (high - low) / np.ptp(MEAN_FIVE, axis=0), (high + low) / 2
            centre = middle - (MEAN_FIVE.max(0) + MEAN_FIVE.min(0) - 1) / 2 * span
            face = Face((*(centre - span / 2), *(centre + span / 2)), a)
        else:
            raise ValueError(
                "a face is given as a box x0 y0 x1 y1 or as 5 or 468 points x y, "
                f"got {np.array2string(a, threshold=8)}"
            )
        faces.append(replace(face, status="too_small") if face.side < LEAST_SIDE else face)
    return _largest_first(faces)


def _largest_first(faces: list[Face]) -> list[Face]:
    return sorted(faces, key=lambda f: (f.box[2] - f.box[0]) * (f.box[3] - f.box[1]), reverse=True)


# Detectors keep state and thread pools: one for each thread of each process.
_mine = threading.local()


def _detector(
    detector: str | Detector, yunet_file: str | Path | None
) -> tuple[Detector, Scores | None]:
    """The function and its scores; a person's own function has none: it is always believed."""
    if callable(detector):
        return detector, None
    if detector not in ("auto", "mtcnn", "yunet"):
        raise ValueError(
            f'detector must be "auto", "mtcnn", "yunet" or a function, got {detector!r}'
        )
    file = Path(
        yunet_file or os.environ.get("MTRESTORE_YUNET") or "~/.cache/mtrestore/yunet_s_dynamic.onnx"
    ).expanduser()
    if detector == "auto":
        detector = "yunet" if yunet_file or file.is_file() else "mtcnn"
    made = _mine.__dict__.setdefault(str(os.getpid()), {})
    key = (detector, str(file) if detector == "yunet" else "")
    if key not in made:
        made[key] = forks.hold(_yunet(file) if detector == "yunet" else _mtcnn())
    return made[key], SCORES[detector]


def _mtcnn() -> Detector:
    """MTCNN (Zhang et al., 2016) from the package mtcnn-runtime; it takes BGR and raises ValueError
    where it finds nothing.
    """
    try:
        import onnxruntime
        from mtcnnruntime import detector as package
    except ImportError as e:
        raise ModuleNotFoundError(
            f"face detection needs mtcnn-runtime ({e}); `pip install mtcnn-runtime` "
            "or pass detector="
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = min(2, torch.get_num_threads()), 3
    # A thread that spins while it waits takes the other branch's time.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = functools.partial(onnxruntime.InferenceSession, sess_options=options)
    package.onnxruntime = SimpleNamespace(InferenceSession=session)
    net = package.MTCNN()

    def look(picture: np.ndarray) -> np.ndarray:
        try:
            boxes, points = net.detect(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        except ValueError:
            return np.zeros((0, 15))
        boxes = np.reshape(boxes, (-1, 5))
        points = np.reshape(points, (-1, 2, 5)).transpose(0, 2, 1)  # it lists five x, then five y
        points = points.reshape(-1, 10)
        return np.c_[boxes[:, :4], points, boxes[:, 4]]

    return look


def _yunet(file: Path) -> Detector:
    """YuNet (Wu et al., 2023) through OpenCV, on the picture and on its half and quarter, for it
    misses faces that fill the picture.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"YuNet's file is not at {file}; put it there, pass yunet_file= or use detector='mtcnn'"
        )
    # OpenCV 5 warns that its new engine has no targets.
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    model, config = np.frombuffer(onnxfile.read(file), np.uint8), np.zeros(0, np.uint8)
    net = cv2.FaceDetectorYN.create("onnx", model, config, (320, 320), 0.5, 0.3, 5000)
    cv2.utils.logging.setLogLevel(level)

    def look(picture: np.ndarray) -> np.ndarray:
        found = [np.zeros((0, 15))]
        for f in (1, 2, 4):
            h, w = (max(16, round(n / f)) for n in picture.shape[:2])
            net.setInputSize((w, h))
            small = cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA)
            rows = net.detect(np.ascontiguousarray(small[..., ::-1]))[1]
            if rows is not None:
                rows = rows.astype(np.float64)
                rows[:, 2:4] += rows[:, :2]
                rows[:, :14] *= np.tile([picture.shape[1] / w, picture.shape[0] / h], 7)
                found.append(rows)
        return np.concatenate(found)

    return look
