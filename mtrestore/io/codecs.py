"""What lies between a file's bytes and its pixels: formats, depths, profiles, EXIF, and everything that can be wrong with them.

    decode: format by content -> survey -> affordable? -> samples as the file stores them, with profile, EXIF and turn
    encode: samples -> bytes of one format, with profile and EXIF

Pillow decodes, except for what it would cut to 8 bits or refuse: that goes to OpenCV and to `tiff`, from memory and never by name.
What a file may cost is `cost`'s business.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import itertools
import logging
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from . import tiff
from .cost import Survey, afford, jpeg_scans, limit, png_chunk, png_pixels, survey
from .files import ImageError
from .text import shown
from .tiff import EXIF_IFD, GPS_IFD, ICC_TAG, ORIENTATION, sane_exif

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "TIFF",
    "BMP",
    "GIF",
    "PPM",
    "AVIF",
)  # what is decoded; MPO (phones) comes through JPEG's door
SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".avif": "AVIF",
}
DEEP, LOSSLESS = {"PNG", "TIFF"}, {"PNG", "TIFF", "BMP"}  # keep 16 bits; come back bit for bit
ALPHA, TAGGED = (
    {"PNG", "TIFF", "WEBP", "AVIF"},
    {"PNG", "TIFF", "WEBP", "AVIF", "JPEG"},
)  # keep alpha; keep ICC and EXIF
MAX_JPEG_EXIF, STRIP = 65533, 256  # bytes; rows that are converted at once
TIFF_KEPT = {
    270,
    271,
    272,
    282,
    283,
    296,
    305,
    306,
    315,
    33432,
    EXIF_IFD,
    GPS_IFD,
}  # about the picture; the rest is about the file
XMP_TAG, GEO_TAGS = 700, {33550, 33922, 34264, 34735, 34736, 34737}  # the last of GeoTIFF
CAMERA_KEPT = {
    0x829A,
    0x829D,
    0x8822,
    0x8824,
    0x8827,
    *range(0x8830, 0x8836),
    0x9000,
    0x9003,
    0x9004,
    *range(0x9010, 0x9013),
    0x9101,
    0x9102,
    *range(0x9201, 0x920B),
    0x9214,
    *range(0x9290, 0x9293),
    0xA000,
    0xA001,
    0xA20E,
    0xA20F,
    0xA210,
    0xA215,
    0xA217,
    0xA300,
    0xA301,
    *range(0xA401, 0xA40B),
    0xA40C,
    0xA420,
    *range(0xA430, 0xA436),
    0xA500,
}  # of the EXIF directory, where the place goes


class Raw(NamedTuple):
    """A decoded file before it is turned and scaled: uint8, uint16 or float samples, H×W×(1 grey, 2 with alpha, 3 RGB, 4 RGBA)."""

    samples: np.ndarray
    format: str
    icc: bytes | None = None
    exif: bytes | None = None  # as it was
    notes: tuple[str, ...] = ()
    turn: int = 1  # EXIF orientation


def kind_of(data: bytes) -> str | None:
    Image.init()
    return next(
        (f for f in FORMATS if f in Image.OPEN and Image.OPEN[f][1](data[:16]) is True), None
    )


def decode(data: bytes, who: str, max_pixels: int | None) -> Raw:
    """Bytes of a file -> samples. The content decides the format, the header tells the size, and only then is anything decoded."""
    if not data:
        raise ImageError("E_EMPTY", f"{who} is empty (0 bytes); copy or download it again")
    name = kind_of(data)
    if name is None:
        hint = (
            "is it HEIC? convert it to JPEG"
            if data[4:8] == b"ftyp"
            else f"give one of {', '.join(FORMATS)}"
        )
        raise ImageError(
            "E_FORMAT",
            f"{who} is no picture that can be read (it starts with {data[:8]!r}); {hint}",
        )
    if name in ("PNG", "TIFF") and not whole(
        data, name
    ):  # the decoders take some of these for whole
        raise ImageError(
            "E_TRUNCATED",
            f"{who} is truncated or damaged: the {name} data end too early; get it again",
        )
    if name == "TIFF":
        return _tiff(data, who, max_pixels)
    file = survey(data, name, who)
    if file.size:
        _afford(who, file, *file.size, 4, 1, max_pixels)
    im = _open(name, file.data)
    if im.size != file.size:  # BMP and PPM; or a decoder that sees another header than we do
        _afford(who, file, *im.size, 4, 2 if im.mode[0] in "IF" else 1, max_pixels)
    notes = (f"first of {file.frames} frames",) if file.frames > 1 else ()
    if name == "JPEG" and getattr(im, "n_frames", 1) > 1:  # MPO
        notes = (f"first of {im.n_frames} frames",)
    if name == "PPM" and im.tile[0][0] in ("ppm", "ppm_plain"):
        return Raw(_ppm(im, data), name, notes=notes)
    return from_pil(im, who, name, max_pixels, file.data, notes)


def _open(name: str, data: bytes | bytearray) -> Image.Image:
    """The plugin itself, not Image.open: that asks a global pixel limit (ours is an argument), and raises KeyError where "MPO" is listed."""
    return Image.OPEN[name][0](io.BytesIO(data), "")


def _afford(
    who: str,
    file: Survey,
    width: int,
    height: int,
    channels: int,
    size: int,
    max_pixels: int | None,
) -> None:
    """Refuse what costs too much. Decoding takes file.memory beside Pillow's four bytes; then samples, colours and alpha live together."""
    memory = max(
        file.memory,
        file.memory + 4 + channels * size if file.memory < 16 else 0,
        channels * size + 3 * size + 4,
    )
    afford(who, width, height, max_pixels, memory, file.work, file.payload, file.packed)


