"""What a folder of finished runs says in numbers: means and paired differences with 95 % intervals.

A sweep's YAML may hold `report: {title, question, arm, baseline, metrics, lower, by}`: `arm` is the parameter (or the column of rows.json) whose
values are compared with `baseline`, `by` what splits the table (severity, ratio), `lower` the metrics that are better when lower.
What is left out is taken from the runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from ..io.text import shown
from . import record as run
from . import schema as records

LOWER = (
    "landmark",
    "identity",
    "distance",
    "error",
    "loss",
    "second",
    "tilt",
)  # in a metric's name: less is better
UNCLEAR = "no clear difference"
MOST_LINES = 2000  # of a table
POINTS = 40  # that are kept of a curve
Found = dict[str, Any]


class Estimate(NamedTuple):
    """A mean and its 95 % interval, from so many pictures and seeds; low and high are NaN where nothing says how sure it is."""

    mean: float
    low: float
    high: float
    pictures: int
    seeds: int


def interval(cells: Mapping[tuple, float]) -> Estimate:
    """The mean of (picture, seed, ...) -> value, as sure as it is for other pictures and other seeds of the same kind.

    Pictures and seeds are crossed: a seed is one training, and its luck is shared by all pictures. So the variance of the mean has a part
    of each, from the mean squares of the two-way table (Searle, Casella & McCulloch, Variance Components, 1992, ch. 4), and Student's t with
    Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946) allows for seeds being few. A bootstrap cannot: of three seeds it never
    leaves their range, and none is exact for crossed data (McCullagh, Bernoulli 6, 2000; Owen, Annals of Applied Statistics 1, 2007).
    One seed: over pictures only. Pictures that not every seed has are left out; where that is all, each is averaged over its seeds.
    """
    found: dict[Any, dict[Any, list[float]]] = {}
    with np.errstate(all="ignore"):  # of values near the ends of what a float holds
        return _interval(cells, found)


def _interval(cells: Mapping[tuple, float], found: dict[Any, dict[Any, list[float]]]) -> Estimate:
    for (picture, seed, *_), value in cells.items():
        found.setdefault(picture, {}).setdefault(seed, []).append(value)
    seeds = list(dict.fromkeys(seed for each in found.values() for seed in each))
    whole = [
        [np.mean(each[seed]) for seed in seeds]
        for each in found.values()
        if len(each) == len(seeds)
    ]
    grid = np.array(
        whole or [[np.mean([np.mean(v) for v in each.values()])] for each in found.values()], float
    )
    if not grid.size:
        return Estimate(math.nan, math.nan, math.nan, 0, 0)
    (p, s), mean = grid.shape, float(grid.mean())
    rows, columns = grid.mean(1, keepdims=True), grid.mean(0, keepdims=True)
    of_pictures = s * np.var(rows, ddof=1) if p > 1 else 0.0
    of_seeds = p * np.var(columns, ddof=1) if s > 1 else 0.0
    if p > 1 and s > 1:
        of_seeds = max(
            of_seeds - np.sum((grid - rows - columns + mean) ** 2) / ((p - 1) * (s - 1)), 0.0
        )
    total = of_pictures + of_seeds
    freedom = (
        total**2 / (of_pictures**2 / max(p - 1, 1) + of_seeds**2 / max(s - 1, 1)) if total else 1.0
    )
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(total / (p * s)) if p * s > 1 else math.nan
    return Estimate(mean, mean - half, mean + half, p, s)


def cells(rows: Iterable[Found], metric: str, by: Sequence[str] = ()) -> dict[tuple, float]:
    """(picture, seed, values of `by`) -> the metric's mean there; what is not a finite number is left out."""
    found: dict[tuple, list[float]] = {}
    for r in rows:
        if isinstance(value := r.get(metric), (int, float)) and math.isfinite(value):
            found.setdefault(
                (r.get("picture", ""), r.get("seed"), *(key(r.get(k)) for k in by)), []
            ).append(value)
    return {key: float(np.mean(values)) for key, values in found.items()}


