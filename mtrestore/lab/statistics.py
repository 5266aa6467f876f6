"""What a folder of finished runs says in numbers: means and paired differences with 95 % intervals.

A sweep's YAML may hold `report: {title, question, arm, baseline, metrics, lower, by}`: `arm` is the
parameter (or the column of rows.json) whose values are compared with `baseline`, `by` what splits
the table (severity, ratio), `lower` the metrics that are better when lower. What is left out is
taken from the runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from . import record, schema

# in a metric's name: less is better
LOWER = ("landmark", "identity", "distance", "error", "loss", "second", "tilt")
UNCLEAR = "no clear difference"
MOST_LINES = 2000  # of a table
POINTS = 40  # that are kept of a curve
Results = dict[str, Any]  # what a bundle holds: schema.BUNDLE
Row = dict[str, Any]


class Estimate(NamedTuple):
    """A mean and its 95 % interval; low and high are NaN where nothing says how sure it is."""

    mean: float
    low: float
    high: float
    pictures: int
    seeds: int


def interval(cells: Mapping[tuple, float]) -> Estimate:
    """The mean of (picture, seed, ...) -> value, as sure as it is for others of the same kind.

    Pictures and seeds are crossed: a seed is one training, and its luck is shared by all pictures.
    So the variance of the mean has a part of each, from the mean squares of the two-way table
    (Searle, Casella & McCulloch, Variance Components, 1992, ch. 4), and Student's t with
    Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946) allows for seeds being few. A
    bootstrap cannot: of three seeds it never leaves their range, and none is exact for crossed data
    (McCullagh, Bernoulli 6, 2000; Owen, Annals of Applied Statistics 1, 2007). One seed: over
    pictures only. Pictures that not every seed has are left out; where that is all, each is
    averaged over its seeds.
    """
    with np.errstate(all="ignore"):  # of values near the ends of what a float holds
        grid = two_way(cells)
        if not grid.size:
            return Estimate(math.nan, math.nan, math.nan, 0, 0)
        (p, s), mean = grid.shape, float(grid.mean())
        rows, columns = grid.mean(1, keepdims=True), grid.mean(0, keepdims=True)
        of_pictures = s * np.var(rows, ddof=1) if p > 1 else 0.0
        of_seeds = p * np.var(columns, ddof=1) if s > 1 else 0.0
        if p > 1 and s > 1:
            rest = np.sum((grid - rows - columns + mean) ** 2) / ((p - 1) * (s - 1))
            of_seeds = max(of_seeds - rest, 0.0)
        total, freedom = of_pictures + of_seeds, 1.0
        if total:
            freedom = total**2 / (of_pictures**2 / max(p - 1, 1) + of_seeds**2 / max(s - 1, 1))
        half = math.nan
        if p * s > 1:
            half = float(stdtrit(freedom, 0.975)) * math.sqrt(total / (p * s))
        return Estimate(mean, mean - half, mean + half, p, s)


def two_way(cells: Mapping[tuple, float]) -> np.ndarray:
    """The table of pictures × seeds, or × 1 where no picture has all seeds."""
    values: dict[Any, dict[Any, list[float]]] = {}
    for (picture, seed, *_), value in cells.items():
        values.setdefault(picture, {}).setdefault(seed, []).append(value)
    seeds = dict.fromkeys(seed for each in values.values() for seed in each)
    whole = [each for each in values.values() if len(each) == len(seeds)]
    if whole:
        return np.array([[np.mean(each[seed]) for seed in seeds] for each in whole], float)
    means = [np.mean([np.mean(v) for v in each.values()]) for each in values.values()]
    return np.array([[mean] for mean in means], float)


def cells(rows: Iterable[Row], metric: str, by: Sequence[str] = ()) -> dict[tuple, float]:
    """(picture, seed, values of `by`) -> the metric's mean there, of finite numbers."""
    values: dict[tuple, list[float]] = {}
    for r in rows:
        value = r.get(metric)
        if isinstance(value, (int, float)) and math.isfinite(value):
            place = (r.get("picture", ""), r.get("seed"), *(hashable(r.get(k)) for k in by))
            values.setdefault(place, []).append(value)
    return {place: float(np.mean(each)) for place, each in values.items()}