def _ppm(im: Image.Image, data: bytes) -> np.ndarray:
    """Samples of a PPM that Pillow would read in a loop: in digits, or whose largest sample is not one of a whole type."""
    decoder, _, start, options = im.tile[0][:4]
    shape = (im.height, im.width, 3 if im.mode == "RGB" else 1)
    count, top = shape[0] * shape[1] * shape[2], 1 if im.mode == "1" else options[1]
    if decoder == "ppm":
        values = np.frombuffer(data, ">u2" if top > 255 else np.uint8, count, start)
    else:
        text = re.sub(rb"#[^\r\n]*", b" ", data[start:])
        if text.translate(None, b"0123456789 \t\n\v\f\r"):
            raise ValueError("it holds what is no number")
        if im.mode == "1":  # here digits need no space between them, and 1 is black
            digits = np.frombuffer(text.translate(None, b" \t\n\v\f\r"), np.uint8)[:count]
            values = np.where(digits < 50, 49 - digits.astype(int), 2)
        else:
            values = np.fromstring(text.decode(), np.float64, sep=" ")[
                :count
            ]  # with a count it would make up what is missing
        if len(values) < count or not values.max() <= top:
            raise ValueError("truncated" if len(values) < count else f"a sample is more than {top}")
    values = values.reshape(shape)
    out = np.empty(shape, np.uint16 if top > 255 else np.uint8)
    scale = np.iinfo(out.dtype).max
    for y in range(0, im.height, STRIP):
        out[y : y + STRIP] = np.minimum(
            values[y : y + STRIP] / np.float32(top) * scale + np.float32(0.5), scale
        )
    return out