def key(value: Any) -> Any:
    """A parameter as a part of a key: lists, as of widths, as text."""
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def paired(
    rows_a: Iterable[Found], rows_b: Iterable[Found], metric: str, by: Sequence[str] = ()
) -> Estimate:
    """The mean of a less b within the same picture, seed and values of `by`, with its interval; what only one of them has is left out."""
    a, b = cells(rows_a, metric, by), cells(rows_b, metric, by)
    return interval({key: value - b[key] for key, value in a.items() if key in b})


def rows(found: Found, **where: Any) -> list[Found]:
    """The rows of all done runs, each with its run's parameters beside it, that have these values: `rows(found, join="add", severity="mild")`."""
    each = (
        {**r["parameters"], **dict(zip(r["rows"], values))}
        for r in found["runs"]
        for values in zip(*r["rows"].values())
    )
    return [row for row in each if all(row.get(k) == v for k, v in where.items())]


def table(found: Found) -> list[Found]:
    """For each part (values of `by`, then all), metric and arm: its mean and its difference from the baseline, each an `Estimate`."""
    arm, by, base, pool = found["arm"], found["by"], found["baseline"], rows(found)
    parts = list(dict.fromkeys(tuple(r.get(k) for k in by) for r in pool))
    parts = (
        sorted(parts) if all(isinstance(v, (int, float)) for part in parts for v in part) else parts
    )
    keys, lines = (
        list(dict.fromkeys([*by, *(n for n in found["varied"] if n not in ("seed", arm))])),
        [],
    )
    for part in [*parts, *([()] if len(parts) > 1 else [])]:
        name = ", ".join(v if isinstance(v, str) else f"{k} {v}" for k, v in zip(by, part)) or "all"
        group = {
            a: [r for r in pool if r.get(arm) == a and all(r.get(k) == v for k, v in zip(by, part))]
            for a in found["arms"]
        }
        lines += [{"part": name, "metric": m, "arm": a, "mean": interval(cells(own, m, keys)),
                   "difference": None if a == base else paired(own, group[base], m, keys)} for m in found["metrics"] for a, own in group.items()]  # fmt: skip
    return lines


def verdict(found: Found, line: Found) -> str:
    """What a row of the table says of its arm: better, worse (where 1 is best: more, less), or UNCLEAR where the interval holds 0."""
    if not line["difference"]:
        return "baseline"
    low, high = np.array(line["difference"][1:3], float)
    side, goal = "more" if low > 0 else "less" if high < 0 else UNCLEAR, aim(found, line["metric"])
    return (
        side
        if side == UNCLEAR or goal == "1 is best"
        else "better"
        if goal.startswith(side)
        else "worse"
    )


def aim(found: Found, metric: str) -> str:
    """Which values of a metric are good ones."""
    return (
        "1 is best"
        if metric.startswith("sharpness")
        else "less is better"
        if metric in found["lower"]
        else "more is better"
    )


