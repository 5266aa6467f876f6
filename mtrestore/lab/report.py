"""One page that says what finished runs found: paired differences, tables, pictures, curves, and what made them.

    found = load("outputs/skips")           # a folder of runs, or the bundle that was made of it
    bundle("outputs/skips", "skips.json")   # all that a page shows, in one file worth keeping
    write("skips.json", "skips.html")       # the page: opens anywhere, and the same bundle gives the same bytes

A run's pair is ranked by the first metric if its name is a picture of rows.json, alone or with the values of `by`: anna, anna-mild.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from .. import image, view
from ..io import claims, files
from ..io.text import one_line, shown
from ..plot import Plot
from . import record as run
from . import schema as records
from .statistics import UNCLEAR, Found, aim, cells, gather, interval, rows, verdict

RESULTS = run.ROOT / "experiments" / "results"
NAMES = {"psnr": "PSNR, dB", "ssim": "SSIM"}
SIDE, BYTES = 160, 350_000  # px of a picture's long side; of all pictures in a bundle
COLOURS = (
    "#444444",
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
)  # the baseline's, then those of Okabe and Ito


def load(source: str | Path) -> Found:
    """All that a report shows, from a folder of runs or from a bundle. Raises FileNotFoundError or ValueError."""
    source = Path(source)
    if source.is_dir():
        found = gather(source)
        figures = {m: _svg(forest(found, m)) for m in found["metrics"] if len(found["arms"]) > 1}
        figures |= (
            {"curves": _svg(curves(found))} if any(r["curves"] for r in found["runs"]) else {}
        )
        found = json.loads(
            _text(found | {"figures": figures, "pictures": _pictures(source, found)})
        )
        return records.consistent(records.check(found, records.BUNDLE, source), source)
    if not source.is_file():
        raise FileNotFoundError(
            f"{source} is missing: expected a bundle (.json) or a folder of runs; mtrestore sweep FILE makes such a folder"
        )
    try:
        return records.consistent(records.read(source, records.BUNDLE), source)
    except ValueError as e:
        raise ValueError(
            f"{source} is not a bundle: {one_line(e)}; make it again from the folder of its runs"
        ) from e


def bundle(
    source: str | Path, out: str | Path, title: str | None = None, overwrite: bool = False
) -> Path:
    """Gather a folder of runs into one JSON file; returns where it is. A file that is there stays without `overwrite`, the source always."""
    _may_write(source, out, "", overwrite)
    found = load(source)
    return image.write_bytes(
        out, _text(found | {"name": Path(out).stem, "title": title or found["title"]}).encode()
    )


def write(
    source: str | Path, out: str | Path, title: str | None = None, overwrite: bool = False
) -> Path:
    """Write the page of a folder of runs or of a bundle; returns where it is. Only such a page is replaced without `overwrite`."""
    _may_write(source, out, claims.PAGE, overwrite)
    found = load(source)
    return image.write_bytes(out, page(found | {"title": title or found["title"]}).encode())


def _may_write(source: str | Path, out: str | Path, mark: str, overwrite: bool) -> None:
    allowed = claims.Claims(overwrite)
    allowed.reads(source, "what the page is made of")
    allowed.check(out, mark=mark)


def forest(found: Found, metric: str) -> Plot:
    """Every paired difference with its interval; a point is filled where the interval leaves 0 out."""
    lines = [r for r in found["table"] if r["metric"] == metric and r["difference"]]
    plot = Plot(figsize=(8, 0.9 + 0.28 * len(lines)), layout="constrained")
    axes = plot.add_subplot()
    for i, r in enumerate(lines):
        colour, (middle, low, high) = _colour(found, r["arm"]), np.array(r["difference"][:3], float)
        axes.plot([low, high], [-i, -i], color=colour, linewidth=2.2)
        axes.plot(
            middle,
            -i,
            "o",
            color=colour,
            markerfacecolor="white" if verdict(found, r) == UNCLEAR else colour,
        )
        if i and r["part"] != lines[i - 1]["part"]:
            axes.axhline(0.5 - i, color="#ccc", linewidth=0.8)
    axes.axvline(0, color="#444", linewidth=1)
    axes.set_yticks(
        range(0, -len(lines), -1),
        [shown(f"{r['part']} · {r['arm']}")[:60] for r in lines],
        parse_math=False,
    )
    axes.set_xlabel(
        shown(f"{_label(metric)}: less {found['baseline']} ({aim(found, metric)})"),
        parse_math=False,
    )
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return plot


def curves(found: Found) -> Plot:
    """A panel for each curve (six at most), a line for each run in the colour of its arm."""
    names, legend = list(dict.fromkeys(name for r in found["runs"] for name in r["curves"]))[:6], {}
    tall, wide = -(-len(names) // 3), min(3, len(names))
    plot = Plot(figsize=(3.4 * wide + 1.5, 2.6 * tall), layout="constrained")
    for i, name in enumerate(names, 1):
        axes = plot.add_subplot(tall, wide, i)
        for arm, points in (
            (r["parameters"].get(found["arm"]), r["curves"].get(name)) for r in found["runs"]
        ):
            if points:
                legend[shown(str(arm))[:24]] = axes.plot(
                    *np.array(points, float).T, color=_colour(found, arm), linewidth=1
                )[0]
        axes.set_title(shown(name), fontsize=10, parse_math=False)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    names = [name for name in (shown(str(arm))[:24] for arm in found["arms"]) if name in legend]
    plot.legend([legend[name] for name in names], names, loc="outside right center", frameon=False)
    return plot


def sliders(found: Found, place: str = "") -> view.Comparison:
    """The kept pairs as before/after sliders, those of the arms side by side: of one place (best, worst), or all."""
    text = ""
    for (where, name), pairs in groupby(
        (p for p in found["pictures"] if place in ("", p["place"])),
        lambda p: (p["place"], p["name"]),
    ):
        text += (
            f'<h3>{_t(where)}: {_t(name)}</h3>\n<div style="display:flex;flex-wrap:wrap;gap:1em">\n'
        )
        for p in pairs:
            w, h, tiny = (
                p["width"],
                p["height"],
                " mtr-pixels" * (p["width"] < 108),
            )  # which is shown as the pixels it has
            both = "".join(
                f'<td><img alt="{when}" width="105" height="{round(105 * h / w)}" src="{_t(p[when])}"></td>'
                for when in ("before", "after")
            )
            told = (
                ""
                if p["value"] is None
                else f"<small>{_t(_label(found['metrics'][0]))} {p['value']:.4g}</small>"
            )
            text += (f'<div class="mtr-compare{tiny}" data-width="{w}" data-height="{h}" style="width:215px"><p>{_t(p["arm"])} {told}</p>'
                     f"<table><tr><th>before</th><th>after</th></tr><tr>{both}</tr></table></div>\n")  # fmt: skip
        text += "</div>\n"
    return view.Comparison(
        f"<style>{view.STYLE}</style>\n{text}<script>(() => {{{view.SCRIPT}}})();</script>\n",
        found["title"],
        960,
    )


def page(found: Found) -> str:
    """The whole page as HTML; every word that came from a run is escaped."""
    base, varied, metrics, body = found["baseline"], found["varied"], found["metrics"], ""
    done, failed = (
        [r for r in found["runs"] if (r["status"] == "done") is good] for good in (True, False)
    )
    last = [
        r for r in found["table"] if r["part"] == found["table"][-1]["part"] and r["difference"]
    ]
    for m in (m for m in metrics if last):
        told = "; ".join(
            f"{_t(r['arm'])} {verdict(found, r)} ({_digits([r['difference']], '+')(r['difference'])[0]})"
            for r in last
            if r["metric"] == m
        )
        body += f"<p><b>{_t(_label(m))}</b>, against {_t(base)}: {told}.</p>\n"
    for m in metrics:
        lines = [r for r in found["table"] if r["metric"] == m]
        mean, less = (
            _digits(r["mean"] for r in lines),
            _digits((r["difference"] for r in lines), "+"),
        )
        body += f"<h2>{_t(_label(m))}</h2>\n{_figure(found, m)}" + _grid(["", found["arm"], "mean", "95 %", f"less {base}", "95 %", "", "pictures × seeds"], [
            [r["part"], r["arm"], *mean(r["mean"]), *less(r["difference"]), verdict(found, r), "{3} × {4}".format(*(r["difference"] or r["mean"]))]
            for r in lines])  # fmt: skip
    if told := [verdict(found, r) for r in found["table"] if r["difference"]]:
        clear = len(told) - told.count(UNCLEAR)
        body += files.page("reading.html", n=len(told), clear=clear, chance=f"{len(told) / 20:.1f}")
    body += f"<h2>Pictures</h2>\n{sliders(found).html}" if found["pictures"] else ""
    body += f"<h2>Curves</h2>\n{_figure(found, 'curves')}" if "curves" in found["figures"] else ""
    settings = [[n, "varied", ", ".join(map(str, v))] for n, v in varied.items()] + [
        [n, "fixed", v] for n, v in found["fixed"].items()
    ]
    body += "<h2>Parameters</h2>\n" + _grid(["", "", "value"], settings)
    bad = _grid(["run", "status", "error"], [[r["run"], r["status"], r["error"]] for r in failed])
    body += (
        f"<h2>{len(failed)} of {len(found['runs'])} runs not finished</h2>\n{bad}" if failed else ""
    )
    means = [[interval(cells(rows({"runs": [r]}), m, found["by"])) for m in metrics] for r in done]
    words = [_digits(column) for column in zip(*means)]
    body += "<h2>Finished runs</h2>\n" + _grid(
        ["run", *varied, *map(_label, metrics), "seconds"],
        [
            [
                r["run"],
                *(r["parameters"].get(n) for n in varied),
                *(word(v)[0] for word, v in zip(words, line)),
                r["seconds"],
            ]
            for r, line in zip(done, means)
        ],
    )
    made = [
        (k, ", ".join(f"{a} {b}" for a, b in v.items()) if isinstance(v, dict) else v)
        for made in found["made"]
        for k, v in made.items()
    ]
    made += [("notebook", f"{r['notebook']}, sha256 {r['sha256']}") for r in done if r["notebook"]]
    body += "<h2>Made with</h2>\n" + _grid(["", ""], sorted(dict.fromkeys(made), key=str))
    words = {"title": _t(found["title"]), "question": _t(found["question"]), "body": body}
    style = files.asset("report.css")
    return files.page("report.html", mark=claims.PAGE, style=style, **words)


def _pictures(folder: Path, found: Found) -> list[Found]:
    """The best and the worst pairs in the mean over arms, of each arm's first run: four names at most, and as many as BYTES hold."""
    first, sign = found["metrics"][:1], -1 if set(found["metrics"][:1]) & set(found["lower"]) else 1
    plain = lambda *words: "".join(c for c in "".join(map(str, words)).lower() if c.isalnum())
    groups: dict[str, dict[Any, Found]] = {}
    for r in (r for r in found["runs"] if r["status"] == "done"):
        values: dict[str, list[float]] = {}
        more = [found["arm"]] * (found["arm"] in {*r["rows"]} - {*r["parameters"]})
        for (picture, _, *by), value in cells(
            rows({"runs": [r]}), (first or [""])[0], found["by"] + more
        ).items():
            stem = Path(str(picture)).stem
            for name in {
                plain(*words) for p in (picture, stem) for words in ((p,), (p, *by), (*by, p))
            }:
                values.setdefault(name, []).append(value)
        for file in sorted((folder / r["run"] / "pairs").glob("*.before.png")):
            name, arm = file.name.removesuffix(".before.png"), r["parameters"].get(found["arm"])
            groups.setdefault(name, {}).setdefault(
                arm,
                {
                    "name": name,
                    "arm": arm,
                    "value": float(np.mean(values.get(plain(name), math.nan))),
                    "file": file,
                },
            )
    good = {
        name: sign * np.mean([p["value"] for p in group.values()]) for name, group in groups.items()
    }
    ranked, kept, left = (
        sorted(good, key=lambda name: (math.isnan(good[name]), -good[name])),
        {},
        BYTES,
    )
    for name in list(dict.fromkeys(n for both in zip(ranked, reversed(ranked)) for n in both))[
        :4
    ]:  # best, worst, second best, ...
        place = (
            "example"
            if len(ranked) == 1 or math.isnan(good[name])
            else "best"
            if ranked.index(name) < len(ranked) / 2
            else "worst"
        )
        group = [
            {"place": place, **groups[name][arm]}
            for arm in dict.fromkeys([*found["arms"], None])
            if arm in groups[name]
        ]
        for pair in group:
            file = pair.pop("file")
            before, after = (
                image.shrink(image.read(file.with_name(f"{name}.{when}.png")), SIDE)
                for when in ("before", "after")
            )
            pair |= {
                "width": after.shape[1],
                "height": after.shape[0],
                "before": view.data_uri(before, 90, 0),
                "after": view.data_uri(after, 90, 0),
            }
        left -= sum(len(p["before"]) + len(p["after"]) for p in group)
        kept |= {name: group} if left >= 0 else {}
    return [pair for name in ranked for pair in kept.get(name, ())]