def from_pil(
    im: Image.Image,
    who: str,
    name: str,
    max_pixels: int | None,
    data: bytes = b"",
    notes: tuple[str, ...] = (),
) -> Raw:
    """An opened, not yet decoded PIL image -> samples. `data` is its file, where there is one, for what Pillow would cut to 8 bits."""
    limit(who, *im.size, max_pixels)
    if not data and getattr(im, "is_animated", False):
        notes += (f"first of {im.n_frames} frames",)
    block = im.info.get("exif")
    if name != "TIFF" and block and not sane_exif(block):
        del im.info["exif"]
        notes += ("EXIF ignored: unreadable",)
    deep = (
        name == "PNG" and data[24:25] == b"\x10" and data[25]
    )  # 16 bits and not plain grey: Pillow keeps 8 bits
    if not deep:
        im.load()  # this also turns a TIFF upright and takes its tag away, so the tag is asked for afterwards
    if data:  # what the decoders of WebP and AVIF hold is as large as the picture
        im.__dict__.pop("_decoder", None)
        im.fp = None
    turn, exif, icc, mode, clear = (
        1,
        None,
        im.info.get("icc_profile"),
        im.mode,
        im.info.get("transparency"),
    )
    with contextlib.suppress(
        Exception
    ):  # the turn first: it must not be lost with a tag that cannot be written again
        tags = Image.Image.getexif(im)  # that of a PNG would decode it first
        turn = tags.get(ORIENTATION, 1)
        exif = tags.tobytes() if len(tags) else None
    if exif is None and im.info.get("exif"):
        notes += ("EXIF ignored: unreadable",)
    if deep:
        size = im.size[::-1]
        im.close()
        samples = cv2.imdecode(np.frombuffer(png_pixels(data), np.uint8), cv2.IMREAD_UNCHANGED)
        if (
            samples is None
            or samples.dtype != np.uint16
            or samples.shape[:2] != size
            or samples.ndim != 3
        ):
            raise ImageError(
                "E_FORMAT", f"{who} is a 16-bit PNG that cannot be decoded; save it again"
            )
        return Raw(
            samples[..., [0, 3]] if data[25] == 4 else _rgb(samples), name, icc, exif, notes, turn
        )
    if mode.startswith("I;16") or mode == "I" and name == "PPM":
        samples = np.asarray(im).astype(np.uint16)[..., None]
        if isinstance(clear, int):
            samples = np.concatenate(
                [samples, np.where(samples == clear, 0, 65535).astype(np.uint16)], 2
            )
    elif mode == "I":
        raise ImageError(
            "E_FORMAT",
            f"{who} has 32-bit integers of unknown range; save it with 8 or 16 bits or as floats in 0..1",
        )
    elif mode == "F":
        samples = np.asarray(im)[..., None]
    else:
        if mode in ("CMYK", "LAB"):
            im, note = to_srgb(im, icc)
            notes, icc = (*notes, note), None
        target = {
            "1": "L",
            "L": "L",
            "LA": "LA",
            "La": "LA",
            "RGBa": "RGBA",
            "RGBA": "RGBA",
            "PA": "RGBA",
        }.get(im.mode, "RGB")
        target = (
            target if clear is None or target[-1] == "A" else target + "A"
        )  # tRNS: one colour, or one alpha for each palette entry
        samples = np.empty((im.height, im.width, len(target)), np.uint8)
        for y in range(
            0, im.height, STRIP
        ):  # by strips: Pillow makes two copies of what it hands over
            strip = im.crop((0, y, im.width, min(y + STRIP, im.height)))
            samples[y : y + STRIP] = np.asarray(
                strip if strip.mode == target else strip.convert(target)
            ).reshape(-1, im.width, len(target))
    if data:
        im.close()
    return Raw(samples, im.format or name, icc, exif, notes, turn)


def _rgb(samples: np.ndarray) -> np.ndarray:
    """OpenCV's BGR or BGRA -> RGB or RGBA, in place."""
    turn = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}.get(
        samples.shape[2] if samples.ndim == 3 else 1
    )
    return samples if turn is None else cv2.cvtColor(samples, turn, dst=samples)


