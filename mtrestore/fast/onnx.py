"""Nets as ONNX files, for other programs and for ONNX Runtime, which runs the face net faster than torch on a CPU."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch

from .. import image
from ..nets.blocks import Net


def export(net: Net, path: str | Path) -> Path:
    """Write a net on pictures (B×3×H×W -> B×3×kH×kW) as ONNX, opset 17, float32; batch, height and width stay free.

    Sides must be multiples of `net.multiple`, as for the net itself. Raises ValueError for a net that does not take one picture.
    """
    least = max(getattr(net, "multiple", 1), getattr(net, "minimum", 1), 64)
    picture, buffer = torch.rand(1, 3, least, least), io.BytesIO()
    try:
        out = net(picture)
        if out.ndim != 4:
            raise TypeError(f"it gives {out.ndim} dimensions")
    except TypeError as e:
        raise ValueError(
            f"only nets that turn one picture into another can be exported, not {type(net).__name__} ({e})"
        ) from e
    axes = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of the traced size check, and that another exporter, with two more packages, is to be preferred
        torch.onnx.export(net, (picture,), buffer, dynamo=False, opset_version=17, input_names=["picture"], output_names=["restored"],
                          dynamic_axes={"picture": axes, "restored": axes})  # fmt: skip
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return image.write_bytes(path, buffer.getvalue())