def hashable(value: Any) -> Any:
    """A parameter as a part of a key: lists, as of widths, as text."""
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def paired(
    rows_a: Iterable[Row], rows_b: Iterable[Row], metric: str, by: Sequence[str] = ()
) -> Estimate:
    """The mean of a less b within picture, seed and values of `by`, where both are there."""
    a, b = cells(rows_a, metric, by), cells(rows_b, metric, by)
    return interval({place: value - b[place] for place, value in a.items() if place in b})


def rows(results: Results, **where: Any) -> list[Row]:
    """Rows of done runs, parameters beside them: `rows(results, join="add", severity="mild")`."""
    pool = []
    for r in results["runs"]:
        for values in zip(*r["rows"].values()):
            row = {**r["parameters"], **dict(zip(r["rows"], values))}
            if all(row.get(k) == v for k, v in where.items()):
                pool.append(row)
    return pool


def parts_of(pool: Iterable[Row], by: Sequence[str]) -> list[tuple]:
    """The values of `by` that occur, numbers in order."""
    parts = list(dict.fromkeys(tuple(r.get(k) for k in by) for r in pool))
    numeric = all(isinstance(v, (int, float)) for part in parts for v in part)
    return sorted(parts) if numeric else parts


def table(results: Results) -> list[Row]:
    """For each part, metric and arm an `Estimate`: mean, and difference from the baseline."""
    arm, base = results["arm"], results["baseline"]
    by = results["by"]
    pool, lines = rows(results), []
    parts = parts_of(pool, by)
    keys = [*by, *(name for name in results["varied"] if name not in ("seed", arm, *by))]
    for part in [*parts, ()] if len(parts) > 1 else parts:
        where = dict(zip(by, part))
        words = [v if isinstance(v, str) else f"{k} {v}" for k, v in where.items()]
        inside = [r for r in pool if all(r.get(k) == v for k, v in where.items())]
        group = {a: [r for r in inside if r.get(arm) == a] for a in results["arms"]}
        for metric in results["metrics"]:
            for a, own in group.items():
                line = {"part": ", ".join(words) or "all", "metric": metric, "arm": a}
                line["mean"] = interval(cells(own, metric, keys))
                line["difference"] = None if a == base else paired(own, group[base], metric, keys)
                lines.append(line)
    return lines


def verdict(results: Results, line: Row) -> str:
    """What a row says of its arm: better, worse (where 1 is best: more, less), or UNCLEAR."""
    if not line["difference"]:
        return "baseline"
    low, high = np.array(line["difference"][1:3], float)
    side = "more" if low > 0 else "less" if high < 0 else UNCLEAR
    goal = aim(results, line["metric"])
    if side == UNCLEAR or goal == "1 is best":
        return side
    return "better" if goal.startswith(side) else "worse"


def aim(results: Results, metric: str) -> str:
    """Which values of a metric are good ones."""
    if metric.startswith("sharpness"):
        return "1 is best"
    return "less is better" if metric in results["lower"] else "more is better"


def gather(folder: Path) -> Results:
    """All numbers of a folder of runs and the table; raises FileNotFoundError or ValueError."""
    runs, origins = read_runs(folder)
    sweep = schema.read_any(folder / "sweep.json", schema.SWEEP) or {}
    about = sweep.get("report") or {}
    done = [r for r in runs if r["status"] == "done"]
    schema.check_scalars(done, [about.get("arm"), *about.get("by", [])], folder)
    values = parameter_values(done)
    varied = {n: v for n, v in values.items() if len(v) > 1}
    fixed = {n: v[0] for n, v in values.items() if n not in varied}
    flat = {n: v for n, v in varied.items() if n != "seed" and all(map(schema.is_scalar, v))}
    arm = about.get("arm") or max(flat, key=lambda n: len(flat[n]), default="")
    name_curves(runs, arm)
    pool = rows({"runs": runs})
    arms = list(dict.fromkeys(r.get(arm) for r in pool))
    base = about.get("baseline", arms[0] if arms else None)
    own = ("picture", "seed", arm)
    columns = {c: v[0] for r in done for c, v in r["rows"].items() if c not in own}
    words = [c for c, v in columns.items() if isinstance(v, str)]
    by = about.get("by", list(dict.fromkeys([*(n for n in flat if n != arm), *words])))
    numbers = [c for c, v in columns.items() if isinstance(v, float) and c not in by]
    metrics = about.get("metrics") or numbers[:4]
    if done:
        check_words("baseline", [base], arms)
        check_words("metrics", metrics, list(columns))
        check_words("by", by, [*columns, *values])
    parts = len(parts_of(pool, by))
    if parts * len(arms) * len(metrics) > MOST_LINES:
        size = f"{parts} parts, {len(arms)} arms and {len(metrics)} metrics"
        hint = "name fewer in the report block: by, metrics"
        raise ValueError(f"{folder}: a table of {size} is too long; {hint}")
    order = (sweep.get("grid") or {}).get(arm) or arms
    arms = sorted(arms, key=lambda a: (a != base, order.index(a) if a in order else len(order)))
    lower = [m for m in metrics if any(word in m for word in LOWER)]
    results = {
        **{"name": folder.resolve().name, "title": about.get("title") or folder.resolve().name},
        **{"question": about.get("question", ""), "arm": arm, "baseline": base, "arms": arms},
        **{"by": by, "metrics": metrics, "lower": about.get("lower", lower)},
        **{"varied": varied, "fixed": fixed, "made": origins, "runs": runs},
        "planned": max(planned(sweep), len(runs)),
    }
    return results | {"table": table(results)}


