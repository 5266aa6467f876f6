"""What lies between a file's bytes and its pixels: formats, depths, profiles, EXIF, and everything
that can be wrong with them.

    decode: format by content -> survey -> affordable? -> samples as stored, and what lies beside
    encode: samples -> bytes of one format, with profile, EXIF and the rest

Pillow decodes, except for what it would cut to 8 bits (`deep`) and for the formats of optional
packages (`foreign`). What a file may cost is `cost`'s business.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import re
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from . import beside as besides
from . import deep, foreign, tiff
from .beside import Beside
from .cost import Survey, afford, jpeg_scans, limit, png_chunk, survey
from .files import ImageError
from .metadata import clean_exif as clean_exif
from .metadata import fitting_icc as fitting_icc
from .metadata import has_location as has_location
from .metadata import resolution as resolution
from .metadata import to_srgb as to_srgb
from .metadata import with_resolution
from .metadata import without_location as without_location
from .quiet import QUIET
from .tiff import EXIF_IFD, GPS_IFD, ICC_TAG, ORIENTATION, sane_exif

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")  # MPO through JPEG's door
SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
SUFFIXES |= {".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".avif": "AVIF"}
DEEP = {"PNG", "TIFF"}  # keep 16 bits
LOSSLESS = {"PNG", "TIFF", "BMP"}  # come back bit for bit
SENSORS = {  # raw files that are no TIFF to the letter: (place, bytes) -> whose
    **{
        (0, b"FUJIFILMCCD-RAW"): "Fuji RAF",
        (0, b"FOVb"): "Sigma X3F",
        (0, b"\0MRM"): "Minolta MRW",
    },
    **{(0, b"IIRO"): "Olympus ORF", (0, b"IIRS"): "Olympus ORF", (0, b"MMOR"): "Olympus ORF"},
    **{
        (0, b"IIU\0"): "Panasonic RW2",
        (6, b"HEAPCCDR"): "Canon CRW",
        (4, b"ftypcrx "): "Canon CR3",
    },
    **{
        (8, b"CR\2\0"): "Canon CR2",
        (8, b"IIIITwaR"): "Phase One IIQ",
        (8, b"MMMMRawT"): "Phase One IIQ",
    },
}
ALPHA = {"PNG", "TIFF", "WEBP", "AVIF"}  # keep alpha
TAGGED = {*ALPHA, "JPEG"}  # keep ICC and EXIF
MAX_JPEG_EXIF = 65533  # bytes
STRIP = 256  # rows that are converted at once


class Raw(NamedTuple):
    """A decoded file before it is turned and scaled: uint8, uint16 or float samples, H×W×(1 grey, 2
    with alpha, 3 RGB, 4 RGBA).
    """

    samples: np.ndarray
    format: str
    icc: bytes | None = None
    exif: bytes | None = None  # as it was
    notes: tuple[str, ...] = ()
    turn: int = 1  # EXIF orientation
    beside: Beside = Beside()


def kind_of(data: bytes) -> str | None:
    Image.init()
    return foreign.kind_of(data[:256]) or next(
        (
            f
            for f in FORMATS
            if f in Image.OPEN and (accept := Image.OPEN[f][1]) and accept(data[:16]) is True
        ),
        None,
    )


def decode(data: bytes, who: str, max_pixels: int | None, page: int = 1) -> Raw:
    """Bytes of a file -> samples. The content decides the format, the header tells the size, and
    only then is anything decoded. page: of a TIFF, from 1."""
    if not data:
        raise ImageError("E_EMPTY", f"{who} is empty (0 bytes); copy or download it again")
    if maker := next((m for (at, mark), m in SENSORS.items() if data.startswith(mark, at)), None):
        raise undeveloped(who, maker)
    name = kind_of(data)
    if name is None:
        hint = f"give one of {', '.join((*FORMATS, *foreign.FORMATS))}"
        why = f"is no picture that can be read (it starts with {data[:8]!r})"
        raise ImageError("E_FORMAT", f"{who} {why}; {hint}")
    if name in ("PNG", "TIFF") and not whole(data, name):  # decoders take some of these for whole
        why = f"is truncated or damaged: the {name} data end too early; get it again"
        raise ImageError("E_TRUNCATED", f"{who} {why}")
    if name == "TIFF":
        return _tiff(data, who, max_pixels, page)
    if name in foreign.FORMATS:
        return _foreign(data, name, who, max_pixels)
    file = survey(data, name, who)
    if file.size:
        _afford(who, file, *file.size, 1, max_pixels)
    im = _open(name, file.data)
    if im.size != file.size:  # BMP and PPM; or a decoder that sees another header than we do
        _afford(who, file, *im.size, 2 if im.mode[0] in "IF" else 1, max_pixels)
    frames = file.frames
    if name == "JPEG":  # MPO
        frames = max(frames, getattr(im, "n_frames", 1))
    notes = (f"first of {frames} frames",) if frames > 1 else ()
    if name == "PPM" and im.tile[0][0] in ("ppm", "ppm_plain"):
        return Raw(_ppm(im, data), name, notes=notes)
    words = besides.read(data, name)
    if name == "AVIF" and len(im.info.get("xmp", b"")) <= besides.MOST:
        words = words._replace(xmp=im.info.get("xmp"))
    raw = from_pil(im, who, name, max_pixels, file.data, notes)
    return raw._replace(beside=words)


def _foreign(data: bytes, name: str, who: str, max_pixels: int | None) -> Raw:
    """Upright already, whatever its EXIF says."""
    got = foreign.decode(data, name, who, max_pixels)
    words = besides.read(data, name)
    words = words._replace(xmp=got.xmp if len(got.xmp or b"") <= besides.MOST else None)
    sane = not got.exif or sane_exif(got.exif)
    notes = got.notes if sane else (*got.notes, "EXIF ignored: unreadable")
    exif = got.exif if sane else None
    return Raw(got.samples, name, got.icc, exif, notes, beside=words)


def undeveloped(who: str, maker: str) -> ImageError:
    how = "develop it first: save it as a 16-bit TIFF with darktable, RawTherapee or the like"
    return ImageError("E_FORMAT", f"{who} holds a camera's raw sensor data ({maker}); {how}")


def _open(name: str, data: bytes | bytearray) -> ImageFile.ImageFile:
    """The plugin itself, not Image.open: that asks a global pixel limit (ours is an argument), and
    raises KeyError where "MPO" is listed."""
    return Image.OPEN[name][0](io.BytesIO(data), "")


def _afford(who: str, file: Survey, width: int, height: int, size: int, most: int | None) -> None:
    """Refuse what costs too much: decoding takes file.memory beside Pillow's four bytes; then up to
    four samples of `size` bytes, colours and alpha live together."""
    beside = file.memory + 4 + 4 * size if file.memory < 16 else 0
    memory = max(file.memory, beside, 7 * size + 4)
    afford(who, width, height, most, memory, file.work, file.payload, file.packed)


def _ppm(im: ImageFile.ImageFile, data: bytes) -> np.ndarray:
    """Samples of a PPM that Pillow would read in a loop: in digits, or whose largest sample is not
    one of a whole type."""
    tile: Any = im.tile[0]
    decoder, _, start, options = tile[:4]
    shape = (im.height, im.width, 3 if im.mode == "RGB" else 1)
    top = 1 if im.mode == "1" else options[1]
    if decoder == "ppm":
        kind = ">u2" if top > 255 else np.uint8
        values = np.frombuffer(data, kind, math.prod(shape), start)
    else:
        values = _digits(data[start:], math.prod(shape), top, im.mode == "1")
    values = values.reshape(shape)
    out = np.empty(shape, np.uint16 if top > 255 else np.uint8)
    scale = np.iinfo(out.dtype).max
    for y in range(0, im.height, STRIP):
        levels = values[y : y + STRIP] / np.float32(top) * scale + np.float32(0.5)
        out[y : y + STRIP] = np.minimum(levels, scale)
    return out


def _digits(data: bytes, count: int, top: int, bits: bool) -> np.ndarray:
    """`count` numbers of 0..top in digits.

    Of bits, digits need no space between them, 1 is black.
    """
    text = re.sub(rb"#[^\r\n]*", b" ", data)
    if text.translate(None, b"0123456789 \t\n\v\f\r"):
        raise ValueError("it holds what is no number")
    if bits:
        digits = np.frombuffer(text.translate(None, b" \t\n\v\f\r"), np.uint8)[:count]
        values = np.where(digits < 50, 49 - digits.astype(int), 2)
    else:  # given a count, fromstring would make up what is missing
        values = np.fromstring(text.decode(), np.float64, sep=" ")[:count]
    if len(values) < count or not values.max() <= top:
        raise ValueError("truncated" if len(values) < count else f"a sample is more than {top}")
    return values


def from_pil(
    im: Image.Image,
    who: str,
    name: str,
    max_pixels: int | None,
    data: bytes = b"",
    notes: tuple[str, ...] = (),
) -> Raw:
    """An opened, not yet decoded PIL image -> samples. `data` is its file, where there is one, for
    what Pillow would cut to 8 bits."""
    limit(who, *im.size, max_pixels)
    frames = 1 if data else getattr(im, "n_frames", 1)
    if frames > 1:
        notes += (f"first of {frames} frames",)
    block = im.info.get("exif")
    if name != "TIFF" and block and not sane_exif(block):
        del im.info["exif"]
        notes += ("EXIF ignored: unreadable",)
    sixteen = name == "PNG" and data[24:25] == b"\x10" and data[25]  # and not plain grey
    if not sixteen:
        im.load()  # this also turns a TIFF upright and takes its tag away: asked for afterwards
    if data:  # what the decoders of WebP and AVIF hold is as large as the picture
        im.__dict__.pop("_decoder", None)
        if isinstance(im, ImageFile.ImageFile):
            im.fp = None
    icc = im.info.get("icc_profile")
    turn, exif = _tags(im)
    if exif is None and im.info.get("exif"):
        notes += ("EXIF ignored: unreadable",)
    if im.mode in ("CMYK", "LAB") and not sixteen:
        im, note = to_srgb(im, icc)
        notes, icc = (*notes, note), None
    samples = deep.png_samples(data, im.size, who) if sixteen else _samples(im, who, name)
    words = Beside() if data else _said(im)
    if data:
        im.close()
    return Raw(samples, im.format or name, icc, exif, notes, turn, words)


def _said(im: Image.Image) -> Beside:
    """What a PIL image of someone else's says beside its pixels."""
    xmp, comment, dpi = (im.info.get(name) for name in ("xmp", "comment", "dpi"))
    comment = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else comment
    texts = ((besides.COMMENT, comment),) if isinstance(comment, str) else ()
    good = isinstance(dpi, tuple) and len(dpi) == 2 and all(1 <= n <= 30_000 for n in dpi)
    xmp = xmp if isinstance(xmp, bytes) and len(xmp) <= besides.MOST else None
    return Beside(xmp, texts=texts, dpi=tuple(map(float, dpi)) if good else None)


