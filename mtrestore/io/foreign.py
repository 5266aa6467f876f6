"""HEIC, JPEG XL and JPEG 2000, read where an optional package is there.

No plugin is registered in this process. Format by content -> size from the header -> affordable?
-> a process of its own decodes (`foreign_child`), with no more memory and time than the bytes of
the file allow; a decoder that hangs, grows or crashes is one refusal.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import features

from ..guard import safe
from .cost import MEMORY, PLENTY, WORK, afford, boxes_within
from .files import ImageError

CHILD = Path(__file__).with_name("foreign_child.py")
MOST_HEADER = 1 << 16  # bytes of the child's line
BOX_JXL, BOX_JP2 = b"\0\0\0\x0cJXL \r\n\x87\n", b"\0\0\0\x0cjP  \r\n\x87\n"
HEVC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
AV1 = {b"avif", b"avis"}


class Format(NamedTuple):
    """Pillow's name, the plugin's module ("": Pillow itself), how to get it, and bytes and
    nanoseconds a pixel.
    """

    pillow: str
    module: str
    package: str
    memory: float
    work: float


FORMATS = {
    "HEIC": Format("HEIF", "pillow_heif", "pillow-heif", 14, 60),
    "JPEG XL": Format("JXL", "pillow_jxl", "pillow-jxl-plugin", 14, 60),
    "JPEG 2000": Format("JPEG2000", "", "--upgrade pillow", 14, 80),
}


class Decoded(NamedTuple):
    samples: np.ndarray  # H×W×(1..4), uint8 or uint16
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None
    notes: tuple[str, ...]


def kind_of(begin: bytes) -> str | None:
    """The format of a file that begins so, if it is one of these."""
    if begin.startswith((b"\xff\x0a", BOX_JXL)):
        return "JPEG XL"
    if begin.startswith((b"\xff\x4f\xff\x51", BOX_JP2)):
        return "JPEG 2000"
    if begin[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(begin[:4], "big"), 256)
    brands = {begin[8:12], *(begin[at : at + 4] for at in range(16, end, 4))}
    return "HEIC" if brands & HEVC and not brands & AV1 else None


def decode(data: bytes, name: str, who: str, max_pixels: int | None) -> Decoded:
    """A file of one of these formats. Raises ImageError."""
    form = FORMATS[name]
    there = importlib.util.find_spec(form.module) if form.module else features.check("jpg_2000")
    if not there:
        how = f"install it with: pip install {form.package}"
        raise ImageError("E_FORMAT", f"{who} is {name}, for which a package is missing; {how}")
    size = {"HEIC": _heic, "JPEG XL": _jxl, "JPEG 2000": _jp2}[name](data)
    payload = [memoryview(data)]
    afford(who, *size, max_pixels, form.memory, form.work, payload)
    share = max(1.0, len(data) / 2**20, (max_pixels or 0) / PLENTY)
    facts, blocks, samples = _child(data, form, int(share * MEMORY), share * WORK / 1e9, who, name)
    if sorted(facts["size"]) != sorted(size):  # it may have been turned upright
        raise ImageError("E_FORMAT", f"{who} is a damaged {name}: its sizes disagree")
    notes = (f"first of {facts['frames']} frames",) if facts["frames"] > 1 else ()
    if facts["bits"] > 8 and samples.dtype == np.uint8:
        notes += (f"{facts['bits']} bits are read as 8",)
    icc, exif, xmp = (block or None for block in blocks)
    return Decoded(samples, icc, exif, xmp, notes)


# ---------------------------------------------------------------- sizes from headers


def _heic(data: bytes) -> tuple[int, int]:
    """The largest size that any item states."""
    places = boxes_within(data, 0, len(data), b"meta", b"iprp", b"ipco", b"ispe")
    sizes = [struct.unpack_from(">II", data, at + 4) for at, _ in places]
    return max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))


def _jp2(data: bytes) -> tuple[int, int]:
    """Of the image area in the SIZ segment (ISO/IEC 15444-1, A.5.1)."""
    at = 0
    if data.startswith(BOX_JP2):
        at = next((at for at, _ in boxes_within(data, 0, len(data), b"jp2c")), 0)
    x1, y1, x0, y0, *tile = struct.unpack_from(">8I", data, at + 8)
    if data[at : at + 4] != b"\xff\x4f\xff\x51" or x1 <= x0 or y1 <= y0:
        raise ValueError("it has no size")
    return x1 - x0, y1 - y0


def _jxl(data: bytes) -> tuple[int, int]:
    """Of the size header (ISO/IEC 18181-1, D.3)."""
    begin = data[:64]
    if data.startswith(BOX_JXL):
        whole = next((at for at, _ in boxes_within(data, 0, len(data), b"jxlc")), None)
        part = next((at + 4 for at, _ in boxes_within(data, 0, len(data), b"jxlp")), None)
        at = whole if whole is not None else part
        begin = b"" if at is None else data[at : at + 64]
    if begin[:2] != b"\xff\x0a":
        raise ValueError("it has no size")
    bits, at = int.from_bytes(begin[2:].ljust(16, b"\0"), "little"), 0

    def take(n: int) -> int:
        nonlocal at
        at += n
        return bits >> at - n & (1 << n) - 1

    def side(small: int) -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = take(1)
    height = side(small)
    ratio = take(3)
    above, below = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio]
    return (height * above // below if ratio else side(small)), height


# ---------------------------------------------------------------- the process


def _child(
    data: bytes, form: Format, memory: int, seconds: float, who: str, name: str
) -> tuple[dict[str, Any], list[bytes], np.ndarray]:
    """What `foreign_child` says, its blocks, and its samples."""
    words = [sys.executable, "-P", str(CHILD), form.pillow, form.module, str(memory), str(seconds)]
    pipe = subprocess.PIPE
    env = {**os.environ, **safe.environment()}
    child = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=env)
    feeder = threading.Thread(target=_feed, args=(child.stdin, data), daemon=True)
    clock = threading.Timer(60 + 20 * seconds, child.kill)  # one that waits uses no processor
    try:
        feeder.start()
        clock.start()
        line = child.stdout.readline(MOST_HEADER)
        if not line:
            raise _ended(child.wait(), who, name)
        facts = json.loads(line)
        if "error" in facts:
            code = "E_TOO_LARGE" if facts["memory"] else "E_FORMAT"
            cut = "truncat" in facts["error"].lower() or "end of" in facts["error"].lower()
            code = "E_TRUNCATED" if cut else code
            raise ImageError(code, f"{who} is a damaged or too costly {name}: {facts['error']}")
        blocks = [child.stdout.read(size) for size in facts["blocks"]]
        depth = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 1}[facts["mode"]]
        width, height = facts["size"]
        kind = np.uint16 if facts["mode"] == "I;16" else np.uint8
        samples = np.empty((height, width, depth), kind)
        view, at = memoryview(samples).cast("B"), 0
        while at < len(view):
            count = child.stdout.readinto(view[at:])
            if not count:
                raise _ended(child.wait(), who, name)
            at += count
        return facts, blocks, samples
    finally:
        clock.cancel()
        child.kill()
        child.stdout.close()
        child.wait()


def _feed(file: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(OSError):  # it may have ended
        file.write(data)
        file.close()


def _ended(code: int, who: str, name: str) -> ImageError:
    late = code in (-signal.SIGKILL, -getattr(signal, "SIGPROF", 27))
    if late:
        why = f"is a {name} that costs more to decode than its bytes allow; save it again"
        return ImageError("E_TOO_LARGE", f"{who} {why}")
    return ImageError("E_FORMAT", f"{who} is a damaged {name}: its decoder ended early")