def planned(sweep: Mapping[str, Any]) -> int:
    """How many runs a sweep's settings ask for; 0 where they do not say."""
    axes = [*(sweep.get("grid") or {}).values(), *filter(None, [sweep.get("seeds")])]
    return min(math.prod(map(len, axes)), 999_999) if axes else 0


def check_words(setting: str, words: Iterable[Any], choices: Sequence[Any]) -> None:
    """Raises ValueError for a word of the report block that no finished run has."""
    for word in words:
        if word not in choices:
            wish = f"must be one of {', '.join(map(str, choices))}, got {word}"
            raise ValueError(f"{setting} of the report {wish}; the finished runs have no other")


def parameter_values(runs: Sequence[Row]) -> dict[str, list[Any]]:
    """name -> its different values, of all parameters of these runs."""
    values: dict[str, dict[str, Any]] = {name: {} for r in runs for name in r["parameters"]}
    for name, each in values.items():
        for value in (r["parameters"].get(name) for r in runs):
            each.setdefault(json.dumps(value), value)
    return {name: list(each.values()) for name, each in values.items()}


def name_curves(runs: Iterable[Row], arm: str) -> None:
    """A curve that bears the name of its arm goes into one picture with those of the others."""
    for r in runs:
        own = str(r["parameters"].get(arm))
        r["curves"] = {"learning" if k == own else k: v for k, v in r["curves"].items()}


def read_runs(folder: Path) -> tuple[list[Row], list[Row]]:
    """(the runs, each with the index of what made it; all that made them)."""
    runs, origins = [], []
    for place in record.run_folders(folder):
        run, origin = read_rows(place)
        if origin and origin not in origins:
            origins.append(origin)
        runs.append({**run, "made": origins.index(origin) if origin else None})
    return runs, origins


def read_rows(folder: Path) -> tuple[Row, Row]:
    """(a run's numbers, a column of its rows a list; what made it)."""
    run = record.read_run(folder)
    try:
        lines = schema.read_any(folder / "rows.json", schema.ROWS)
        curves = schema.read_any(folder / "curves.json", schema.CURVES) or {}
    except (OSError, ValueError) as e:
        run = record.unreadable(folder, e)
        lines, curves = [], {}
    if lines is None:
        lines = [{"picture": "", **run["metrics"]}]
    if run["status"] != "done":
        lines = []
    names = ("run", "status", "error", "seconds", "threads", "notebook", "sha256")
    numbers = {k: run.get(k) for k in (*names, "metrics", "parameters")}
    columns = dict.fromkeys(c for r in lines for c in r)
    numbers["rows"] = {c: [r.get(c) for r in lines] for c in columns}
    curves = {name: thinned(points) for name, points in curves.items() if points}
    return {**numbers, "curves": curves}, run["made"]


def thinned(points: list[list[float]]) -> list[list[float]]:
    """A curve of at most POINTS points, each the mean of its neighbours."""
    parts = np.array_split(np.array(points, float), min(POINTS, len(points)))
    return [part.mean(0).tolist() for part in parts]
