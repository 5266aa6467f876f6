"""Files of torch.save: their pickles are looked through before torch reads them; none runs."""

from __future__ import annotations

import io
import pickletools
import re
import warnings
import zipfile
from typing import Any

from .text import shown

MOST_STEPS = 200_000  # of a pickle
SAFE = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage"
)


def tensors_only(data: bytes) -> dict[Any, Any]:
    """The mapping that torch.save wrote, if it is of tensors and plain values.

    No code is run, checksums are compared, nothing packed is unpacked.
    """
    import torch

    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            files = parts.infolist()
            packed = any(file.compress_type for file in files)
            if packed or sum(file.file_size for file in files) > len(data):
                raise ValueError("it is compressed, which torch.save never does")
            if bad := parts.testzip():  # torch.load does not look at the checksums
                raise ValueError(f"wrong checksum of {bad!r}")
            names = [n for n in parts.namelist() if n.rpartition("/")[2] == "data.pkl"]
            pickled = [parts.read(name) for name in names]
        if len(pickled) != 1:
            raise ValueError("expected one data.pkl in it, as torch.save writes")
        asked = constructors(io.BytesIO(pickled[0]), 1)
    else:  # a magic number, a version, the system, the mapping and the storages' names
        asked = constructors(io.BytesIO(data), 5)
    if odd := [name for name in asked if not SAFE.fullmatch(name)]:
        raise ValueError(f"it asks for {shown(odd[0])[:60]}, which is no tensor and no plain value")
    try:
        with warnings.catch_warnings(action="ignore"):
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as e:  # torch's own message advises to load it all the same
        raise ValueError("it is damaged, or holds more than tensors and plain values") from e
    if not isinstance(found, dict):
        raise ValueError(f"expected a mapping of names to tensors, got {type(found).__name__}")
    return found


def constructors(stream: io.BytesIO, pickles: int) -> set[str]:
    """The names of all that so many pickles in a row would call.

    torch's careful loader runs no code, but lets a few bytes ask for any memory (bytearray).
    """
    asked, steps = set(), 0
    try:
        for _ in range(pickles):
            for step, argument, _ in pickletools.genops(stream):
                steps += 1
                if steps > MOST_STEPS:
                    raise ValueError("it has more parts than any net of ours")
                if step.name in ("GLOBAL", "INST"):
                    asked.add(argument)
    except (OverflowError, IndexError, AttributeError, TypeError) as e:  # a missing end, say
        raise ValueError("it is damaged, or no file of torch.save") from e
    return asked
