"""One page that says what finished runs found: paired differences, tables, pictures, curves.

    results = load("outputs/skips")         # a folder of runs, or the bundle that was made of it
    bundle("outputs/skips", "skips.json")   # all that a page shows, in one file worth keeping
    write("skips.json", "skips.html")       # the page; the same bundle gives the same bytes

A run's pair is ranked by the first metric if its name is a picture of rows.json, alone or with the
values of `by`: anna, anna-mild.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from .. import image, view
from ..io import claims, files
from ..io.text import one_line, shown
from ..plot import Plot, drawn
from . import schema
from .record import ROOT
from .statistics import UNCLEAR, Results, Row, aim, cells, gather, interval, rows, verdict

File = str | Path  # or a folder
RESULTS = ROOT / "experiments" / "results"
SIDE, BYTES = 160, 350_000  # px of a picture's long side; of all pictures in a bundle
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
COLOURS = ("#444444", *OKABE_ITO)  # the baseline's first
NUMBER = re.compile(r"[−+]?[\d.]+( (to|×) [−+]?[\d.]+)*")  # one way to match: time is linear


def load(source: File) -> Results:
    """All that a report shows, from runs or a bundle; raises FileNotFoundError or ValueError."""
    source = Path(source)
    if source.is_dir():
        results = gather(source)
        figures = {}
        if len(results["arms"]) > 1:
            figures = {m: _svg(forest(results, m)) for m in results["metrics"]}
        if any(r["curves"] for r in results["runs"]):
            figures["curves"] = _svg(curves(results))
        results |= {"figures": figures, "pictures": _pictures(source, results)}
        results = schema.check(json.loads(_text(results)), schema.BUNDLE, source)
        return schema.consistent(results, source)
    if not source.is_file():
        what = "expected a bundle (.json) or a folder of runs"
        raise FileNotFoundError(
            f"{source} is missing: {what}; mtrestore sweep FILE makes such a folder"
        )
    try:
        return schema.consistent(schema.read(source, schema.BUNDLE), source)
    except ValueError as e:
        hint = "make it again from the folder of its runs"
        raise ValueError(f"{source} is not a bundle: {one_line(e)}; {hint}") from e


def bundle(source: File, out: File, title: str | None = None, overwrite: bool = False) -> Path:
    """Gather runs into one JSON file; returns where it is. The source is never replaced."""
    _may_write(source, out, "", overwrite)
    results = load(source)
    about = {"name": Path(out).stem, "title": title or results["title"]}
    return files.write_bytes(out, _text(results | about).encode())


def write(source: File, out: File, title: str | None = None, overwrite: bool = False) -> Path:
    """Write the page; returns where it is. Only a page of ours is replaced without `overwrite`."""
    _may_write(source, out, claims.PAGE, overwrite)
    results = load(source)
    return files.write_bytes(out, page(results | {"title": title or results["title"]}).encode())


def _may_write(source: File, out: File, mark: str, overwrite: bool) -> None:
    allowed = claims.Claims(overwrite)
    allowed.reads(source, "what the page is made of")
    allowed.check(out, mark=mark)


# ---- figures


def forest(results: Results, metric: str) -> Plot:
    """Every paired difference with its interval; a point is filled where that leaves 0 out."""
    lines = [r for r in results["table"] if r["metric"] == metric and r["difference"]]
    plot = Plot(figsize=(8, 0.9 + 0.28 * len(lines)), layout="constrained")
    axes = plot.add_subplot()
    for i, r in enumerate(lines):
        colour = _colour(results, r["arm"])
        middle, low, high = np.array(r["difference"][:3], float)
        face = "white" if verdict(results, r) == UNCLEAR else colour
        axes.plot([low, high], [-i, -i], color=colour, linewidth=2.2)
        axes.plot(middle, -i, "o", color=colour, markerfacecolor=face)
        if i and r["part"] != lines[i - 1]["part"]:
            axes.axhline(0.5 - i, color="#ccc", linewidth=0.8)
    axes.axvline(0, color="#444", linewidth=1)
    words = [shown(f"{r['part']} · {_arm(results, r['arm'])}")[:60] for r in lines]
    axes.set_yticks(range(0, -len(lines), -1), words, parse_math=False)
    base = _arm(results, results["baseline"])
    goal = f"{view.label(metric)}: less {base} ({aim(results, metric)})"
    axes.set_xlabel(shown(goal), parse_math=False)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return plot


def curves(results: Results) -> Plot:
    """A panel for each curve (six at most), a line for each run in the colour of its arm."""
    names = list(dict.fromkeys(name for r in results["runs"] for name in r["curves"]))[:6]
    tall, wide = math.ceil(len(names) / 3), min(3, len(names))
    plot = Plot(figsize=(3.4 * wide + 1.5, 2.6 * tall), layout="constrained")
    legend = {}
    for i, name in enumerate(names, 1):
        axes = plot.add_subplot(tall, wide, i)
        for r in results["runs"]:
            arm = r["parameters"].get(results["arm"])
            if points := r["curves"].get(name):
                style = {"color": _colour(results, arm), "linewidth": 1}
                legend[arm] = axes.plot(*np.array(points, float).T, **style)[0]
        axes.set_title(shown(name), fontsize=10, parse_math=False)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    arms = [arm for arm in results["arms"] if arm in legend]
    if len(arms) > 1:
        words = [shown(_arm(results, arm))[:24] for arm in arms]
        handles = [legend[arm] for arm in arms]
        plot.legend(handles, words, loc="outside right center", frameon=False)
    return plot


def _arm(results: Results, arm: Any) -> str:
    """An arm in words; that of runs which lack the parameter too."""
    if arm is None:
        return f"no {results['arm']}" if results["arm"] else ""
    return str(arm)


def _colour(results: Results, arm: Any) -> str:
    arms = results["arms"]
    return COLOURS[arms.index(arm) % len(COLOURS) if arm in arms else 0]


def _svg(plot: Plot) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn(plot, 'svg')).decode()}"


# ---- pictures


def sliders(results: Results, place: str = "") -> view.Comparison:
    """The pairs as before/after sliders, the arms side by side; place: best, worst, or all."""
    text = ""
    pairs = (p for p in results["pictures"] if place in ("", p["place"]))
    for (where, name), group in groupby(pairs, lambda p: (p["place"], p["name"])):
        body = "".join(_slider(results, pair) for pair in group)
        style = "display:flex;flex-wrap:wrap;gap:1em"
        text += f'<h3>{_t(where)}: {_t(name)}</h3>\n<div style="{style}">\n{body}</div>\n'
    script = f"<script>(() => {{{view.SCRIPT}}})();</script>"
    text = f"<style>{view.STYLE}</style>\n{text}{script}\n"
    return view.Comparison(text, results["title"], 960)


def _slider(results: Results, pair: Row) -> str:
    words = {k: _t(pair[k]) for k in ("width", "height", "before", "after")}
    words["arm"] = _t(_arm(results, pair["arm"]))
    words["tall"] = round(105 * pair["height"] / pair["width"])
    words["pixels"] = " mtr-pixels" if pair["width"] < 108 else ""  # shown as the pixels it has
    words["value"] = ""
    if pair["value"] is not None:
        label = _t(view.label(results["metrics"][0]))
        words["value"] = f"<small>{label} {pair['value']:.4g}</small>"
    return files.page("pair.html", **words)


def _pictures(folder: Path, results: Results) -> list[Row]:
    """The best and the worst pairs in the mean over arms: four names at most, and BYTES."""
    groups = _pairs(folder, results)
    sign = -1 if set(results["metrics"][:1]) & set(results["lower"]) else 1
    good = {n: sign * np.mean([p["value"] for p in g.values()]) for n, g in groups.items()}
    ranked = sorted(good, key=lambda name: (math.isnan(good[name]), -good[name]))
    pictures, left = {}, BYTES
    ends = dict.fromkeys(name for both in zip(ranked, reversed(ranked)) for name in both)
    for name in list(ends)[:4]:  # best, worst, second best, ...
        place = "best" if ranked.index(name) < len(ranked) / 2 else "worst"
        if len(ranked) == 1 or math.isnan(good[name]):
            place = "example"
        arms = [arm for arm in dict.fromkeys([*results["arms"], None]) if arm in groups[name]]
        group = [{"place": place, **_shrunk(groups[name][arm])} for arm in arms]
        left -= sum(len(p["before"]) + len(p["after"]) for p in group)
        if left >= 0:
            pictures[name] = group
    return [pair for name in ranked for pair in pictures.get(name, ())]


def _pairs(folder: Path, results: Results) -> dict[str, dict[Any, Row]]:
    """name -> arm -> the pair of each arm's first run, with the value that it has there."""
    groups: dict[str, dict[Any, Row]] = {}
    for r in results["runs"]:
        if r["status"] != "done":
            continue
        values, arm = _values(results, r), r["parameters"].get(results["arm"])
        for file in sorted((folder / r["run"] / "pairs").glob("*.before.png")):
            name = file.name.removesuffix(".before.png")
            value = float(np.mean(values.get(_plain(name), math.nan)))
            pair = {"name": name, "arm": arm, "value": value, "file": file}
            groups.setdefault(name, {}).setdefault(arm, pair)
    return groups


