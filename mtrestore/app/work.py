"""One photo, in a worker process: looked at, restored, and made small for the screen.

A photo lies under a name of ours in a folder of its own; what it is called, only the page knows.
What cannot be used raises ImageError, whatever else is wrong too; the desk makes it one line.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .. import image, view
from ..choice import Choice
from ..face import Face, detect, faces_from
from ..folder.flags import flags
from ..pipeline import Restorer
from .asked import Asked, Wish

SCREEN = 2048  # px, the long side of what the page shows


def look(photo: Path) -> dict[str, Any]:
    """Read a photo, write `before` beside it for the screen, find its faces."""
    picture = image.load(photo)
    height, width = picture.samples.shape[:2]
    on_screen(photo.with_name("before"), picture.samples)
    people = detect(image.without_hidden(picture))
    faces = [row(face, Wish(face.box)) for face in people]
    notes = [*picture.notes, *people.notes]
    return {"width": width, "height": height, "faces": faces, "notes": notes}


def restore(
    photo: Path, suffix: str, seen: list[dict[str, Any]], asked: Asked, device: str
) -> dict[str, Any]:
    """Restore a photo into `restored` + suffix beside it, and write `after` for the screen.

    seen: the faces of `look`. What the options of a Restorer mean, they mean here.
    """
    picture = image.load(photo)
    hand = [wish.box for wish in asked.faces or () if wish.hand]
    boxes = faces_from([face["box"] for face in seen if not face["hand"]])
    people = Choice(boxes=hand).with_boxes(boxes, picture.samples.shape[:2])
    strengths = {wish.box: wish.strength for wish in asked.faces or ()}
    usual = asked.face_strength
    own = {number: strengths.get(face.box, usual) for number, face in enumerate(people, 1)}
    options = asked.options() | {"face_strength": own, "device": device}
    result = Restorer(**options, keep_steps=False)(picture)
    target = photo.with_name(f"restored{suffix}")
    result.save(target, strip_location=asked.strip_location)
    on_screen(photo.with_name("after"), result.samples)
    wishes = [Wish(f.box, own[n], f.box in hand) for n, f in enumerate(result.faces, 1)]
    states = [face.status for face in result.faces]
    lost = image.what_is_lost(picture, suffix)
    height, width = result.samples.shape[:2]
    return {
        "faces": [row(face, wish) for face, wish in zip(result.faces, wishes)],
        "notes": [*picture.notes, *lost],
        "place": bool(image.place_taken(picture, suffix, False)),
        "flags": flags(result.samples, states, True),
        "seconds": round(result.timings["total"], 1),
        "out_width": width,
        "out_height": height,
        "bytes": os.path.getsize(target),
    }


def row(face: Face, wish: Wish) -> dict[str, Any]:
    """A face for the page."""
    return asdict(wish) | {"status": face.status.replace("_", " ")}


def on_screen(path: Path, samples: np.ndarray) -> None:
    """Write a picture as the page shows it, PNG or JPEG, whatever its name is."""
    _, data = view.encoded(image.as_photo(image.shrink(samples, SCREEN)))
    image.write_bytes(path, data)
