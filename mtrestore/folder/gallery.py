"""The page of a folder run: every picture before and after, and what failed and why.

The page holds names and links; before and after are one picture in a file beside it, which a
browser reads when it comes into sight, so that ten thousand open at once. A click lays both halves
over each other; without scripts it opens the file. What came with a picture is escaped.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from .. import image
from ..io import claims, files
from ..io.text import shown
from .names import STATE, key

SIDE = 800  # px, the long side of each of both
GAP = 4  # px of white between them, as gallery.js knows
MARK = claims.GALLERY  # only a page that bears it is ever replaced


def thumb_path(root: Path, name: str) -> Path:
    """Where the thumbnail of an output lies."""
    return root / STATE / "thumbs" / f"{key(name)}.jpg"


def thumb(before: np.ndarray, after: np.ndarray) -> bytes:
    """Before and after (photos or samples) side by side as a JPEG."""
    small = image.as_photo(image.shrink(before, SIDE))
    gap = np.ones((len(small), GAP, 3), np.float32)
    strip = np.hstack([small, gap, image.as_photo(image.resize(after, small.shape[:2]))])
    pixels = image.as_samples(strip[..., ::-1], np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def page(root: Path, rows: Iterable[dict[str, Any]]) -> str:
    """The HTML of a run; rows as in `journal`.

    It says the same of a picture done now and of one done before.
    """
    rows = sorted(rows, key=lambda row: row["name"])
    failed = [row for row in rows if row["status"] == "failed"]
    done = ("restored", "skipped")
    figures = [_figure(root, row) for row in rows if row["status"] in done]
    top = f'<p><a href="#failed">{len(failed)} failed, below</a></p>' if failed else ""
    return files.page(
        "gallery.html",
        mark=MARK,
        style=files.asset("gallery.css"),
        script=files.asset("gallery.js"),
        title=f"{len(figures)} restored, {len(failed)} failed",
        top=top,
        failures=_failures(failed),
        figures="\n".join(figures),
    )


def _failures(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    cells = [[_text(row[name]) for name in ("input", "code", "message")] for row in rows]
    lines = "\n".join(f"<tr><td>{'</td><td>'.join(line)}</td></tr>" for line in cells)
    head = "<tr><th>file</th><th>code</th><th>why</th></tr>"
    return f"<h2 id='failed'>{len(rows)} failed</h2>\n<table>{head}\n{lines}\n</table>"


def _figure(root: Path, row: dict[str, Any]) -> str:
    name, both = _text(row["name"]), thumb_path(root, row["name"])
    picture = ""
    if both.is_file():
        link = _link(both.relative_to(root))
        picture = f'<img loading="lazy" alt="{name}, before and after" src="{link}">'
        picture = f'<a class="both" href="{link}">{picture}</a>'
    faces = f"{row.get('faces_restored', 0)} of {row.get('faces_found', 0)} faces"
    words = "".join(f'<span class="flag">{_text(word)}</span>' for word in row.get("flags", ()))
    caption = f'<a href="{_link(row["name"])}">{name}</a> <small>{_text(faces)}</small>{words}'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _text(value: object) -> str:
    return html.escape(shown(str(value)))


def _link(path: str | Path) -> str:
    return quote(os.fsencode(path))