def _tags(im: Image.Image) -> tuple[int, bytes | None]:
    """The turn first: it must not be lost with a tag that cannot be written again; and the EXIF."""
    turn, exif = 1, None
    with contextlib.suppress(Exception):
        tags = Image.Image.getexif(im)  # that of a PNG would decode it first
        turn = tags.get(ORIENTATION, 1)
        exif = tags.tobytes() if len(tags) else None
    return turn, exif


def _samples(im: Image.Image, who: str, name: str) -> np.ndarray:
    """H×W×C of a decoded PIL image, in its own depth.

    A colour that is said to be clear is alpha.
    """
    clear = im.info.get("transparency")
    if im.mode.startswith("I;16") or im.mode == "I" and name == "PPM":
        samples = np.asarray(im).astype(np.uint16)[..., None]
        if not isinstance(clear, int):
            return samples
        alpha = np.where(samples == clear, 0, 65535).astype(np.uint16)
        return np.concatenate([samples, alpha], 2)
    if im.mode == "I":
        why = "has 32-bit integers of unknown range; save it with 8 or 16 bits or as floats in 0..1"
        raise ImageError("E_FORMAT", f"{who} {why}")
    if im.mode == "F":
        return np.asarray(im)[..., None]
    own = {"1": "L", "L": "L", "LA": "LA", "La": "LA"}
    own |= {"RGBa": "RGBA", "RGBA": "RGBA", "PA": "RGBA"}
    mode = own.get(im.mode, "RGB")
    if clear is not None and mode[-1] != "A":  # tRNS: one colour, or an alpha for each entry
        mode += "A"
    samples = np.empty((im.height, im.width, len(mode)), np.uint8)
    for y in range(0, im.height, STRIP):  # Pillow makes two copies of what it hands over
        strip = im.crop((0, y, im.width, min(y + STRIP, im.height)))
        strip = strip if strip.mode == mode else strip.convert(mode)
        samples[y : y + STRIP] = np.asarray(strip).reshape(-1, im.width, len(mode))
    return samples