def _tiff(data: bytes, who: str, max_pixels: int | None) -> Raw:
    """Pillow decodes, except 16-bit, float and giant TIFF, which it would cut to 8 bits or refuse."""
    plan = tiff.layout(data)
    limit(who, plan.width, plan.height, max_pixels)
    if not tiff.sane_exif(data):
        raise ImageError(
            "E_FORMAT",
            f"{who} is a TIFF whose tags point at the same bytes again and again; save it again",
        )
    area = plan.width * plan.height
    payload, deep = plan.payload(data), plan.dtype is not None and plan.dtype.itemsize > 1
    scans = (
        sum(len(jpeg_scans(bytes(part), who)[1]) for part in payload) / len(payload)
        if plan.compression == 7 and payload
        else 1
    )
    raw = plan.area * max(plan.bits, 8 * plan.channels) / 8
    memory = (raw + 3 * min(plan.share, raw)) / area if deep else 8 + min(plan.share, raw) / area
    size = min(plan.dtype.itemsize, 4) if deep else 1
    memory = max(memory, (plan.channels * size + 3 * size + 4) if deep else 11)
    work = 40 * plan.area * max(1, plan.channels / 4) / area + 15_000 * len(plan.places) / area
    work += {6: 50, 7: 6 * scans}.get(plan.compression, 0) + 100 * (plan.colour in (5, 8))
    afford(
        who,
        plan.width,
        plan.height,
        max_pixels,
        memory,
        work,
        payload,
        plan.compression != tiff.PLAIN,
    )
    notes = (
        (f"first of {n} frames{' or more' if n == tiff.MOST_PAGES else ''}",)
        if (n := tiff.pages(data)) > 1
        else ()
    )
    giant = Image.MAX_IMAGE_PIXELS is not None and area > 2 * Image.MAX_IMAGE_PIXELS
    if plan.dtype is None or not deep and not giant:
        return from_pil(_open("TIFF", data), who, "TIFF", max_pixels, data, notes)
    channels = plan.channels
    if channels not in {0: (1,), 1: (1, 2), 2: (3, 4)}.get(plan.colour, ()):
        kind = f"{plan.dtype} TIFF of {channels} samples and colour kind {plan.colour}"
        raise ImageError("E_FORMAT", f"{who} is a {kind}; save it as grey or RGB")
    ours = plan.compression in (*tiff.PACKED, tiff.PLAIN) and not plan.reversed
    if ours and plan.predictor in ((1, 2) if plan.dtype.kind == "u" else (1, 3)):
        samples = tiff.samples(data, plan)
    else:  # LZW and others: OpenCV brings libtiff
        kind = np.float32 if plan.dtype.str[1:] == "f4" else plan.dtype.newbyteorder("=")
        file = np.frombuffer(tiff.pixels_only(data), np.uint8)
        samples = (
            cv2.imdecode(file, cv2.IMREAD_UNCHANGED) if not plan.planes and channels != 2 else None
        )
        if samples is None or samples.dtype != kind:
            raise ImageError(
                "E_FORMAT",
                f"{who} is a {plan.dtype} TIFF whose compression cannot be decoded; save it without",
            )
        samples = _rgb(samples).reshape(plan.height, plan.width, channels)
    top = np.iinfo(samples.dtype).max if samples.dtype.kind == "u" else 1
    if plan.colour == 0:  # white is zero
        np.subtract(top, samples, out=samples)
    if channels == 4 and plan.extras[:1] == (0,):  # a fourth channel that is no alpha
        samples = samples[..., :3]
    elif channels in (2, 4) and plan.extras[:1] == (1,):  # colours multiplied with alpha
        for y in range(0, plan.height, STRIP):
            strip = samples[y : y + STRIP]
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                colours = np.nan_to_num(
                    strip[..., :-1] / strip[..., -1:].astype(np.float32) * top, posinf=0
                )
            strip[..., :-1] = np.clip(colours + (top > 1) / 2, 0, top).astype(samples.dtype)
    return Raw(samples, "TIFF", plan.icc, data, notes, plan.turn or 1)


def clean_exif(exif: bytes | None, tiff: bool) -> tuple[bytes | None, tuple[str, ...]]:
    """What is worth keeping of an EXIF block, or of a whole TIFF file, which has the same structure, and notes."""
    tags = Image.Exif()
    try:
        tags.load(exif or b"")
        for tag in [t for t in tags if t == ORIENTATION or tiff and t not in TIFF_KEPT]:
            del tags[tag]
        for tag in (
            (0xA002, 0xA003) if EXIF_IFD in tags else ()
        ):  # width and height before turning and enlarging
            tags.get_ifd(EXIF_IFD).pop(tag, None)
        return tags.tobytes() if len(tags) else None, ()  # this leaves out IFD1, the thumbnail
    except Exception:
        return None, ("EXIF ignored: unreadable",)


def has_location(exif: bytes | None) -> bool:
    """Whether an EXIF block says where the photo was taken: in its GPS directory, or in an XMP packet."""
    tags = Image.Exif()
    try:
        tags.load(exif or b"")
        return (
            bool(tags.get_ifd(GPS_IFD))
            or b"GPS" in bytes(tags.get(XMP_TAG, b""))
            or any(tag in tags for tag in GEO_TAGS)
        )
    except Exception:
        return False


