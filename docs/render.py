"""Make docs/notebooks/NAME.html: each notebook run in a fresh kernel, with all that it shows.

    make docs                    # the pages that are missing or stale
    make docs ARGS=--all         # all of them
    make docs ARGS="12 40"       # those whose names begin so
    make docs ARGS=--check       # say which are stale, and run nothing

A page holds its pictures, formulas and style, and asks nothing of the network. Its head says the
sha256 of the cells that it was made of, and of what those read beside them: the shipped weights,
and the results of the experiment that they report.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import nbformat
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from matplotlib.patches import PathPatch
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

from mtrestore import weights
from mtrestore.io import files
from mtrestore.lab import execute

HERE = Path(__file__).resolve().parent
NOTEBOOKS = HERE.parent / "notebooks"
RESULTS = HERE.parent / "experiments" / "results"
PAGES = HERE / "notebooks"
MOST_BYTES = 15 << 20  # of all pages
SIDE, QUALITY = 1200, 80  # px and WebP quality of a picture in a page
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
LIVE = "A live notebook has buttons and sliders here, which need its kernel."
BAR = re.compile(r"\d+%\||\d+\w+ \[|\d\w+/s|^\s*$")  # a line of tqdm, in words or as a widget
PICTURE = re.compile(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)")
FORMULA = re.compile(r"(```.*?```|`[^`\n]*`)|\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.S)
STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem;
  color: #1b1b1b; background: #fff; }
nav, footer { font-size: .85rem; color: #555; }
nav a { display: inline-block; padding: .15rem .4rem; }
nav [aria-current] { font-weight: bold; color: #1b1b1b; }
a { color: #0050a0; }
h1, h2, h3 { line-height: 1.25; }
.anchor-link { display: none; }
img { max-width: 100%; height: auto; }
pre { margin: 0; padding: .6rem .8rem; overflow: auto; max-height: 24rem; font-size: .82rem;
  line-height: 1.4; white-space: pre-wrap; overflow-wrap: anywhere; }
.highlight pre { background: #f5f6f8; border-left: 3px solid #b8c4d6; white-space: pre; }
code { font-size: .92em; }
.code_cell { margin: .5rem 0; }
.highlight { margin: .5rem 0; }
table { border-collapse: collapse; font-size: .85rem; margin: .6rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: left; }
td { font-variant-numeric: tabular-nums; }
.output_area { overflow-x: auto; margin: .4rem 0 1.2rem; }
.live { color: #555; font-style: italic; }
details { border: 1px solid #ddd; padding: .4rem .8rem; margin: .6rem 0; }
.formula { display: block; margin: .8rem auto; overflow-x: auto; }
"""


def sources(notebook: Path) -> dict[str, str]:
    """Name -> sha256 of the notebook's cells and of what their outputs hang on beside them."""
    cells = [(c.cell_type, c.source) for c in nbformat.read(notebook, 4).cells]
    shas = {"cells": sha256(json.dumps(cells).encode())}
    nets = {name: weights.check(name)[0]["sha256"] for name in sorted(weights.shipped())}
    shas["weights"] = sha256(json.dumps(nets).encode())
    if "_report_" in notebook.stem:
        results = RESULTS / f"{notebook.stem.split('_')[-1]}.json"
        shas["results"] = sha256(results.read_bytes())
    return shas


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def recorded(page: Path) -> dict[str, str]:
    """What a page says of its sources; empty where there is no page."""
    text = page.read_text("utf-8")[:4000] if page.is_file() else ""
    return dict(re.findall(r'<meta name="sha256-(\w+)" content="([0-9a-f]{64})">', text))


def stale(notebook: Path) -> bool:
    return recorded(PAGES / f"{notebook.stem}.html") != sources(notebook)


def run(notebook: Path) -> Any:
    """The notebook with its outputs, from a fresh kernel; raises RuntimeError where it fails."""
    defaults, digest = execute.inspect(notebook)
    with tempfile.TemporaryDirectory(prefix="mtrestore-") as folder:
        task = execute.task_of(Path(folder) / "run", notebook, digest, {}, threads=1)
        status = execute.execute(task)
        if status["status"] != "done":
            raise RuntimeError(f"{notebook.name}: {status['error']}")
        text = (Path(folder) / "run" / "run.ipynb").read_text("utf-8")
        for own in (str(Path(folder) / "run"), os.path.realpath(folder)):
            text = text.replace(own, str(defaults["out"]))  # where a reader's would be
        return nbformat.reads(text, 4)


def webp(picture: bytes) -> tuple[str, int, int]:
    """(data URI, width, height) of a PNG or JPEG, smaller where it is larger than SIDE."""
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    scale = SIDE / max(pixels.shape)
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    lossy = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1]
    exact = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 101])[1]  # no loss
    content = exact if len(exact) < 1.2 * len(lossy) else lossy  # a chart of few colours
    uri = f"data:image/webp;base64,{base64.b64encode(content.data).decode()}"
    return uri, pixels.shape[1], pixels.shape[0]


