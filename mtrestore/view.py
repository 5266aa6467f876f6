"""Seeing is the point: a before/after slider in one piece of HTML, and figures of pictures, steps, faces and losses.

`compare(before, after)` holds its pictures inside itself and asks nothing of the network. Its markup is a plain table of two
pictures, which is what stays where scripts and styles are stripped (an untrusted notebook, a mail); its script turns that table
into a slider. Figures are built without pyplot, so that a notebook shows each one once and no window is ever asked for.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .image import read, resize, shrink, write_bytes
from .io import claims
from .io.text import shown

if TYPE_CHECKING:
    from .plot import Plot

LOSSLESS_PIXELS = 600_000  # up to here a picture travels as PNG, above as JPEG (quality 92, full colour resolution)
COLOURS = ("#ff5a36", "#18a0fb", "#35c759", "#ffcc00", "#c86bfa", "#00c7be")

STYLE = """
.mtr-compare{max-width:100%;margin:.5em 0;font-family:system-ui,sans-serif;font-size:14px;line-height:1.4}
.mtr-compare p{margin:0 0 .4em;font-weight:600}
.mtr-compare table{width:100%;margin:0;border-collapse:collapse;table-layout:fixed;border:0}
.mtr-compare th,.mtr-compare td{padding:0 4px 4px 0;border:0;background:none;text-align:left;vertical-align:top;white-space:normal}
.mtr-compare td img{display:block;width:100%;height:auto;max-width:none;margin:0}
.mtr-compare small{opacity:.65;font-weight:400;white-space:nowrap}
.mtr-bar{display:flex;gap:1em;align-items:center;justify-content:space-between;min-height:2em;font-weight:600}
.mtr-bar span:last-child{text-align:right}
.mtr-bar button{font:inherit;font-weight:400;color:inherit;background:none;border:1px solid rgba(128,128,128,.6);border-radius:1em;
 padding:0 .8em;cursor:pointer}