def _tiff(data: bytes, who: str, max_pixels: int | None, page: int) -> Raw:
    """Pillow decodes, except 16-bit, float and giant TIFF, which it would cut or refuse."""
    book = tiff.book(data)
    if book.raw:
        raise undeveloped(who, "DNG, NEF, ARW or the like")
    frames = len(book.pages)
    if not 1 <= page <= frames:
        raise ImageError("E_FORMAT", f"{who} has {frames} pages, asked for {page}")
    data = tiff.opened_at(data, book.pages[page - 1])
    file = tiff.layout(data)
    limit(who, file.width, file.height, max_pixels)
    if not tiff.sane_exif(data):
        why = "is a TIFF whose tags point at the same bytes again and again; save it again"
        raise ImageError("E_FORMAT", f"{who} {why}")
    payload = file.payload(data)
    scans = 1.0
    if file.compression == tiff.JPEG and payload:
        scans = sum(len(jpeg_scans(bytes(part), who)[1]) for part in payload) / len(payload)
    memory, work = file.cost(scans)
    packed = file.compression != tiff.PLAIN
    afford(who, file.width, file.height, max_pixels, memory, work, payload, packed)
    notes = ()
    if frames > 1:
        more = " or more" if frames == tiff.MOST_PAGES else ""
        which = "first" if page == 1 else f"number {page}"
        notes = (f"{which} of {frames} frames{more}",)
    words = besides.read(data, "TIFF")
    most = Image.MAX_IMAGE_PIXELS
    giant = most is not None and file.width * file.height > 2 * most
    if file.dtype is None or not file.deep and not giant:
        raw = from_pil(_open("TIFF", data), who, "TIFF", max_pixels, data, notes)
        return raw._replace(beside=words)
    samples, turn = deep.tiff_samples(data, file, who), file.turn or 1
    return Raw(samples, "TIFF", file.icc, data, notes, turn, words)


