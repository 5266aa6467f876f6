"""Reading a finished experiment, as the notebooks 40 to 42 do: its arms, differences, numbers.

found: what `report.load` gives. A row is one picture under one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..view import Table, label
from .statistics import UNCLEAR, Results, Row, rows, verdict

ESTIMATE = ("difference", "from", "to", "pictures", "seeds")


def load(results: str, name: str) -> Results:
    """The bundle or folder at `results`, or the committed one of that name where it is empty."""
    from . import report

    return report.load(results or report.RESULTS / f"{name}.json")


def of_arms(found: Results) -> dict[Any, list[Row]]:
    """Arm -> its rows."""
    return {arm: rows(found, **{found["arm"]: arm}) for arm in found["arms"]}


def arms(found: Results) -> Table:
    """How much there is of each arm: rows, pictures, seeds."""
    table = {}
    for arm, each in of_arms(found).items():
        pictures = {row["picture"] for row in each}
        seeds = {row.get("seed") for row in each}
        table[str(arm)] = {"rows": len(each), "pictures": len(pictures), "seeds": len(seeds)}
    return Table(table, found["arm"])


def lines(found: Results, metric: str) -> list[Row]:
    """The rows of the table that compare an arm with the baseline in this metric."""
    return [line for line in found["table"] if line["metric"] == metric and line["difference"]]


def differences(found: Results, metric: str) -> Table:
    """Each arm less the baseline with its 95 % interval, and what that says."""
    table = {}
    for line in lines(found, metric):
        numbers = zip(ESTIMATE, line["difference"], strict=True)
        row = {name: value for name, value in numbers if value is not None}
        table[f"{line['part']}, {line['arm']}"] = row | {"says": verdict(found, line)}
    return Table(table, f"{label(metric)}, less {found['baseline']}")


def numbers(found: Results, metric: str) -> dict[str, float]:
    """metric_ARM_PART -> mean difference, and `clear`: how many of them leave 0 out."""
    each = lines(found, metric)
    clear = sum(verdict(found, line) != UNCLEAR for line in each)
    means = {f"{metric}_{line['arm']}_{line['part']}": line["difference"][0] for line in each}
    return {**means, "clear": clear}


def per_picture(
    found: Results, metric: str, arm: Any, base: Any, by: Sequence[str]
) -> dict[str, list[float]]:
    """Picture -> arm less base in each pair of the same seed and values of `by`."""
    from .statistics import cells

    of = of_arms(found)
    first, second = cells(of[arm], metric, by), cells(of[base], metric, by)
    gains: dict[str, list[float]] = {}
    for (picture, *rest), value in first.items():
        if (picture, *rest) in second:
            gains.setdefault(picture, []).append(value - second[picture, *rest])
    return gains
