"""Which face has which number: the photo with numbered boxes, and a table of them."""

from __future__ import annotations

import html
from collections.abc import Sequence

import cv2
import numpy as np

from .. import image, view
from ..face import Face
from ..image import Photo
from ..io.files import page

SIDES = (640, 1600)  # px: a smaller photo is enlarged, a larger one shrunk
FONT = cv2.FONT_HERSHEY_SIMPLEX
COLUMNS = (16, 90, 370, 560)  # px, where those of the table begin


def table(faces: Sequence[Face]) -> view.Table:
    """Number, box (as --box takes it), size and status of each face."""
    rows = {}
    for number, face in enumerate(faces, 1):
        x0, y0, x1, y1 = face.box
        rows[str(number)] = {
            "box": face.corners,
            "size": f"{x1 - x0:.0f}×{y1 - y0:.0f} px",
            "status": face.status.replace("_", " "),
        }
    return view.Table(rows, "face")


def numbered(photo: np.ndarray, faces: Sequence[Face]) -> Photo:
    """The photo (or its samples) at a size for the screen, a box and a number on each face."""
    least, most = SIDES
    long = max(photo.shape[:2])
    small = image.enlarge(photo, least / long) if long < least else image.shrink(photo, most)
    canvas = np.array(image.as_samples(image.as_photo(small), np.uint8))
    ratio = np.tile(np.array(canvas.shape[1::-1]) / photo.shape[1::-1], 2)
    thick = max(2, max(canvas.shape) // 400)
    for number, face in enumerate(faces, 1):
        colour = rgb(view.COLOURS[(number - 1) % len(view.COLOURS)])
        x0, y0, x1, y1 = np.rint(np.array(face.box) * ratio).astype(int).tolist()
        cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, thick)
        (width, height), _ = cv2.getTextSize(str(number), FONT, thick / 3, thick)
        x = min(max(x0, 0), canvas.shape[1] - width - 8)
        y = max(y0 - height - 8, 0)
        cv2.rectangle(canvas, (x, y), (x + width + 8, y + height + 8), colour, -1)
        place = (x + 4, y + height + 4)
        cv2.putText(canvas, str(number), place, FONT, thick / 3, (0, 0, 0), thick, cv2.LINE_AA)
    return image.as_photo(canvas)


def picture(photo: np.ndarray, faces: Sequence[Face]) -> Photo:
    """The numbered photo with the table below it."""
    upper = numbered(photo, faces)
    lines = table(faces).cells() if faces else [["no face was found"]]
    lower = np.full((16 + 28 * len(lines), max(upper.shape[1], 720), 3), 255, np.uint8)
    for row, line in enumerate(lines, 1):
        for x, word in zip(COLUMNS, line):
            word = word.replace("×", "x")  # OpenCV's letters are ASCII
            cv2.putText(lower, word, (x, 28 * row), FONT, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    wide = np.ones((len(upper), lower.shape[1], 3), np.float32)
    wide[:, : upper.shape[1]] = upper
    return np.vstack([wide, image.as_photo(lower)])


def overview(photo: np.ndarray, faces: Sequence[Face], title: str) -> str:
    """The numbered photo and the table as an HTML page that needs nothing else."""
    body = f"<h1>{html.escape(title)}</h1>\n"
    uri = view.data_uri(numbered(photo, faces))
    body += f'<img alt="the photo with numbered faces" style="max-width:100%" src="{uri}">\n'
    body += table(faces)._repr_html_() if faces else "<p>no face was found</p>"
    return page("page.html", mark="", title=html.escape(title), width=SIDES[1], body=body)


def rgb(colour: str) -> tuple[int, int, int]:
    """`#ff5a36` as three numbers."""
    red, green, blue = bytes.fromhex(colour[1:])
    return (red, green, blue)