@contextlib.contextmanager
def guard(who: str, data: bytes = b""):
    """Whatever the decoders raise (OSError, ValueError, SyntaxError, RuntimeError, KeyError,
    struct.error, ...) leaves as an ImageError.
    """
    try:
        with QUIET:
            yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, MemoryError) as e:
        raise ImageError("E_TOO_LARGE", f"{who} is too large: {e or 'not enough memory'}") from e
    except Exception as e:
        raise _refusal(e, who, data) from e


def _refusal(e: Exception, who: str, data: bytes) -> ImageError:
    """What a decoder said, as an error with a code."""
    name = kind_of(data) if data else None
    text = str(e).removesuffix("not identified by this driver") or type(e).__name__
    words = ("truncat", "not enough", "smaller than", "end of", "eof")
    words += ("bmff parsing",)  # AVIF's, of a cut header
    if not whole(data, name) or any(word in text.lower() for word in words):
        why = f"is truncated or damaged: the {name or 'file'} ends too early; get it again"
        return ImageError("E_TRUNCATED", f"{who} {why}")
    why = f"is a damaged or unsupported {name or 'kind of'} picture: {text}"
    return ImageError("E_TOO_LARGE" if "too large" in text else "E_FORMAT", f"{who} {why}")


def whole(data: bytes, name: str | None) -> bool:
    """False when the end of the file is surely missing."""
    if name == "TIFF":
        return tiff.complete(data)
    if name == "GIF":
        return data.rstrip(b"\0").endswith(b";")
    if name == "WEBP":
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    return {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}.get(name or "", b"") in data