def _values(results: Results, run: Row) -> dict[str, list[float]]:
    """What pairs of a run may be called -> the first metric there."""
    values: dict[str, list[float]] = {}
    metric, by = (results["metrics"] or [""])[0], list(results["by"])
    if results["arm"] in run["rows"] and results["arm"] not in run["parameters"]:
        by.append(results["arm"])
    for (picture, _, *part), value in cells(rows({"runs": [run]}), metric, by).items():
        names = {str(picture), Path(str(picture)).stem}
        for name in {_plain(*w) for n in names for w in ((n,), (n, *part), (*part, n))}:
            values.setdefault(name, []).append(value)
    return values


def _plain(*words: Any) -> str:
    return "".join(c for c in "".join(map(str, words)).lower() if c.isalnum())


def _shrunk(pair: Row) -> Row:
    """The pair with its pictures, small, in place of its file."""
    file = pair["file"]
    after = file.with_name(f"{pair['name']}.after.png")
    before, after = (image.shrink(image.read(path), SIDE) for path in (file, after))
    pair = {k: v for k, v in pair.items() if k != "file"}
    pair |= {"width": after.shape[1], "height": after.shape[0]}
    return pair | {"before": view.data_uri(before, 90, 0), "after": view.data_uri(after, 90, 0)}