def gather(folder: Path) -> Found:
    """All numbers of a folder of runs, what is compared in it, and the table. Raises FileNotFoundError or ValueError."""
    each, made = [], []
    for place in run.places(folder):
        said, by = _run(place)
        made += [by] if by and by not in made else []
        each.append({**said, "made": made.index(by) if by else None})
    about_it = folder / "sweep.json"
    sweep = records.read(about_it, records.SWEEP) if about_it.is_file() else {}
    done = [r for r in each if r["status"] == "done"]
    about, name = sweep.get("report") or {}, folder.resolve().name
    for word in ("seed", "picture", about.get("arm"), *about.get("by", [])):
        if not all(records.is_scalar(r["parameters"].get(word)) for r in done):
            raise ValueError(
                f"{shown(str(word))} is compared, so it must be a number or a text, not a list; "
                "name another in the report block"
            )
    values = {
        n: [json.loads(v) for v in dict.fromkeys(json.dumps(r["parameters"].get(n)) for r in done)]
        for r in done
        for n in r["parameters"]
    }
    varied = {n: v for n, v in values.items() if len(v) > 1}
    flat = {
        n: v for n, v in varied.items() if all(map(records.is_scalar, v))
    }  # lists are not compared
    arm = about.get("arm") or max(
        (n for n in flat if n != "seed"), key=lambda n: len(flat[n]), default=""
    )
    arms = list(dict.fromkeys(r.get(arm) for r in rows({"runs": each})))
    for r in (
        each
    ):  # a curve that bears the name of its arm belongs into one picture with those of the others
        r["curves"] = {
            "learning" if curve == str(r["parameters"].get(arm)) else curve: points
            for curve, points in r["curves"].items()
        }
    base, order = (
        about.get("baseline", arms[0] if arms else None),
        (sweep.get("grid") or {}).get(arm) or arms,
    )
    columns = {
        c: v[0] for r in done for c, v in r["rows"].items() if c not in ("picture", "seed", arm)
    }
    split = dict.fromkeys(
        [
            *(n for n in flat if n not in ("seed", arm)),
            *(c for c, v in columns.items() if isinstance(v, str)),
        ]
    )
    by = about.get("by", list(split))
    metrics = (
        about.get("metrics")
        or [c for c, v in columns.items() if isinstance(v, float) and c not in by][:4]
    )
    for what, word, there in (
        ("baseline", base, arms),
        *(("metrics", m, [*columns]) for m in metrics),
        *(("by", b, [*columns, *values]) for b in by),
    ):
        if done and word not in there:
            raise ValueError(
                f"{what} of the report must be one of {', '.join(map(str, there))}, got {word}; the finished runs have no other"
            )
    parts = {tuple(r.get(k) for k in by) for r in rows({"runs": each})}
    if len(parts) * len(arms) * len(metrics) > MOST_LINES:
        raise ValueError(
            f"{folder}: a table of {len(parts)} parts, {len(arms)} arms and {len(metrics)} metrics "
            "is too long; name fewer in the report block: by, metrics"
        )
    found = {
        "name": name, "title": about.get("title") or name, "question": about.get("question", ""), "arm": arm, "baseline": base,
        "arms": sorted(arms, key=lambda a: (a != base, order.index(a) if a in order else len(order))), "by": by, "metrics": metrics,
        "lower": about.get("lower", [m for m in metrics if any(word in m for word in LOWER)]), "varied": varied,
        "fixed": {n: v[0] for n, v in values.items() if n not in varied}, "made": made, "runs": each,
    }  # fmt: skip
    return found | {"table": table(found)}


def _run(place: Path) -> tuple[Found, Found]:
    """A run's numbers, a column of its rows a list; and what made it."""
    said, shapes = run.recorded(place), {"rows": records.ROWS, "curves": records.CURVES}
    try:
        lines, curves = (
            records.read(place / f"{name}.json", shape)
            if (place / f"{name}.json").is_file()
            else None
            for name, shape in shapes.items()
        )
    except (OSError, ValueError) as e:
        said, lines, curves = run.damaged(place, e), None, None
    if lines is None:
        lines = [{"picture": "", **said["metrics"]}]
    columns, few = (
        dict.fromkeys(c for r in lines for c in r),
        {n: c for n, c in (curves or {}).items() if c},
    )
    names = (
        "run",
        "status",
        "error",
        "seconds",
        "threads",
        "notebook",
        "sha256",
        "metrics",
        "parameters",
    )
    numbers = {
        **{k: said.get(k) for k in names},
        "rows": {c: [r.get(c) for r in lines] for c in columns} if said["status"] == "done" else {},
        "curves": {
            name: [
                part.mean(0).tolist()
                for part in np.array_split(np.array(c, float), min(POINTS, len(c)))
            ]
            for name, c in few.items()
        },
    }
    return numbers, said["made"]