def without_location(exif: bytes | None) -> bytes | None:
    """An EXIF block without the place: what stays are the standard's tags about the picture and the camera.

    The GPS directory goes, and so does whatever may hold a place in a form of its own: XMP, IPTC, GeoTIFF, a camera's private notes,
    comments. The caption (ImageDescription) stays.
    """
    old, new = Image.Exif(), Image.Exif()
    try:
        old.load(exif or b"")
        for tag in TIFF_KEPT - {EXIF_IFD, GPS_IFD}:
            if tag in old:
                new[tag] = old[tag]
        camera = {tag: value for tag, value in old.get_ifd(EXIF_IFD).items() if tag in CAMERA_KEPT}
        if camera:
            new.get_ifd(EXIF_IFD).update(camera)
        return new.tobytes() if len(new) or camera else None
    except Exception:
        return None


def fitting_icc(icc: bytes | None, grey: bool) -> tuple[bytes | None, tuple[str, ...]]:
    """The profile if it fits the pixels, and what to say of it."""
    if not icc:
        return None, ()
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space, name = (
            profile.profile.xcolor_space.strip(),
            shown(ImageCms.getProfileDescription(profile).strip()),
        )
    except Exception:
        return None, ("ICC profile ignored: unreadable",)
    if space != ("GRAY" if grey else "RGB"):
        return None, (f"ICC profile ignored: {name} is for {space}",)
    return icc, (f"ICC profile kept: {name}",)


def to_srgb(im: Image.Image, icc: bytes | None) -> tuple[Image.Image, str]:
    """Any colours -> sRGB, through the profile where there is a usable one."""
    try:
        source = (
            ImageCms.createProfile("LAB")
            if im.mode == "LAB"
            else ImageCms.ImageCmsProfile(io.BytesIO(icc))
        )
        return ImageCms.profileToProfile(
            im, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        ), f"{im.mode} converted to sRGB"
    except Exception:  # no profile, rubbish, or one for other colours
        return im.convert("RGB"), f"{im.mode} converted to sRGB without a profile"


def _libtiff() -> list[Callable[[int | None], int | None]]:
    """The two functions of Pillow's libtiff that set who is told of errors and of warnings, by default stderr; none where it has none."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(Image.core.__file__)
        setters = [library.TIFFSetErrorHandler, library.TIFFSetWarningHandler]
        for setter in setters:
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
        return setters
    return []


class _Quiet:
    """While a reader is inside: truncated files fail whatever others told Pillow; Pillow, its libtiff and OpenCV neither warn nor log."""

    def __init__(self):
        self.lock, self.inside, self.stack = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self):
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.stack.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module="PIL")
                self.stack.callback(
                    setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES
                )
                ImageFile.LOAD_TRUNCATED_IMAGES = False
                logger = logging.getLogger("PIL")
                self.stack.callback(logger.setLevel, logger.level)
                logger.setLevel(logging.CRITICAL + 1)
                for setter in _LIBTIFF:
                    self.stack.callback(setter, setter(None))
                self.stack.callback(cv2.utils.logging.setLogLevel, cv2.utils.logging.getLogLevel())
                cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

    def __exit__(self, *_):
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.stack.close()


_LIBTIFF, _QUIET = _libtiff(), _Quiet()


@contextlib.contextmanager
def guard(who: str, data: bytes = b""):
    """Whatever the decoders raise (OSError, ValueError, SyntaxError, RuntimeError, KeyError, struct.error, ...) leaves as an ImageError."""
    try:
        with _QUIET:
            yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, MemoryError) as e:
        raise ImageError("E_TOO_LARGE", f"{who} is too large: {e or 'not enough memory'}") from e
    except Exception as e:
        name, text = (
            data and kind_of(data),
            str(e).removesuffix("not identified by this driver") or type(e).__name__,
        )
        words = (
            "truncat",
            "not enough",
            "smaller than",
            "end of",
            "eof",
            "bmff parsing",
        )  # the last is AVIF's, of a cut header
        if not whole(data, name) or any(word in text.lower() for word in words):
            raise ImageError(
                "E_TRUNCATED",
                f"{who} is truncated or damaged: the {name or 'file'} ends too early; get it again",
            ) from e
        code = "E_TOO_LARGE" if "too large" in text else "E_FORMAT"
        raise ImageError(
            code, f"{who} is a damaged or unsupported {name or 'kind of'} picture: {text}"
        ) from e


def whole(data: bytes, name: str | None) -> bool:
    """False when the end of the file is surely missing."""
    if name == "TIFF":
        return tiff.complete(data)
    if name == "GIF":
        return data.rstrip(b"\0").endswith(b";")
    if name == "WEBP":
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    return {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}.get(name, b"") in data


def decoded_size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) of a file of ours, decoded to the end, without the array that `decode` would make of it."""
    im = Image.OPEN[name][0](io.BytesIO(data), "")
    im.load()
    return im.height, im.width