def decoded_size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) of a file of ours, decoded to the end, without the array that `decode` would
    make of it.
    """
    im = _open(name, data)
    im.load()
    return im.height, im.width


def writable(name: str) -> str:
    Image.init()
    can = {suffix: format for suffix, format in SUFFIXES.items() if format in Image.SAVE}
    ending = next((suffix for suffix in can if name.lower().endswith(suffix)), None)
    if ending is None:
        why = f"names no format to write; end it with one of {' '.join(can)}"
        raise ImageError("E_FORMAT", f"{os.path.basename(name)!r} {why}")
    return can[ending]


def encode(
    samples: np.ndarray,
    name: str,
    icc: bytes | None,
    exif: bytes | None,
    quality: int,
    beside: Beside = Beside(),
) -> bytes:
    """H×W×C samples -> bytes of one format; PNG in runs takes a quarter of the default's time, and
    is smaller for photos. beside: as much of it as the format holds is written."""
    words = besides.fitting(beside, name)
    if name == "TIFF":
        return _tiff_file(samples, icc, exif, words)
    chunks = b"".join(besides.png_parts(words)) if name == "PNG" else b""
    if samples.dtype == np.uint16:
        return _png16(samples, icc, exif, chunks)
    full = quality >= 90  # colours at full size
    options = {
        "JPEG": {"quality": quality, "subsampling": 0 if full else 2},
        "WEBP": {"quality": quality, "exact": True},
        "AVIF": {"quality": quality},
        "PNG": {"compress_level": 1, "compress_type": zlib.Z_RLE},
    }.get(name, {})
    if name == "AVIF" and full and samples.shape[2] > 2:
        options["subsampling"] = "4:4:4"
    if name == "JPEG":
        options |= besides.jpeg_options(words)
    elif name == "BMP":
        options["dpi"] = words.dpi or (0, 0)  # Pillow would say 96
    elif name in ("WEBP", "AVIF"):
        exif = with_resolution(exif, words.dpi) if words.dpi else exif
        options |= {"xmp": words.xmp} if words.xmp else {}
    if icc:
        options["icc_profile"] = icc
    if exif and (name != "JPEG" or len(exif) <= MAX_JPEG_EXIF):
        options["exif"] = exif  # bytes: Pillow edits an Exif object
    buffer = io.BytesIO()
    plain = samples[..., 0] if samples.shape[2] == 1 else samples
    Image.fromarray(plain).save(buffer, name, **options)
    data = buffer.getvalue()
    return data[:33] + chunks + data[33:] if chunks else data  # behind the header


def _png16(
    samples: np.ndarray, icc: bytes | None, exif: bytes | None, chunks: bytes = b""
) -> bytes:
    """PNG with 16 bits (PNG specification, third edition): Pillow writes 8, OpenCV neither grey
    with alpha nor a profile."""
    height, width, channels = samples.shape
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2  # "up": a row is stored as its difference to the row above
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", head), chunks]
    if icc:
        parts.append(png_chunk(b"iCCP", b"ICC profile\0\0", zlib.compress(icc)))
    if exif:
        parts.append(png_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    parts.append(png_chunk(b"IDAT", packer.compress(filtered.data), packer.flush()))
    return b"".join([*parts, png_chunk(b"IEND")])


def _tiff_file(
    samples: np.ndarray, icc: bytes | None, exif: bytes | None, words: Beside = Beside()
) -> bytes:
    """TIFF 6.0 in deflated strips. Pillow makes the directory, but not the file: it fails on some
    EXIF, and has no 16-bit colours."""
    height, width, channels = samples.shape
    rows = max(1, (1 << 20) // (width * channels * samples.itemsize))
    kind = f"<u{samples.itemsize}"
    strips = [
        zlib.compress(samples[y : y + rows].astype(kind).tobytes(), 1)
        for y in range(0, height, rows)
    ]
    tags, ifd = Image.Exif(), TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    tags.load(exif or b"")
    for tag in tags:
        ifd[tag] = tags.get_ifd(tag) if tag in (EXIF_IFD, GPS_IFD) else tags[tag]
    bits = (8 * samples.itemsize,) * channels
    colour = 1 if channels < 3 else 2
    ours = {256: width, 257: height, 258: bits, 259: 8, 262: colour, 277: channels, 278: rows}
    if channels in (2, 4):
        ours[338] = 2  # plain alpha
    if icc:
        ours[ICC_TAG] = icc
    if words.xmp:
        ours[700] = words.xmp
    if words.iptc:
        ours[33723] = words.iptc
    if words.dpi:
        ours |= {282: words.dpi[0], 283: words.dpi[1], 296: 2}
    for tag, value in ours.items():
        ifd[tag] = value
    ifd.tagtype[273] = ifd.tagtype[279] = 4  # LONG
    lengths = [len(strip) for strip in strips]
    ifd[273] = (0, *itertools.accumulate(lengths[:-1]))  # from the end of the directory
    ifd[279] = tuple(lengths)
    buffer = io.BytesIO()
    ifd.save(buffer)
    return b"".join([buffer.getvalue(), *strips])