.mtr-stage{position:relative;overflow:hidden;border-radius:4px;outline:1px solid rgba(128,128,128,.35)}
.mtr-canvas{position:relative;overflow:hidden;cursor:ew-resize;touch-action:pan-y;user-select:none;-webkit-user-select:none}
.mtr-canvas img{position:absolute;inset:0;display:block;width:100%;height:100%;max-width:none;margin:0}
.mtr-canvas img+img{clip-path:inset(0 0 0 var(--mtr-x))}
.mtr-pixels img{image-rendering:pixelated}
.mtr-canvas input{position:absolute;left:0;bottom:0;width:100%;margin:0;opacity:0;pointer-events:none}
.mtr-handle{position:absolute;top:0;bottom:0;left:var(--mtr-x);width:44px;margin-left:-22px;cursor:ew-resize;touch-action:none}
.mtr-handle::before{content:"";position:absolute;top:0;bottom:0;left:21px;width:2px;background:#fff;box-shadow:0 0 3px rgba(0,0,0,.8)}
.mtr-handle::after{content:"\\2194";position:sticky;top:calc(50% - 16px);display:block;width:32px;height:32px;margin:0 6px;
 border-radius:50%;background:#fff;color:#222;font:20px/32px system-ui,sans-serif;text-align:center;box-shadow:0 0 4px rgba(0,0,0,.6)}
.mtr-canvas input:focus-visible~.mtr-handle::after{outline:3px solid #18a0fb;outline-offset:1px}
.mtr-zoomed{overflow:auto}
.mtr-zoomed .mtr-canvas{cursor:grab;touch-action:auto}
"""

# Every fragment carries the same script and the script takes each box once, so any number of sliders, even of the same pair, live
# on one page without ids. Pointers are followed by hand because the thumb of a range input does not reach the edges; the input
# itself, invisible, brings keyboard and screen readers. JupyterLab's own shortcuts keep away from what bears data-lm-suppress-shortcuts.
SCRIPT = """
for (const box of document.querySelectorAll(".mtr-compare:not(.mtr-live)")) {
  box.classList.add("mtr-live");
  const add = (parent, tag, name, props = {}) =>
    parent.appendChild(Object.assign(document.createElement(tag), {className: name}, props));
  const table = box.querySelector("table"), [left, right] = box.querySelectorAll("th"), [before, after] = box.querySelectorAll("img");
  const words = [before.alt, after.alt], w = +box.dataset.width, h = +box.dataset.height;
  const bar = add(box, "div", "mtr-bar"), stage = add(box, "div", "mtr-stage"), canvas = add(stage, "div", "mtr-canvas");
  add(bar, "span", "").append(...left.childNodes);
  const button = add(bar, "button", "", {type: "button", title: "size of the picture"});
  add(bar, "span", "").append(...right.childNodes);
  canvas.append(before, after);
  before.draggable = after.draggable = false;
  const range = add(canvas, "input", "", {type: "range", min: 0, max: 100, step: 1});
  const handle = add(canvas, "div", "mtr-handle");
  range.setAttribute("aria-label", "compare " + words.join(" and "));
  for (const control of [range, button]) control.setAttribute("data-lm-suppress-shortcuts", "true");
  canvas.style.aspectRatio = w + " / " + h;
  table.replaceWith(bar, stage);

  let zoom = 0, drag = null;
  const set = (x) => {
    x = Math.min(100, Math.max(0, x));
    range.value = x;
    range.setAttribute("aria-valuetext", Math.round(x) + " % " + words[0] + ", the rest " + words[1]);
    canvas.style.setProperty("--mtr-x", x + "%");
  };
  const slide = (e) => { const r = canvas.getBoundingClientRect(); set(100 * (e.clientX - r.left) / r.width); };
  const pan = (e) => { stage.scrollLeft -= e.movementX; stage.scrollTop -= e.movementY; };
  range.addEventListener("input", () => set(+range.value));
  canvas.addEventListener("pointerdown", (e) => {
    const grip = !zoom || handle.contains(e.target);
    if (e.button || (!grip && e.pointerType !== "mouse")) return;
    e.preventDefault();
    canvas.setPointerCapture(e.pointerId);
    range.focus({preventScroll: true});
    drag = grip ? slide : pan;
    if (grip) slide(e);
  });
  canvas.addEventListener("pointermove", (e) => { if (drag) drag(e); });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { drag = null; });

  const levels = () => [0].concat([1, 2].filter((k) => k * w > 1.02 * stage.clientWidth));
  const label = () => {
    button.textContent = "zoom: " + (zoom ? 100 * zoom + " %" : "fit");
    button.hidden = levels().length < 2;
  };
  button.addEventListener("click", () => {
    const all = levels(), halfW = stage.clientWidth / 2, halfH = stage.clientHeight / 2;
    const cx = (stage.scrollLeft + halfW) / canvas.offsetWidth, cy = (stage.scrollTop + halfH) / canvas.offsetHeight;
    if (!zoom) stage.style.height = canvas.offsetHeight + "px";
    zoom = all[(all.indexOf(zoom) + 1) % all.length];
    if (!zoom) stage.style.height = "";
    stage.classList.toggle("mtr-zoomed", zoom > 0);
    canvas.style.width = zoom ? zoom * w + "px" : "";
    stage.scrollLeft = cx * canvas.offsetWidth - halfW;
    stage.scrollTop = cy * canvas.offsetHeight - halfH;
    label();
  });
  addEventListener("resize", label);
  requestAnimationFrame(label);
  set(50);
}
"""

PAGE = (
    f"<!doctype html>\n{claims.COMPARISON}"
    """
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<style>body{{max-width:{width}px;margin:1em auto;padding:0 1em}}</style></head>
<body>
{body}
</body></html>
"""
)


@dataclass(frozen=True)
class Comparison:
    """A before/after view: show it as the last line of a notebook cell, or `save` it as a page of its own."""

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
        return write_bytes(
            path, PAGE.format(title=title, width=self.width, body=self.html).encode(), replace
        )


@dataclass(frozen=True)
class Table:
    """Numbers by row and column, as a table in a notebook and as plain lines elsewhere: `Table({"concat": {"GFLOP": 9.1, "ms": 48}})`.

    rows: name -> column -> number or word; a place that a row lacks stays empty. Numbers with a fraction are shown to four digits.
    """

    rows: Mapping[str, Mapping[str, float | str]]
    corner: str = ""

    def cells(self) -> list[list[str]]:
        """The heading and each row as words; the first column holds the names."""
        columns = list(dict.fromkeys(column for row in self.rows.values() for column in row))
        lines = [
            [name, *(_words(row.get(column, "")) for column in columns)]
            for name, row in self.rows.items()
        ]
        return [[shown(word) for word in line] for line in ([self.corner, *columns], *lines)]

    def _repr_html_(self) -> str:
        head, *body = ([html.escape(word) for word in line] for line in self.cells())
        rows = "".join(
            f"<tr><th>{name}</th>{''.join(f'<td>{word}</td>' for word in words)}</tr>"
            for name, *words in body
        )
        return f"<table><thead><tr>{''.join(f'<th>{word}</th>' for word in head)}</tr></thead><tbody>{rows}</tbody></table>"

    def __repr__(self) -> str:
        lines = self.cells()
        wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                [
                    line[0].ljust(wide[0]),
                    *(w.rjust(n) for w, n in zip(line[1:], wide[1:], strict=True)),
                ]
            ).rstrip()
            for line in lines
        )


def compare(
    before,
    after,
    *,
    labels: Sequence[str] = ("before", "after"),
    title: str = "",
    width: int | None = None,
    max_side: int = 2048,
) -> Comparison:
    """A slider between two pictures of the same scene, in self-contained HTML.

    before, after: anything `read` takes; they may differ in size and are laid over each other at the size of `after`.
    width: shown width in CSS pixels (default: that of `after`, within 320..960 and at most 800 high). A picture whose long side
    exceeds `max_side` is made smaller, and its label says so; one of up to LOSSLESS_PIXELS is embedded without loss.
    """
    originals = [read(before), read(after)]
    pictures = [shrink(original, max_side) for original in originals]
    height, natural = pictures[1].shape[:2]
    width = int(
        width or max(120, min(max(natural, 320), 960, 800 * natural // height))
    )  # so that a portrait fits on the screen
    aside = max(
        1, min(natural, width // 2)
    )  # what img attributes ask for where there is neither script nor style
    heads, cells = "", ""
    for label, original, picture in zip(labels, originals, pictures, strict=True):
        name, size = (
            html.escape(shown(label)),
            _size(original)
            + (f", shown at {_size(picture)}" if picture.shape != original.shape else ""),
        )
        heads += f"<th>{name} <small>{size}</small></th>"
        cells += f'<td><img alt="{name}" width="{aside}" height="{max(1, round(aside * height / natural))}" src="{data_uri(picture)}"></td>'
    heading = f"<p>{html.escape(shown(title))}</p>\n" if title else ""
    sharp = (
        " mtr-pixels" if width >= 2 * natural else ""
    )  # a tiny crop is shown as the pixels it has
    return Comparison(
        f'<div class="mtr-compare{sharp}" data-width="{natural}" data-height="{height}" style="width:{width}px">\n<style>{STYLE}</style>\n'
        f"{heading}<table><tr>{heads}</tr><tr>{cells}</tr></table>\n<script>(() => {{{SCRIPT}}})();</script>\n</div>",
        title,
        width,
    )


def data_uri(photo: np.ndarray, quality: int = 92, lossless: int = LOSSLESS_PIXELS) -> str:
    """The picture as a data: URI, PNG up to so many pixels, JPEG (4:4:4) above."""
    pixels = np.rint(np.clip(photo, 0, 1) * 255).astype(np.uint8)[..., ::-1]
    if photo.shape[0] * photo.shape[1] <= lossless:
        kind, (_, data) = "png", cv2.imencode(".png", pixels)
    else:
        options = (
            cv2.IMWRITE_JPEG_QUALITY,
            quality,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        )
        kind, (_, data) = "jpeg", cv2.imencode(".jpg", pixels, options)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def show(
    pictures: Mapping[str, np.ndarray] | Sequence[np.ndarray],
    columns: int | None = None,
    size: float = 3.0,
) -> Plot:
    """A grid of pictures, each with its name and its size in pixels above it.

    pictures: name -> photo, or a plain list; an H×W array is drawn in grey over its own range (a guidance map, a mask).
    columns: default even rows of 4 at most. size: the width of one picture in inches.
    """
    from .plot import Plot

    named = (
        dict(pictures)
        if isinstance(pictures, Mapping)
        else {str(i): p for i, p in enumerate(pictures)}
    )
    if not named:
        raise ValueError(
            "show needs at least one picture, got none; pass a dict of name -> photo, or a list"
        )
    columns = columns or ceil(len(named) / ceil(len(named) / 4))
    tall = [size * min(picture.shape[0] / picture.shape[1], 3) + 0.4 for picture in named.values()]
    heights = [max(tall[i : i + columns]) for i in range(0, len(tall), columns)]
    plot = Plot(figsize=(columns * size, sum(heights)), layout="constrained")
    grid = plot.add_gridspec(len(heights), columns, height_ratios=heights)
    for i, (name, picture) in enumerate(named.items()):
        axes = plot.add_subplot(grid[i // columns, i % columns])
        grey = picture.ndim == 2
        # Nearest keeps the pixels of a small crop honest; a photo larger than its place is averaged, or it would alias.
        drawing = "nearest" if picture.shape[1] <= size * plot.dpi else "antialiased"
        axes.imshow(
            picture if grey else np.clip(picture, 0, 1),
            cmap="gray" if grey else None,
            interpolation=drawing,
        )
        axes.set_title(f"{shown(name)}  {_size(picture)}".strip(), fontsize=9, parse_math=False)
        axes.axis("off")
        axes.set_anchor("N")
    return plot


def grid(pictures: Iterable[np.ndarray], columns: int = 8, gap: int = 2) -> np.ndarray:
    """One photo of many of one size, in rows of `columns` with `gap` white pixels between: small faces to look over together."""
    pictures = list(pictures)
    if not pictures:
        raise ValueError(
            "grid needs at least one picture, got none; pass a list of photos of one size"
        )
    h, w = pictures[0].shape[:2]
    columns = min(columns, len(pictures))
    sheet = np.ones(
        (ceil(len(pictures) / columns) * (h + gap) - gap, columns * (w + gap) - gap, 3), np.float32
    )
    for i, picture in enumerate(pictures):
        y, x = i // columns * (h + gap), i % columns * (w + gap)
        sheet[y : y + h, x : x + w] = np.clip(picture, 0, 1)
    return sheet


def steps(result, columns: int | None = None, size: float = 3.0) -> Plot:
    """Every intermediate picture of a restoration in the order it was made; a step that holds several is numbered.

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
    """The photo with each face's box, landmarks and score, and each crop as the tilted square it is (its upper side is thicker).

    faces: `Face`s; crops: `Crop`s, in the same order so that a face and its crop share a colour.
    """
    plot = show({"": photo}, size=size)
    axes = plot.axes[0]
    for i, face in enumerate(faces):
        colour, (x0, y0, x1, y1) = COLOURS[i % len(COLOURS)], face.box
        axes.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=colour, linewidth=1.5)
        axes.plot(
            *face.landmarks.T, ".", color=colour, markersize=6 if len(face.landmarks) <= 5 else 1
        )
        axes.annotate(
            f"{i + 1}: {face.score:.2f} {face.status}",
            (x0, y0),
            (0, 3),
            textcoords="offset points",
            color="white",
            fontsize=8,
            parse_math=False,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.5},
        )
    for i, crop in enumerate(crops):
        low, high = (
            -0.5,
            crop.size - 0.5,
        )  # the crop's edges lie half a pixel outside its pixel centres
        corners = (
            np.array(
                [(low, low, 1), (high, low, 1), (high, high, 1), (low, high, 1), (low, low, 1)]
            )
            @ crop.matrix.T
        )
        axes.plot(*corners.T, "--", color=COLOURS[i % len(COLOURS)], linewidth=1)
        axes.plot(*corners[:2].T, color=COLOURS[i % len(COLOURS)], linewidth=3)
    return plot