# ---- the bundle and the page


def _text(results: Results) -> str:
    """A bundle as JSON, a line for each part: six digits but in parameters, no absolute path."""

    def short(v: Any) -> Any:
        if isinstance(v, dict):
            return {k: x if k == "parameters" else short(x) for k, x in v.items()}
        if isinstance(v, (list, tuple)):
            return [short(x) for x in v]
        if isinstance(v, float):
            return float(f"{v:.6g}") if math.isfinite(v) else None
        return v

    options: dict[str, Any] = {"ensure_ascii": False, "allow_nan": False}
    lines = [f'"{k}": {json.dumps(short(v), **options)}' for k, v in results.items()]
    text = ",\n".join(lines)
    for root, name in ((ROOT, ""), (ROOT.parent, "../")):
        text = text.replace(f"{root}/", name) if root.name else text
    return f"{{{text}}}\n"


def page(results: Results) -> str:
    """The whole page as HTML; every word that came from a run is escaped."""
    done = [r for r in results["runs"] if r["status"] == "done"]
    body = _summary(results) + _metrics(results)
    if results["pictures"]:
        body += f"<h2>Pictures</h2>\n{sliders(results).html}"
    if "curves" in results["figures"]:
        body += f"<h2>Curves</h2>\n{_figure(results, 'curves')}"
    body += _parameters(results) + _failed(results) + _finished(results, done)
    body += _made_with(results, done)
    words = {name: _t(results[name]) for name in ("title", "question")}
    words |= {"mark": claims.PAGE, "style": files.asset("report.css")}
    return files.page("report.html", body=body, **words)


