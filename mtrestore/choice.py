"""Which faces of a photo are restored, and how much of each.

Faces count from 1 in the order of `detect`, largest first. A box by hand that lies on a face takes
its place and number; else it comes after them. `mtrestore faces PHOTO` shows the numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from . import weights
from .face import Face, faces_from
from .io.files import ImageError
from .options import Options

SAME = 0.4  # boxes that overlap by more, intersection over union, are of one face


@dataclass(frozen=True)
class Choice:
    """only: numbers of the found faces that are wanted, None for all. skip: which are not. boxes:
    faces by hand, always wanted.
    """

    only: Collection[int] | None = None
    skip: Collection[int] = ()
    boxes: Sequence[Sequence[float]] = ()

    @property
    def looks(self) -> bool:
        """Whether any face that is found is wanted."""
        return self.only is None or len(self.only) > 0

    @classmethod
    def of(cls, o: Options) -> Choice:
        """What the options say; where no face is looked for, those by hand are left."""
        only = {True: None, False: ()}[o.faces] if isinstance(o.faces, bool) else o.faces
        return cls(only, o.skip_faces, o.more_faces)

    def with_boxes(self, faces: Sequence[Face], size: tuple[int, int]) -> list[Face]:
        """The faces, and those of the boxes, on a photo of `size` (height, width).

        Raises ImageError E_FACE where a box lies beside the photo.
        """
        faces, (height, width) = list(faces), size
        for face in (faces_from([box])[0] for box in self.boxes):
            x0, y0, x1, y1 = face.box
            if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
                words = f"the box {x0:g},{y0:g},{x1:g},{y1:g} lies beside the photo"
                raise ImageError("E_FACE", f"{words}, which is {width} px wide and {height} high")
            same = [i for i, other in enumerate(faces) if overlap(face, other) > SAME]
            if same:
                faces[same[0]] = face
            else:
                faces.append(face)
        return faces

    def mark(self, faces: Sequence[Face], strength: Any = 1.0) -> list[Face]:
        """The faces, with the status "left_out" where they are not wanted.

        strength: as of `Restorer`. Raises ImageError E_FACE for a number that no face has.
        """
        own = {} if isinstance(strength, Real) else dict(strength)
        only = () if self.only is None else self.only
        for number in sorted({*only, *self.skip, *own}):
            if number > len(faces):
                raise ImageError("E_FACE", f"there is no face {number}: {count(len(faces))}")
        hand = {tuple(map(float, box)) for box in self.boxes}
        marks = []
        for number, face in enumerate(faces, 1):
            chosen = self.only is None or number in self.only or face.box in hand
            if number in self.skip or own.get(number) == 0 or not chosen:
                face = replace(face, status="left_out")
            elif face.status == "left_out":
                face = replace(face, status="found")
            marks.append(face)
        return marks


def strength_of(strength: Any, number: int) -> float:
    """The strength of a face: the one number for all, or its own; 1 where a mapping has none."""
    return strength if isinstance(strength, Real) else dict(strength).get(number, 1.0)


def count(faces: int) -> str:
    """How many faces there are, in words."""
    if not faces:
        return "no face was found; name one with --box x0,y0,x1,y1"
    if faces == 1:
        return "one face was found, number 1"
    return f"{faces} faces were found, numbers 1 to {faces}; `mtrestore faces PHOTO` shows them"


def overlap(one: Face, other: Face) -> float:
    """Intersection over union of two boxes."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = one.box, other.box
    shared = max(0, min(ax1, bx1) - max(ax0, bx0)) * max(0, min(ay1, by1) - max(ay0, by0))
    return shared / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared)


def no_face(detector: Any) -> str:
    """What to do next where this detector has found nothing."""
    there = weights.yunet_path().is_file()
    words = "no face was found: if there is one, name it with --box x0,y0,x1,y1 (in Python boxes=)"
    if callable(detector):
        return words
    other = "mtcnn" if detector == "yunet" or (detector == "auto" and there) else "yunet"
    first = "" if there or other == "mtcnn" else " after `mtrestore models fetch yunet`"
    return f"{words}, or look the other way with --detector {other}{first}"
