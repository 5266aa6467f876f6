"""Samples of 16 bits and of floats, which Pillow would cut to 8 bits: the one place where they are
read, after `cost` has walked the file and held its budget.

PNG: OpenCV, given a file of pixels alone, each row of which was counted. TIFF: `tiff.samples`;
packings that are not ours are unpacked by Pillow's libtiff as plain bytes, strip by strip.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from . import tiff
from .cost import png_pixels
from .files import ImageError

STRIP = 256  # rows that are converted at once


def png_samples(data: bytes | bytearray, size: tuple[int, int], who: str) -> np.ndarray:
    """H×W×(2..4), uint16, of a surveyed PNG with 16 bits that is not plain grey."""
    samples = cv2.imdecode(np.frombuffer(png_pixels(data), np.uint8), cv2.IMREAD_UNCHANGED)
    right = samples is not None and samples.dtype == np.uint16 and samples.shape[:2] == size[::-1]
    if not right or samples.ndim < 3 or samples.shape[2] < 3:
        raise ImageError("E_FORMAT", f"{who} is a 16-bit PNG that cannot be decoded; save it again")
    code = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}[samples.shape[2]]
    samples = cv2.cvtColor(samples, code, dst=samples)
    return samples[..., [0, 3]] if data[25] == 4 else samples


def tiff_samples(data: bytes, file: tiff.Layout, who: str) -> np.ndarray:
    """H×W×(1..4) of a grey or RGB TIFF, black zero and alpha plain."""
    if file.channels not in {0: (1,), 1: (1, 2), 2: (3, 4)}.get(file.colour, ()):
        kind = f"{file.dtype} TIFF of {file.channels} samples and colour kind {file.colour}"
        raise ImageError("E_FORMAT", f"{who} is a {kind}; save it as grey or RGB")
    if not file.readable:
        why = f"is a {file.dtype} TIFF whose compression cannot be decoded; save it without"
        raise ImageError("E_FORMAT", f"{who} {why}")
    samples = tiff.samples(data, file, unpack)
    if file.colour == 0:  # white is zero
        np.subtract(top_of(samples), samples, out=samples)
    if file.channels == 4 and file.extras[:1] == (0,):  # a fourth channel that is no alpha
        return samples[..., :3]
    if file.channels in (2, 4) and file.extras[:1] == (1,):
        divide_alpha(samples)
    return samples


class Bytes(TiffImagePlugin.TiffImageFile):
    """A TIFF of bytes, without Pillow's limit of pixels: ours was asked."""

    def load_prepare(self) -> None:
        ImageFile.ImageFile.load_prepare(self)


def unpack(data: bytes) -> np.ndarray:
    """H×W bytes of a TIFF of grey bytes, whose strips libtiff unpacks to their own size."""
    im = Bytes(io.BytesIO(data), "")
    im.load()
    out = np.empty((im.height, im.width), np.uint8)
    for y in range(0, im.height, STRIP):  # Pillow makes two copies of what it hands over
        end = min(y + STRIP, im.height)
        strip = im.resize((im.width, end - y), Image.Resampling.NEAREST, (0, y, im.width, end))
        out[y:end] = np.asarray(strip)  # not `crop`, which asks a limit of pixels that is not ours
    return out


def top_of(samples: np.ndarray) -> int:
    """White."""
    return np.iinfo(samples.dtype).max if samples.dtype.kind == "u" else 1


def divide_alpha(samples: np.ndarray) -> None:
    """Colours that were multiplied with alpha, made plain in place."""
    top = top_of(samples)
    for y in range(0, len(samples), STRIP):
        strip = samples[y : y + STRIP]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            colours = strip[..., :-1] / strip[..., -1:].astype(np.float32) * top
        colours = np.nan_to_num(colours, posinf=0) + (top > 1) / 2
        strip[..., :-1] = np.clip(colours, 0, top).astype(samples.dtype)