def _summary(results: Results) -> str:
    """A sentence for each metric: what each arm is worth in all."""
    text, table = "", results["table"]
    last = [r for r in table if r["part"] == table[-1]["part"] and r["difference"]]
    for metric in results["metrics"] if last else ():
        arms = []
        for r in last:
            if r["metric"] == metric:
                number = _digits([r["difference"]], "+")(r["difference"])[0]
                arms.append(f"{_t(_arm(results, r['arm']))} {verdict(results, r)} ({number})")
        base = _t(_arm(results, results["baseline"]))
        head = f"<b>{_t(view.label(metric))}</b>, against {base}"
        text += f"<p>{head}: {'; '.join(arms)}.</p>\n"
    return text


def _metrics(results: Results) -> str:
    """A table for each metric, and how to read it."""
    text, less = "", f"less {_arm(results, results['baseline'])}"
    head = ["", results["arm"], "mean", "95 %", less, "95 %", "", "pictures × seeds"]
    for metric in results["metrics"]:
        lines = [r for r in results["table"] if r["metric"] == metric]
        mean = _digits(r["mean"] for r in lines)
        change = _digits((r["difference"] for r in lines), "+")
        grid = []
        for r in lines:
            count = "{3} × {4}".format(*(r["difference"] or r["mean"]))
            numbers = [*mean(r["mean"]), *change(r["difference"])]
            says = verdict(results, r) if len(results["arms"]) > 1 else ""
            grid.append([r["part"], _arm(results, r["arm"]), *numbers, says, count])
        text += f"<h2>{_t(view.label(metric))}</h2>\n{_figure(results, metric)}{_grid(head, grid)}"
    if verdicts := [verdict(results, r) for r in results["table"] if r["difference"]]:
        n, clear = len(verdicts), len(verdicts) - verdicts.count(UNCLEAR)
        text += files.page("reading.html", n=n, clear=clear, chance=f"{n / 20:.1f}")
    return text


def _parameters(results: Results) -> str:
    lines = []
    for name, values in results["varied"].items():
        words = ["none" if v is None else str(v) for v in values]
        lines.append([name, "varied", ", ".join(words)])
    lines += [[name, "fixed", value] for name, value in results["fixed"].items()]
    return _section("Parameters", ["", "", "value"], lines)


def _failed(results: Results) -> str:
    runs = results["runs"]
    lines = [[r["run"], r["status"], r["error"]] for r in runs if r["status"] != "done"]
    count = results.get("planned", len(runs))
    title = f"{len(lines) + count - len(runs)} of {count} runs not finished"
    if count > len(runs):
        lines.append([f"{count - len(runs)} more", "not begun", ""])
    section = _section(title, ["run", "status", "error"], lines)
    return f"{section}<p>The sweep's command, given again, runs these alone.</p>\n" if lines else ""


def _finished(results: Results, done: list[Row]) -> str:
    varied, metrics = results["varied"], results["metrics"]
    pools = [rows({"runs": [r]}) for r in done]
    means = [[interval(cells(pool, m, results["by"])) for m in metrics] for pool in pools]
    columns = [_digits(column) for column in zip(*means)]
    lines = []
    for r, line in zip(done, means):
        numbers = [words(estimate)[0] for words, estimate in zip(columns, line)]
        seconds = "" if r["seconds"] is None else f"{r['seconds']:.1f}"
        lines.append([r["run"], *map(r["parameters"].get, varied), *numbers, seconds])
    head = ["run", *varied, *map(view.label, metrics), "seconds"]
    return _section("Finished runs", head, lines)


