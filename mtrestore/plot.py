"""Figures. Only what draws one imports this: matplotlib looks for a home to keep its fonts in."""

import io

from matplotlib.figure import Figure


class Plot(Figure):
    """A matplotlib figure that a notebook shows by itself, and that pyplot does not hold on to."""

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png", bbox_inches="tight", facecolor="white")
        return data.getvalue()