def _text(found: Found) -> str:
    """A bundle as JSON, a line for each part: numbers but parameters to six digits, paths as seen from the project's root."""

    def short(v: Any) -> Any:
        if isinstance(v, (dict, list, tuple)):
            return (
                {k: x if k == "parameters" else short(x) for k, x in v.items()}
                if isinstance(v, dict)
                else [short(x) for x in v]
            )
        return (float(f"{v:.6g}") if math.isfinite(v) else None) if isinstance(v, float) else v

    text = ",\n".join(
        f'"{k}": {json.dumps(short(v), ensure_ascii=False, allow_nan=False)}'
        for k, v in found.items()
    )
    for root, name in ((run.ROOT, ""), (run.ROOT.parent, "../")):
        text = text.replace(f"{root}/", name) if root.name else text
    return f"{{{text}}}\n"


def _t(value: Any) -> str:
    return html.escape("" if value is None else shown(str(value)))


def _label(metric: str) -> str:
    return NAMES.get(metric, metric.replace("_", " "))


def _colour(found: Found, arm: Any) -> str:
    return COLOURS[found["arms"].index(arm) % len(COLOURS) if arm in found["arms"] else 0]


def _digits(estimates: Iterable[Any], sign: str = "") -> Callable[[Any], list[str]]:
    """What writes such estimates as words (mean, interval), with two digits of the half width that they have in the middle."""
    halves = [(e[2] - e[1]) / 2 for e in estimates if e and e[1] is not None and e[2] > e[1]]
    digits = min(6, max(0, 1 - math.floor(math.log10(np.median(halves))))) if halves else 3

    def words(estimate: Any) -> list[str]:
        told = [
            "" if v is None or math.isnan(v) else f"{v:{sign}.{digits}f}".replace("-", "−")
            for v in (estimate or [None] * 3)[:3]
        ]
        return [told[0], f"{told[1]} to {told[2]}" if told[1] else ""]

    return words


def _figure(found: Found, name: str) -> str:
    return (
        f'<figure><img alt="{_t(_label(name))}" src="{_t(found["figures"][name])}"></figure>\n'
        if name in found["figures"]
        else ""
    )


def _grid(head: Iterable[Any], lines: Iterable[Any]) -> str:
    """A table in HTML; a first cell that repeats the one above is left out, and numbers stand to the right."""
    text, above = "", None
    for first, *rest in lines:
        kind = lambda w: (
            f' class="{w}"'
            if w in ("better", "worse")
            else ' class="n"'
            if re.fullmatch(r"([−+]?[\d.]+( to | × )?)+", str(w))
            else ""
        )
        text += f"<tr><th>{_t(first) if first != above else ''}</th>{''.join(f'<td{kind(w)}>{_t(w)}</td>' for w in rest)}</tr>\n"
        above = first
    return f'<div class="wide"><table><thead><tr>{"".join(f"<th>{_t(w)}</th>" for w in head)}</tr></thead><tbody>\n{text}</tbody></table></div>\n'


def _svg(plot: Plot) -> str:
    data = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mtrestore"}):
        plot.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(data.getvalue()).decode()}"