def writable(name: str) -> str:
    Image.init()
    can = {suffix: format for suffix, format in SUFFIXES.items() if format in Image.SAVE}
    ending = next((suffix for suffix in can if name.lower().endswith(suffix)), None)
    if ending is None:
        raise ImageError(
            "E_FORMAT",
            f"{os.path.basename(name)!r} names no format to write; end it with one of {' '.join(can)}",
        )
    return can[ending]


def encode(
    samples: np.ndarray, name: str, icc: bytes | None, exif: bytes | None, quality: int
) -> bytes:
    if name == "TIFF" or samples.dtype == np.uint16:
        return (_tiff_file if name == "TIFF" else _png16)(samples, icc, exif)
    options = {
        "JPEG": {"quality": quality, "subsampling": 0 if quality >= 90 else 2},
        "WEBP": {"quality": quality, "exact": True},
        "AVIF": {"quality": quality}
        | ({"subsampling": "4:4:4"} if quality >= 90 and samples.shape[2] > 2 else {}),
        "PNG": {"compress_level": 1, "compress_type": zlib.Z_RLE},
    }.get(name, {})  # for photos a quarter of the time of the default, and smaller
    options |= {"icc_profile": icc} if icc else {}
    options |= (
        {"exif": exif} if exif and (name != "JPEG" or len(exif) <= MAX_JPEG_EXIF) else {}
    )  # bytes: Pillow edits an Exif object
    buffer = io.BytesIO()
    Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples).save(
        buffer, name, **options
    )
    return buffer.getvalue()


def _png16(samples: np.ndarray, icc: bytes | None, exif: bytes | None) -> bytes:
    """PNG with 16 bits (PNG specification, third edition): Pillow writes 8, OpenCV neither grey with alpha nor a profile."""
    height, width, channels = samples.shape
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0], filtered[0, 1:] = (
        2,
        rows[0],
    )  # filter 2, "up": a row is stored as its difference to the row above
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            png_chunk(
                b"IHDR",
                struct.pack(
                    ">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0
                ),
            ),
            png_chunk(b"iCCP", b"ICC profile\0\0", zlib.compress(icc)) if icc else b"",
            png_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")) if exif else b"",
            png_chunk(b"IDAT", packer.compress(filtered), packer.flush()),
            png_chunk(b"IEND"),
        ]
    )


def _tiff_file(samples: np.ndarray, icc: bytes | None, exif: bytes | None) -> bytes:
    """TIFF 6.0 in deflated strips. Pillow makes the directory, but not the file: it fails on some EXIF, and has no 16-bit colours."""
    height, width, channels = samples.shape
    rows = max(1, (1 << 20) // (width * channels * samples.itemsize))
    strips = [
        zlib.compress(samples[y : y + rows].astype(f"<u{samples.itemsize}").tobytes(), 1)
        for y in range(0, height, rows)
    ]
    tags, ifd = Image.Exif(), TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    tags.load(exif or b"")
    for tag in tags:
        ifd[tag] = tags.get_ifd(tag) if tag in (EXIF_IFD, GPS_IFD) else tags[tag]
    for tag, value in {
        256: width,
        257: height,
        258: (8 * samples.itemsize,) * channels,
        259: 8,
        262: 1 if channels < 3 else 2,
        277: channels,
        278: rows,
        **({338: 2} if channels in (2, 4) else {}),
        **({ICC_TAG: icc} if icc else {}),
    }.items():  # 338: plain alpha
        ifd[tag] = value
    ifd.tagtype[273] = ifd.tagtype[279] = (
        4  # strip offsets (from the end of the directory) and lengths, as LONG
    )
    lengths = [len(strip) for strip in strips]
    ifd[273], ifd[279] = (0, *itertools.accumulate(lengths[:-1])), tuple(lengths)
    buffer = io.BytesIO()
    ifd.save(buffer)
    return b"".join([buffer.getvalue(), *strips])
