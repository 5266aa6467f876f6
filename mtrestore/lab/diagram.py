"""The idea of a notebook as boxes and arrows, drawn from a line of words for each path.

    draw("photo > faces > paste", "photo > restorer > paste > sharpener", here=["faces"])

What is named twice is one box, so that paths part and meet.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection
from typing import Any

from ..io.text import shown
from ..plot import Plot

WIDE, TALL, LETTERS = 1.55, 0.95, 13  # inches of a place; letters in a line of a box
BOX = {"boxstyle": "round,pad=0.5", "edgecolor": "#444", "linewidth": 1}
ARROW = {"arrowstyle": "-|>", "color": "#444", "linewidth": 1, "shrinkA": 1, "shrinkB": 1}
FACES = {True: "#ffd9cf", False: "#eef2f7"}


def draw(*paths: str, here: Collection[str] = ()) -> Plot:
    """A figure with a box for each name and an arrow for each `>`.

    A name that several paths share is one box. Each box stands to the right of all that leads to
    it, in the row of the first path that names it. here: the names of boxes that are coloured.
    Raises ValueError for a path that comes back to itself, and a name of `here` that is in none.
    """
    rows: dict[str, int] = {}
    arrows: dict[tuple[str, str], None] = {}
    for row, path in enumerate(paths):
        names = [name.strip() for name in path.split(">")]
        rows |= {name: rows.get(name, row) for name in names}
        arrows |= dict.fromkeys(zip(names, names[1:]))
    if strange := [name for name in here if name not in rows]:
        raise ValueError(f"here must name boxes of the paths, and {strange[0]!r} is none")
    columns = _columns(list(rows), list(arrows))
    wide, tall = max(columns.values()), max(rows.values())
    plot = Plot(figsize=(WIDE * (wide + 1), TALL * (tall + 1)))
    axes = plot.add_axes((0, 0, 1, 1), xlim=(-0.5, wide + 0.5), ylim=(tall + 0.5, -0.5))
    axes.axis("off")
    boxes: dict[str, Any] = {}
    for name, row in rows.items():
        words = textwrap.fill(shown(name), LETTERS)
        box = BOX | {"facecolor": FACES[name in here]}
        font = {"ha": "center", "va": "center", "fontsize": 9, "parse_math": False}
        boxes[name] = axes.text(columns[name], row, words, bbox=box, **font)
    plot.canvas.draw()  # a box has its size once it is drawn
    for a, b in arrows:
        ends = {"patchA": boxes[a].get_bbox_patch(), "patchB": boxes[b].get_bbox_patch()}
        between = range(columns[a] + 1, columns[b])
        if any(rows[c] == rows[a] == rows[b] and columns[c] in between for c in rows):
            ends["connectionstyle"] = "arc3,rad=-0.4"  # around the boxes that stand in the way
        begin, end = (columns[a], rows[a]), (columns[b], rows[b])
        axes.annotate("", end, begin, arrowprops=ARROW | ends)
    return plot


def _columns(names: list[str], arrows: list[tuple[str, str]]) -> dict[str, int]:
    """How many boxes stand before each one, on the longest way to it."""
    columns = dict.fromkeys(names, 0)
    for _ in names:
        for a, b in arrows:
            columns[b] = max(columns[b], columns[a] + 1)
    if back := [a for a, b in arrows if columns[b] <= columns[a]]:
        raise ValueError(f"the paths must not come back to where they were, and {back[0]!r} does")
    return columns
