"""Figures. Only what draws one imports this: matplotlib looks for a home to keep its fonts in."""

import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure


class Plot(Figure):
    """A matplotlib figure that a notebook shows by itself, and that pyplot does not hold on to."""

    def _repr_png_(self) -> bytes:
        return drawn(self)


def drawn(figure: Figure, kind: str = "png") -> bytes:
    """A figure as a PNG or SVG file, as large as all that is on it: nothing is cut off.

    The same figure gives the same bytes.
    """
    data, facts = io.BytesIO(), {"Date": None, "Creator": None} if kind == "svg" else {}
    options: dict[str, Any] = {"bbox_inches": "tight", "facecolor": "white", "metadata": facts}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mtrestore"}):
        figure.savefig(data, format=kind, **options)
    return data.getvalue()