def losses(records: Iterable, size: float = 3.0) -> Plot:
    """One panel for each loss over the steps: every value thin, the running mean over a twentieth of the run thick; rows of 4 at most.

    records: what `fit` yields, objects with `.step` and `.losses` (name -> number); a loss may be missing from some of them.
    """
    from .plot import Plot

    curves: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        for name, value in record.losses.items():
            curves.setdefault(name, []).append((record.step, float(value)))
    if not curves:
        raise ValueError(
            "losses needs at least one record with a loss, got none; pass the list of records that fit yielded"
        )
    rows = ceil(len(curves) / 4)
    columns = ceil(len(curves) / rows)
    plot = Plot(figsize=(1.4 * size * columns, size * rows), layout="constrained")
    for i, (name, points) in enumerate(curves.items(), 1):
        axes = plot.add_subplot(rows, columns, i)
        step, value = np.array(points).T
        span = max(1, len(value) // 20)
        mean = np.convolve(value, np.full(span, 1 / span), "valid")
        middle = np.convolve(step, np.full(span, 1 / span), "valid")
        axes.plot(step, value, color=COLOURS[1], alpha=0.35, linewidth=0.8)
        axes.plot(middle, mean, color=COLOURS[1], linewidth=1.8)
        axes.set(title=name, xlabel="step")
        axes.grid(alpha=0.3)
    return plot


def contact_sheet(
    pairs: Iterable[tuple[str, np.ndarray, np.ndarray]], width: int = 1600, columns: int = 3
) -> np.ndarray:
    """One photo of many before/after pairs, side by side with their names below, to look over a whole set at once.

    pairs: (name, before, after); the two are fitted into cells of the same size. width: that of the sheet in pixels.
    """
    import matplotlib  # which brings the font

    pairs = list(pairs)
    if not pairs:
        raise ValueError(
            "contact_sheet needs at least one pair, got none; pass (name, before, after) triples"
        )
    columns = min(columns, len(pairs))
    side, gap, line = width // (2 * columns), 4, 20
    tall = float(np.median([after.shape[0] / after.shape[1] for _, _, after in pairs]))
    cell = max(line, round(side * min(tall, 1.5)))
    sheet = Image.new("RGB", (width, ceil(len(pairs) / columns) * (cell + line)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), 12)
    for i, (name, *both) in enumerate(pairs):
        name = shown(name)
        x, y = (i % columns) * 2 * side, (i // columns) * (cell + line)
        for k, picture in enumerate(both):
            h, w = picture.shape[:2]
            fit = min((side - gap) / w, (cell - gap) / h)
            h, w = max(1, round(h * fit)), max(1, round(w * fit))
            tile = Image.fromarray(np.rint(resize(picture, (h, w)) * 255).astype(np.uint8))
            sheet.paste(tile, (x + k * side + (side - w) // 2, y + (cell - h) // 2))
        while font.getlength(name) > 2 * side - 2 * gap:
            name = name[:-2].rstrip("…") + "…"
        draw.text((x + gap, y + cell + 1), name, fill="black", font=font)
    return np.asarray(sheet, np.float32) / 255


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}"


def _words(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
