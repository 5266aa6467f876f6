"""A picture with boxes to draw on it, for notebooks and Voilà."""

import anywidget
import traitlets

from ..io.files import asset


class Boxes(anywidget.AnyWidget):
    """A picture with boxes to draw, move, size and delete by mouse or keys.

    boxes: [[x0, y0, x1, y1], ...] in photo pixels; size: [width, height].
    """

    _esm, _css = asset("boxes.js"), asset("boxes.css")
    picture = traitlets.Unicode().tag(sync=True)
    size = traitlets.List([1, 1]).tag(sync=True)
    boxes = traitlets.List().tag(sync=True)
