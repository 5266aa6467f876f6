"""The page of a folder run: every picture before and after, small, and what failed and why.

The page holds names and links; the thumbnails are files beside it, which a browser fetches when they come into sight, so that ten
thousand pictures open at once. Everything that came with a picture is escaped.
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
from ..io import claims
from ..io.text import shown
from .names import STATE, key

SIDE = 200  # px, the long side of a thumbnail
MARK = claims.GALLERY  # only a page that bears it is ever replaced

PAGE = """<!doctype html>
{mark}
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<style>
body{{font:14px/1.4 system-ui,sans-serif;max-width:1300px;margin:1em auto;padding:0 1em}}
main{{display:grid;grid-template-columns:repeat(auto-fill,minmax(410px,1fr));gap:1em}}
figure{{margin:0;overflow-wrap:anywhere}}
img{{display:block;max-width:100%;height:auto;border-radius:4px}}
small{{opacity:.65}}
td,th{{text-align:left;vertical-align:top;padding:0 1em .3em 0;overflow-wrap:anywhere}}
</style></head>
<body>
<h1>{title}</h1>
{failures}
<main>
{figures}
</main>
</body></html>
"""


def thumb_path(root: Path, name: str) -> Path:
    """Where the thumbnail of an output lies."""
    return root / STATE / "thumbs" / f"{key(name)}.jpg"


def thumb(before: np.ndarray, after: np.ndarray) -> bytes:
    """Before and after (photos or samples) side by side as a small JPEG."""
    small = image.as_photo(image.shrink(before, SIDE))
    strip = np.concatenate(
        [
            small,
            np.ones((len(small), 4, 3), np.float32),
            image.as_photo(image.resize(after, small.shape[:2])),
        ],
        1,
    )
    return cv2.imencode(
        ".jpg", image.as_samples(strip[..., ::-1], np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 80]
    )[1].tobytes()


def page(root: Path, rows: Iterable[dict[str, Any]]) -> str:
    """The HTML of a run; rows as in `journal`. It says the same of a picture done now and of one done before."""
    rows = sorted(rows, key=lambda row: row["name"])
    text = lambda value: html.escape(shown(str(value)))
    link = lambda path: quote(os.fsencode(path))
    failed = [row for row in rows if row["status"] == "failed"]
    lines = "\n".join(
        f"<tr><td>{text(r['input'])}</td><td>{text(r['code'])}</td><td>{text(r['message'])}</td></tr>"
        for r in failed
    )
    table = (
        f"<h2>{len(failed)} failed</h2>\n<table><tr><th>file</th><th>code</th><th>why</th></tr>\n{lines}\n</table>"
        if failed
        else ""
    )
    figures = []
    for row in rows:
        if row["status"] != "failed":
            small = thumb_path(root, row["name"])
            picture = (
                f'<img loading="lazy" alt="before and after" src="{link(small.relative_to(root))}">'
                if small.is_file()
                else ""
            )
            faces = f"{row.get('faces_restored', 0)} of {row.get('faces_found', 0)} faces"
            figures.append(
                f'<figure><a href="{link(row["name"])}">{picture}{text(row["name"])}</a> <small>{text(faces)}</small></figure>'
            )
    title = f"{len(figures)} restored, {len(failed)} failed"
    return PAGE.format(mark=MARK, title=title, failures=table, figures="\n".join(figures))