def shown(output: Any, heading: str) -> Any:
    """An output as a page has it, or None for one that says nothing there."""
    if output.output_type == "stream":
        bars = all(BAR.search(line) for line in re.split(r"[\r\n]", output.text))
        return None if output.name == "stderr" and bars else output
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data:
        if BAR.search(data.get("text/plain", "a widget")):
            return None
        text = f'<p class="live">{LIVE}</p>'
    elif "image/png" in data:
        uri, width, height = webp(base64.b64decode(data["image/png"]))
        alt = html.escape(f"Figure: {heading}")
        text = f'<img alt="{alt}" width="{width}" height="{height}" src="{uri}">'
    elif "text/html" in data:
        text = PICTURE.sub(lambda m: webp(base64.b64decode(m[1]))[0], data["text/html"])
    else:
        return output
    return nbformat.v4.new_output("display_data", {"text/html": text})


def formula(match: re.Match) -> str:
    """A formula as a picture of its letters' outlines, which says its TeX to who cannot see it."""
    code, display, inline = match.groups()
    if code:
        return code
    tex, size = " ".join(inline.split()) if inline else "", 13.5  # px
    if display:
        tex, size = " ".join(display.split()).replace(r"\frac", r"\dfrac"), 15
    _, _, depth, *_ = MathTextParser("path").parse(f"${tex}$", 72, FontProperties(size=size))
    path = TextPath((0, 0), f"${tex}$", size, usetex=False)
    box, data = path.get_extents(), io.BytesIO()
    figure = Figure(figsize=((box.x1 + 1) / 72, (box.y1 + depth + 2) / 72))
    patch = PathPatch(path, color="#1b1b1b", linewidth=0)
    patch.set_transform(Affine2D().translate(0.5, depth + 1))
    figure.add_artist(patch)
    with matplotlib.rc_context({"svg.hashsalt": "mtrestore", "figure.dpi": 72}):
        figure.savefig(data, format="svg", transparent=True, metadata={"Date": None})
    uri = f"data:image/svg+xml;base64,{base64.b64encode(data.getvalue()).decode()}"
    place = 'class="formula"' if display else f'style="vertical-align:{-depth - 1:.1f}px"'
    return f'<img alt="{html.escape(tex)}" {place} src="{uri}">'


def prepared(notebook: Any) -> Any:
    """The notebook with pictures, formulas and links as a page has them."""
    heading = ""
    notebook.metadata.pop("widgets", None)  # their state, megabytes that need a kernel
    own = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    notebook.cells = own  # papermill's cell names a folder of the machine that rendered it
    for cell in own:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.M) or [heading])[-1]
            text = FORMULA.sub(formula, cell.source)
            text = re.sub(r"\]\(([\w.]+)\.ipynb\)", r"](\1.html)", text)
            cell.source = text.replace("](../", "](../../")  # a page lies one folder deeper
        else:
            outputs = [shown(output, heading) for output in cell.outputs]
            cell.outputs = [output for output in outputs if output]
    return notebook


def page(name: str, notebook: Any, shas: dict[str, str]) -> str:
    """The whole page of an executed notebook."""
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True)
    exporter.exclude_output_prompt = True
    body, _ = exporter.from_notebook_node(prepared(notebook))
    names = [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    links = ""
    for other in names:
        here = ' aria-current="page"' if other == name else ""
        links += f'<a href="{other}.html" title="{other}"{here}>{other[:2]}</a>\n'
    title = re.search(r"<h1[^>]*>(.+?)<a class", body, re.S)
    metas = "".join(f'<meta name="sha256-{k}" content="{v}">\n' for k, v in shas.items())
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
{metas}<title>{title[1] if title else name}</title>
<style>{STYLE}{HtmlFormatter(style="default").get_style_defs(".highlight")}</style>
</head><body>
<nav aria-label="notebooks">{links}</nav>
<main>
{body}
</main>
<footer><p>Made of <a href="../../notebooks/{name}.ipynb">notebooks/{name}.ipynb</a> by
<code>make docs</code>, in a fresh kernel with the default parameters.</p></footer>
</body></html>
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make docs", description="Render the notebooks.")
    parser.add_argument("names", nargs="*", help="beginnings of names; default: what is stale")
    parser.add_argument("--all", action="store_true", help="render every notebook again")
    parser.add_argument("--check", action="store_true", help="say what is stale, and run nothing")
    args = parser.parse_args(argv)
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    chosen = [n for n in notebooks if args.all or n.name.startswith(tuple(args.names or "-"))]
    if not args.all and not args.names:
        chosen = [n for n in notebooks if stale(n)]
    if args.check:
        print("\n".join(f"stale: {n.stem}" for n in chosen) or "every page is up to date")
        return 1 if chosen else 0
    for notebook in chosen:
        shas = sources(notebook)  # before it runs: who changes it meanwhile gets a stale page
        try:
            text = page(notebook.stem, run(notebook), shas)
        except RuntimeError as e:
            print(f"make docs: {e}; its page stays as it was", file=sys.stderr)
            return 1
        files.write_bytes(PAGES / f"{notebook.stem}.html", text.encode())
        print(f"{notebook.stem}: {len(text) / 1e6:.2f} MB", flush=True)
    for orphan in sorted({p.stem for p in PAGES.glob("*.html")} - {n.stem for n in notebooks}):
        (PAGES / f"{orphan}.html").unlink()
        print(f"{orphan}: its notebook is gone, and so is its page")
    total = sum(p.stat().st_size for p in PAGES.glob("*.html"))
    print(f"{len(chosen)} rendered; all pages {total / 1e6:.1f} MB of {MOST_BYTES / 1e6:.1f}")
    return 0 if total <= MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
