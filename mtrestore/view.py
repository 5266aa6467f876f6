"""Seeing is the point: a before/after slider in one piece of HTML, and figures of pictures and
faces.

`compare(before, after)` holds its pictures inside itself and asks nothing of the network. Its
markup is a plain table of two pictures, which is what stays where scripts and styles are stripped
(an untrusted notebook, a mail); its script turns that table into a slider. Figures are built
without pyplot, so that a notebook shows each one once and no window is ever asked for.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from .image import as_samples, read, shrink, write_bytes
from .io import claims
from .io.files import asset, page
from .io.text import shown

if TYPE_CHECKING:
    from .plot import Plot

LOSSLESS_PIXELS = 600_000  # a larger picture travels as JPEG (quality 92, full colour resolution)
NAMES = {"psnr": "PSNR, dB", "gain": "gain, dB", "ssim": "SSIM", "tilt": "tilt, °"}
NAMES |= {"psnr_in": "PSNR before, dB", "psnr_out": "PSNR after, dB"}
COLOURS = ("#ff5a36", "#18a0fb", "#35c759", "#ffcc00", "#c86bfa", "#00c7be")

# Every fragment carries the same script and the script takes each box once, so any number of
# sliders, even of one pair, live on one page without ids. Pointers are followed by hand because
# the thumb of a range input does not reach the edges; the input itself, invisible, brings keyboard
# and screen readers. JupyterLab's own shortcuts keep away from data-lm-suppress-shortcuts.
STYLE = "\n" + asset("compare.css")
SCRIPT = "\n" + asset("compare.js")


@dataclass(frozen=True)
class Comparison:
    """A before/after view: show it as the last line of a notebook cell, or `save` it as a page."""

    html: str = field(repr=False)
    title: str
    width: int

    def _repr_html_(self) -> str:
        return self.html

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write a complete page that opens offline; returns where it is.

        Raises ImageError E_WRITE where a file is there, unless it is such a page, or `overwrite`.
        """
        replace = claims.Claims(overwrite).check(path, mark=claims.COMPARISON)
        title = html.escape(shown(self.title) or "before and after")
        mark = claims.COMPARISON
        text = page("page.html", mark=mark, title=title, width=self.width, body=self.html)
        return write_bytes(path, text.encode(), replace)


def label(metric: str) -> str:
    """A metric's name for a reader, with its unit."""
    return NAMES.get(metric, metric.replace("_", " "))


@dataclass(frozen=True)
class Table:
    """Numbers by row and column, as a table in a notebook and as plain lines elsewhere.

    rows: name -> column -> number or word, as in `Table({"concat": {"GFLOP": 9.1, "ms": 48}})`; a
    place that a row lacks stays empty. Numbers with a fraction have as many places as the largest
    of their column has with four digits. fold: the words to click on before a page shows it.
    """

    rows: Mapping[str, Mapping[str, float | str]]
    corner: str = ""
    fold: str = ""

    def cells(self) -> list[list[str]]:
        """The heading and each row as words; the first column holds the names."""
        columns = self._columns()
        words = [_column([row.get(c, "") for row in self.rows.values()]) for c in columns]
        lines = [[self.corner, *map(label, columns)], *zip(self.rows, *words, strict=True)]
        return [[shown(word) for word in line] for line in lines]

    def _columns(self) -> list[str]:
        return list(dict.fromkeys(column for row in self.rows.values() for column in row))

    def _right(self) -> list[bool]:
        """Of each column, names first, whether it holds numbers, which end at the right."""
        words = {c for row in self.rows.values() for c, v in row.items() if isinstance(v, str)}
        return [False, *(column not in words for column in self._columns())]

    def _repr_html_(self) -> str:
        lines = self.cells()
        sides = ["right" if right else "left" for right in self._right()]
        body = ""
        for number, line in enumerate(lines):
            body += "<tr>"
            for place, (word, side) in enumerate(zip(line, sides, strict=True)):
                tag = "td" if number and place else "th"
                body += f'<{tag} style="text-align:{side}">{html.escape(word)}</{tag}>'
            body += "</tr>"
        table = f"<table><tbody>{body}</tbody></table>"
        fold = f"<details><summary>{html.escape(self.fold)}</summary>{table}</details>"
        return fold if self.fold else table

    def __repr__(self) -> str:
        lines = self.cells()
        sides = [str.rjust if right else str.ljust for right in self._right()]
        wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = []
        for line in lines:
            words = [side(word, n) for word, side, n in zip(line, sides, wide, strict=True)]
            text.append("  ".join(words).rstrip())
        return "\n".join(text)