def _made_with(results: Results, done: list[Row]) -> str:
    """What can be read at a glance, and folded away the sums that tell it apart from others."""
    lines = [("notebook", r["notebook"]) for r in done if r["notebook"]]
    sums = [(r["notebook"], r["sha256"]) for r in done if r["notebook"] and r["sha256"]]
    for name, value in (item for origin in results["made"] for item in origin.items()):
        if isinstance(value, dict):
            value = ", ".join(f"{a} {b}" for a, b in value.items() if b is not None)
        if value not in (None, ""):
            (sums if name in ("git", "weights") else lines).append((name, value))
    tables = [_grid(["", ""], sorted(dict.fromkeys(each), key=str)) for each in (lines, sums)]
    if sums:
        tables[1] = f"<details><summary>Commit and sha256</summary>\n{tables[1]}</details>\n"
    return "<h2>Made with</h2>\n" + "".join(tables) if any(tables) else ""


def _section(title: str, head: list[str], lines: list[Any]) -> str:
    return f"<h2>{title}</h2>\n{_grid(head, lines)}" if lines else ""


def _t(value: Any) -> str:
    return html.escape("" if value is None else shown(str(value)))


def _digits(estimates: Iterable[Any], sign: str = "") -> Callable[[Any], list[str]]:
    """What writes such estimates as words: [mean, interval].

    They have two digits of the half width that is in the middle; without one, three decimals, and
    as many more as a small mean needs.
    """
    each = [e for e in estimates if e and e[0] is not None]
    halves = [(e[2] - e[1]) / 2 for e in each if e[1] is not None]
    halves = [half for half in halves if half > 1e-9 * max(1, abs(each[0][0]))]  # no rounding's
    sizes = [abs(e[0]) for e in each if e[0]]
    digits = 3
    if halves:
        digits = min(6, max(0, 1 - math.floor(math.log10(np.median(halves)))))
    elif sizes and np.isfinite(sizes).all():
        digits = min(9, max(3, 2 - math.floor(math.log10(np.median(sizes)))))

    def word(value: float | None) -> str:
        if value is None or math.isnan(value):
            return ""
        return f"{value:{sign}.{digits}f}".replace("-", "−")

    def words(estimate: Any) -> list[str]:
        mean, low, high = map(word, (estimate or [None] * 3)[:3])
        return [mean, f"{low} to {high}" if low else ""]

    return words


def _figure(results: Results, name: str) -> str:
    if name not in results["figures"]:
        return ""
    source = _t(results["figures"][name])
    return f'<figure><img alt="{_t(view.label(name))}" src="{source}"></figure>\n'


def _grid(head: Iterable[Any], lines: Iterable[Any]) -> str:
    """A table in HTML without empty columns; a first cell that repeats the one above goes too."""
    columns = [c for c in zip(head, *lines) if any(v not in (None, "") for v in c[1:])]
    if not columns:
        return ""
    head, *lines = zip(*columns)
    text, above = "", None
    for first, *rest in lines:
        name = _t(first) if first != above else ""
        text += f"<tr><th>{name}</th>{''.join(map(_cell, rest))}</tr>\n"
        above = first
    titles = "".join(f"<th>{_t(word)}</th>" for word in head)
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>\n{text}</tbody></table>"
    return f'<div class="wide">{table}</div>\n'


def _cell(value: Any) -> str:
    kind = ""
    if value in ("better", "worse"):
        kind = f' class="{value}"'
    elif NUMBER.fullmatch(str(value)):
        kind = ' class="n"'
    return f"<td{kind}>{_t(value)}</td>"
