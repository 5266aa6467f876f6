"""Nets as ONNX files: written for other programs, and run by ONNX Runtime.

It runs the face net faster than torch on a CPU.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .. import image, weights
from ..guard import forks
from ..io.text import one_line, shown
from ..nets.blocks import Net
from . import onnxfile


def export(net: Net, path: str | Path) -> Path:
    """Write a net on pictures (B×3×H×W -> B×3×kH×kW) as ONNX, opset 17, float32.

    Batch, height and width stay free; sides must be multiples of `net.multiple`, as for the net
    itself. Raises ValueError for a net that does not take one picture.
    """
    least = max(getattr(net, "multiple", 1), getattr(net, "minimum", 1), 64)
    picture, buffer = torch.rand(1, 3, least, least), io.BytesIO()
    try:
        out = net(picture)
        if out.ndim != 4:
            raise TypeError(f"it gives {out.ndim} dimensions")
    except TypeError as e:
        raise ValueError(
            "only nets that turn one picture into another can be exported, "
            f"not {type(net).__name__} ({e})"
        ) from e
    axes = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the traced size check, and of an exporter to prefer
        torch.onnx.export(
            net,
            (picture,),
            buffer,  # pyright: ignore[reportArgumentType]  # the stub knows no open file
            dynamo=False,
            opset_version=17,
            input_names=["picture"],
            output_names=["restored"],
            dynamic_axes={"picture": axes, "restored": axes},
        )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return image.write_bytes(path, buffer.getvalue())


def onnx_net(path: Path) -> Callable[..., Tensor]:
    """An ONNX model as a callable on tensors; runs on the CPU. Raises WeightsError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong comes as an exception
    options.intra_op_num_threads = torch.get_num_threads()  # and none of them waits by spinning
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    data = onnxfile.read(path)
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's own classes have no public base
        words = shown(one_line(e)[:200])  # names of nodes are the file's own
        raise weights.WeightsError(
            f"{path.name} is not an ONNX model that can be run: {words}"
        ) from e
    names = [i.name for i in session.get_inputs()]

    def run(*x: Tensor) -> Tensor:
        arrays = [t.cpu().numpy() for t in x]
        return torch.from_numpy(session.run(None, dict(zip(names, arrays, strict=True)))[0])

    return forks.hold(run)