def numbers(values: Mapping[str, float]) -> Table:
    """What a run writes into metrics.json, each to four digits, folded away on a page."""
    rows = {name: {"value": f"{value:.4g}"} for name, value in values.items()}
    return Table(rows, "number", fold=f"{len(rows)} numbers, as metrics.json has them")


def compare(
    before: Any,
    after: Any,
    *,
    labels: Sequence[str] = ("before", "after"),
    title: str = "",
    width: int | None = None,
    max_side: int = 2048,
) -> Comparison:
    """A slider between two pictures of the same scene, in self-contained HTML.

    before, after: anything `read` takes; they may differ in size and are laid over each other at
    the size of `after`. width: in CSS pixels (default: that of `after`, within 320..960 and at most
    800 high, so that a portrait fits on the screen). A picture whose long side exceeds `max_side`
    is made smaller, and its label says so; one of up to LOSSLESS_PIXELS is embedded without loss.
    """
    originals = [read(before), read(after)]
    pictures = [shrink(original, max_side) for original in originals]
    height, natural = pictures[1].shape[:2]
    width = int(width or max(120, min(max(natural, 320), 960, 800 * natural // height)))
    aside = max(1, min(natural, width // 2))  # for where there is neither script nor style
    shape = f'width="{aside}" height="{max(1, round(aside * height / natural))}"'
    heads, cells = "", ""
    for label, original, picture in zip(labels, originals, pictures, strict=True):
        name, size = html.escape(shown(label)), _size(original)
        if picture.shape != original.shape:
            size += f", shown at {_size(picture)}"
        heads += f"<th>{name} <small>{size}</small></th>"
        cells += f'<td><img alt="{name}" {shape} src="{data_uri(picture)}"></td>'
    text = page(
        "compare.html",
        sharp=" mtr-pixels" if width >= 2 * natural else "",  # a tiny crop shows the pixels it has
        natural=natural,
        height=height,
        width=width,
        style=STYLE,
        heading=f"<p>{html.escape(shown(title))}</p>\n" if title else "",
        heads=heads,
        cells=cells,
        script=SCRIPT,
    )
    return Comparison(text.strip(), title, width)


def data_uri(photo: np.ndarray, quality: int = 92, lossless: int = LOSSLESS_PIXELS) -> str:
    """The picture as a data: URI, encoded as `encoded` does."""
    kind, data = encoded(photo, quality, lossless)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def encoded(
    photo: np.ndarray, quality: int = 92, lossless: int = LOSSLESS_PIXELS
) -> tuple[str, bytes]:
    """For a screen: png up to so many pixels, jpeg (4:4:4) above; which of them, and the bytes."""
    kind, options = "png", []
    if photo.shape[0] * photo.shape[1] > lossless:
        full = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
        kind, options = "jpeg", [cv2.IMWRITE_JPEG_QUALITY, quality, *full]
    data = cv2.imencode(f".{kind}", as_samples(photo, np.uint8)[..., ::-1], options)[1]
    return kind, data.tobytes()


def show(
    pictures: Mapping[str, np.ndarray] | Sequence[np.ndarray],
    columns: int | None = None,
    size: float = 3.0,
) -> Plot:
    """A grid of pictures, each with its name and its size in pixels above it.

    pictures: name -> photo, or a plain list; an H×W array is drawn in grey over its own range (a
    guidance map, a mask). columns: default even rows of 4 at most. size: the width of one in
    inches.
    """
    from .plot import Plot

    if not isinstance(pictures, Mapping):
        pictures = {str(i): picture for i, picture in enumerate(pictures)}
    if not pictures:
        raise ValueError(
            "show needs at least one picture, got none; pass a dict of name -> photo, or a list"
        )
    columns = columns or ceil(len(pictures) / ceil(len(pictures) / 4))
    tall = [size * min(p.shape[0] / p.shape[1], 3) + 0.4 for p in pictures.values()]
    heights = [max(tall[i : i + columns]) for i in range(0, len(tall), columns)]
    plot = Plot(figsize=(columns * size, sum(heights)), layout="constrained")
    places = plot.add_gridspec(len(heights), columns, height_ratios=heights)
    for i, (name, picture) in enumerate(pictures.items()):
        axes = plot.add_subplot(places[i // columns, i % columns])
        # Nearest keeps the pixels of a small crop; a photo larger than its place would alias.
        drawing = "nearest" if picture.shape[1] <= size * plot.dpi else "antialiased"
        if picture.ndim == 2:
            axes.imshow(picture, cmap="gray", interpolation=drawing)
        else:
            axes.imshow(np.clip(picture, 0, 1), interpolation=drawing)
        axes.set_title(f"{shown(name)}  {_size(picture)}".strip(), fontsize=9, parse_math=False)
        axes.axis("off")
        axes.set_anchor("N")
    return plot


def grid(pictures: Iterable[np.ndarray], columns: int = 8, gap: int = 2) -> np.ndarray:
    """One photo of many of one size, in rows of `columns` with `gap` white pixels between."""
    pictures = list(pictures)
    if not pictures:
        raise ValueError(
            "grid needs at least one picture, got none; pass a list of photos of one size"
        )
    h, w = pictures[0].shape[:2]
    columns = min(columns, len(pictures))
    rows = ceil(len(pictures) / columns)
    sheet = np.ones((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), np.float32)
    for i, picture in enumerate(pictures):
        y, x = i // columns * (h + gap), i % columns * (w + gap)
        sheet[y : y + h, x : x + w] = np.clip(picture, 0, 1)
    return sheet


def steps(result: Any, columns: int | None = None, size: float = 3.0) -> Plot:
    """Every intermediate picture of a restoration in the order it was made; of several, numbered.

    result: a `Restored`, or anything with `.steps` (name -> picture or list of pictures).
    """
    pictures = {}
    for name, step in result.steps.items():
        if isinstance(step, (list, tuple)):
            pictures.update({f"{name} {i}": picture for i, picture in enumerate(step, 1)})
        else:
            pictures[name] = step
    return show(pictures, columns, size)


def faces(photo: np.ndarray, faces: Iterable, crops: Iterable = (), size: float = 6.0) -> Plot:
    """The photo with each face's box, landmarks and score, and each crop as the square it is.

    faces: `Face`s; crops: `Crop`s, in the same order so that a face and its crop share a colour. A
    crop's upper side is thicker.
    """
    plot = show({"": photo}, size=size)
    axes = plot.axes[0]
    for i, face in enumerate(faces):
        colour, (x0, y0, x1, y1) = COLOURS[i % len(COLOURS)], face.box
        axes.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=colour, linewidth=1.5)
        draw_landmarks(axes, face.landmarks, colour)
        words = f"{i + 1}: {face.score:.2f} {face.status}"
        box = {"facecolor": colour, "edgecolor": "none", "pad": 1.5}
        place = {"textcoords": "offset points", "bbox": box}
        font = {"color": "white", "fontsize": 8, "parse_math": False}
        axes.annotate(words, (x0, y0), (0, 3), **place, **font)
    for i, crop in enumerate(crops):
        low, high = -0.5, crop.size - 0.5  # its edges lie half a pixel outside its pixel centres
        square = [(low, low, 1), (high, low, 1), (high, high, 1), (low, high, 1), (low, low, 1)]
        colour, corners = COLOURS[i % len(COLOURS)], np.array(square) @ crop.matrix.T
        axes.plot(*corners.T, "--", color=colour, linewidth=1)
        axes.plot(*corners[:2].T, color=colour, linewidth=3)
    return plot


def draw_landmarks(axes: Any, points: np.ndarray, colour: str) -> None:
    """5 or 468 landmarks (N×2, px of the picture that matplotlib's axes show) as dots."""
    axes.plot(*points.T, ".", color=colour, markersize=6 if len(points) <= 5 else 1)


def losses(records: Iterable, size: float = 3.0) -> Plot:
    """One panel for each loss over the steps, in rows of 4 at most.

    Every value is thin, the running mean over a twentieth of the run thick. records: what `fit`
    yields, with `.step` and `.losses` (name -> number); a loss may be missing from some of them.
    """
    from .plot import Plot

    curves: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        for name, value in record.losses.items():
            curves.setdefault(name, []).append((record.step, float(value)))
    if not curves:
        raise ValueError(
            "losses needs at least one record with a loss, got none; "
            "pass the list of records that fit yielded"
        )
    rows = ceil(len(curves) / 4)
    columns = ceil(len(curves) / rows)
    plot = Plot(figsize=(1.4 * size * columns, size * rows), layout="constrained")
    for i, (name, points) in enumerate(curves.items(), 1):
        axes = plot.add_subplot(rows, columns, i)
        step, value = np.array(points).T
        window = np.full(max(1, len(value) // 20), 1 / max(1, len(value) // 20))
        step_mean, mean = (np.convolve(x, window, "valid") for x in (step, value))
        axes.plot(step, value, color=COLOURS[1], alpha=0.35, linewidth=0.8)
        axes.plot(step_mean, mean, color=COLOURS[1], linewidth=1.8)
        axes.set(title=name, xlabel="step")
        axes.grid(alpha=0.3)
    return plot


def curves(
    lines: Mapping[str, Iterable],
    axes: Any = None,
    *,
    level: Mapping[str, float] | None = None,
    average: int = 1,
    style: str = "-",
    size: tuple[float, float] = (6, 3),
    **labels: Any,
) -> Plot:
    """A line for each name in one panel.

    lines: name -> (x, y). level: name -> a height, dashed in grey. average: how many values a
    running mean takes together. axes: draw there, else a figure of `size` inches. labels: what
    `axes.set` takes, as xlabel and yscale.
    """
    figure, axes = _panel(axes, size)
    for i, (name, line) in enumerate(lines.items()):
        window = np.full(average, 1 / average)
        x, y = (np.asarray(values, float) for values in line)
        y = np.convolve(y, window, "valid")
        axes.plot(
            x[len(x) - len(y) :], y, style, color=COLOURS[i % len(COLOURS)], label=shown(name)
        )
    for name, height in (level or {}).items():
        axes.axhline(height, color="grey", linestyle="--", linewidth=1, label=shown(name))
    return _labelled(figure, axes, labels)


def bars(
    groups: Mapping[str, Mapping[str, float]],
    axes: Any = None,
    *,
    stacked: bool = False,
    size: tuple[float, float] = (6, 3),
    **labels: Any,
) -> Plot:
    """A colour for each name, side by side or stacked at each place.

    groups: name -> place -> height; all have the places of the first. axes, size, labels: as in
    `curves`.
    """
    figure, axes = _panel(axes, size)
    places = list(next(iter(groups.values())))
    middle, width = np.arange(len(places)), 0.8 if stacked else 0.8 / len(groups)
    bottom = np.zeros(len(places))
    for i, (name, heights) in enumerate(groups.items()):
        values = np.array([heights[place] for place in places], float)
        x = middle if stacked else middle + width * (i - (len(groups) - 1) / 2)
        colour = COLOURS[i % len(COLOURS)]
        axes.bar(x, values, width, bottom=bottom, color=colour, label=shown(name))
        bottom = bottom + values if stacked else bottom
    axes.set_xticks(middle, [shown(place) for place in places])
    axes.margins(y=0.2)  # the legend stands above
    return _labelled(figure, axes, labels)


LANES = {"faces": ("detect", "faces"), "both": ("read", "paste", "sharpen")}
LANES |= {"whole photo": ("shrink", "restore", "upsample")}


def lanes(result: Any, size: tuple[float, float] = (9, 3.2)) -> Plot:
    """When each step of a restoration began and ended: above the faces, below the whole photo.

    result: a `Restored`, or anything with `.spans` (step -> seconds) and `.timings`.
    """
    figure, axes = _panel(None, size)
    for lane, steps in enumerate(LANES.values()):
        for step in steps:
            began, ended = result.spans[step]
            colour, took = COLOURS[list(result.spans).index(step) % len(COLOURS)], ended - began
            label = f"{step}, {took:.2f} s"
            axes.barh(lane, took, left=began, color=colour, edgecolor="white", label=label)
    axes.set_yticks(range(len(LANES)), list(LANES))
    axes.invert_yaxis()
    total = result.timings["total"]
    alone = sum(result.timings.values()) - total
    axes.set(xlabel="seconds", title=f"{total:.2f} s; one after the other {alone:.2f} s")
    axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.3))
    return figure


def _panel(axes: Any, size: tuple[float, float]) -> tuple[Any, Any]:
    from .plot import Plot

    if axes is not None:
        return axes.figure, axes
    figure = Plot(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def _labelled(figure: Any, axes: Any, labels: Mapping[str, Any]) -> Any:
    axes.set(**labels)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8)
    return figure


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}"


def _column(values: Sequence[float | str]) -> list[str]:
    """A column's values as words, its fractions with the same number of places.

    Where those would leave a small one no digit, each has three digits of its own.
    """
    fractions = [abs(v) for v in values if isinstance(v, (float, np.floating)) and np.isfinite(v)]
    most = max(fractions, default=0.0)
    places = 3 - int(np.clip(np.floor(np.log10(most)), -1, 3)) if most else 0
    lost = any(0 < v < 0.5 * 10.0**-places for v in fractions)
    return [v if isinstance(v, str) else _words(v, places, lost) for v in values]


def _words(value: float, places: int, lost: bool) -> str:
    if isinstance(value, (int, np.integer)) or not np.isfinite(value):
        return f"{value:,}"
    return f"{value:.3g}" if lost else f"{value:,.{places}f}"
