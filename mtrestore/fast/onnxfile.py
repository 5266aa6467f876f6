"""An ONNX file's bytes, if it is whole in itself: one whose values lie in other files is refused.

The walk needs no package: protobuf is tags and lengths, and of ONNX it has to know which field
holds which kind of message (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
What it cannot follow is refused.
"""

from __future__ import annotations

from pathlib import Path

from .. import weights
from ..io import files

MOST_PARTS = 1_000_000
# kind of message -> number of a field -> the kind that it holds; all other fields are passed over
FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # of a tensor


class ElsewhereError(ValueError):
    """Values of a model lie in another file."""


def read(path: Path, broken: bool = False) -> bytes:
    """The bytes of an ONNX file of at most 256 MiB that needs no other file; or WeightsError.

    broken: a file that is no ONNX file is taken too, where it is not going to be run.
    """
    try:
        data = files.read_bytes(path)
    except files.ImageError as e:
        raise weights.WeightsError(f"the ONNX file cannot be read: {e}") from e
    try:
        check(data)
    except ValueError as e:
        if broken and not isinstance(e, ElsewhereError):
            return data
        raise weights.WeightsError(f"{path.name} is not an ONNX model that can be run: {e}") from e
    return data


def check(data: bytes) -> None:
    """Raise ValueError if any tensor has its values elsewhere, or the model cannot be followed.

    Tensors are looked for in graphs, attributes, functions and sparse tensors, however deep.
    """
    if data[4:8] == b"ORTM":
        raise ValueError("it is in onnxruntime's own format; export it as ONNX")
    parts, todo = 0, [("model", 0, len(data))]
    while todo:
        kind, place, end = todo.pop()
        while place < end:
            parts += 1
            if parts > MOST_PARTS:
                raise ValueError(f"it has more than {MOST_PARTS} parts")
            tag, place = varint(data, place, end, 5)
            number, wire = tag >> 3, tag & 7
            value = 0
            if wire == 0:
                value, place = varint(data, place, end, 10)
            elif wire == 2:
                length, place = varint(data, place, end, 5)
                if number in FIELDS[kind]:
                    todo.append((FIELDS[kind][number], place, place + length))
                place += length
            elif wire in (1, 5):
                place += 8 if wire == 1 else 4
            else:
                raise ValueError("it is damaged, or no ONNX file")
            if place > end or not 0 < number < 2**29:
                raise ValueError("it is damaged, or no ONNX file")
            if kind == "tensor" and (
                number == EXTERNAL_DATA or number == DATA_LOCATION and (wire or value)
            ):
                raise ElsewhereError(
                    "some of its values lie in another file; save it with all of them inside"
                )


def varint(data: bytes, place: int, end: int, most: int) -> tuple[int, int]:
    """(number, where it ends) of at most so many bytes, seven bits each, the lowest first."""
    value = 0
    for i, byte in enumerate(data[place : min(end, place + most)]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, place + i + 1
    raise ValueError("it is damaged, or no ONNX file")
