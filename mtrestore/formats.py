"""What lies between a file's bytes and its pixels: formats, depths, profiles, EXIF, and everything that can be wrong with them.

    decode: format by content -> pixel limit by header -> whole? -> samples as the file stores them, with profile, EXIF and turn
    encode: samples -> bytes of one format, with profile and EXIF

Pillow decodes, except for what it would cut to 8 bits or refuse: that goes to OpenCV and tifffile, from memory and never by name.
"""
from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import re
import struct
import threading
import warnings
import zlib
from typing import NamedTuple

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from .files import ImageError
from .lines import shown

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")     # what is decoded; MPO (phones) comes through JPEG's door
SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".avif": "AVIF"}
DEEP, LOSSLESS = {"PNG", "TIFF"}, {"PNG", "TIFF", "BMP"}     # keep 16 bits; come back bit for bit
ALPHA, TAGGED = {"PNG", "TIFF", "WEBP", "AVIF"}, {"PNG", "TIFF", "WEBP", "AVIF", "JPEG"}     # keep alpha; keep ICC and EXIF
MAX_PIXELS, MAX_JPEG_EXIF = 200_000_000, 65533
PLENTY, PACKED = 16_000_000, 256     # a picture of more pixels than PLENTY has a byte for every PACKED of them, or it is a bomb
MOST_SCANS, MOST_PLAIN, MOST_PAGES = 200, 8 << 20, 10_000     # of a progressive JPEG; bytes of a PPM in digits, decoded slowly; TIFF pages counted
ORIENTATION, EXIF_IFD, GPS_IFD, ICC_TAG = 0x0112, 0x8769, 0x8825, 34675
TIFF_KEPT = {270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, EXIF_IFD, GPS_IFD}     # about the picture; the rest is about the file


class Raw(NamedTuple):
    """A decoded file before it is turned and scaled: uint8, uint16 or float samples, H×W×(1 grey, 2 with alpha, 3 RGB, 4 RGBA)."""

    samples: np.ndarray
    format: str
    icc: bytes | None = None
    exif: bytes | None = None     # as it was
    notes: tuple[str, ...] = ()
    turn: int = 1     # EXIF orientation


def kind_of(data: bytes) -> str | None:
    Image.init()
    return next((f for f in FORMATS if f in Image.OPEN and Image.OPEN[f][1](data[:16]) is True), None)


def decode(data: bytes, who: str, max_pixels: int | None) -> Raw:
    """Bytes of a file -> samples. The content decides the format, the header tells the size, and only then is anything decoded."""
    if not data:
        raise ImageError("E_EMPTY", f"{who} is empty (0 bytes); copy or download it again")
    name = kind_of(data)
    if name is None:
        hint = "is it HEIC? convert it to JPEG" if data[4:8] == b"ftyp" else f"give one of {', '.join(FORMATS)}"
        raise ImageError("E_FORMAT", f"{who} is no picture that can be read (it starts with {data[:8]!r}); {hint}")
    if name == "JPEG" and len(re.findall(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)", data)) > MOST_SCANS:     # a small file that takes minutes
        raise ImageError("E_TOO_LARGE", f"{who} is a JPEG in more than {MOST_SCANS} scans; save it again")
    if data[:2] in (b"P1", b"P2", b"P3") and len(data) > MOST_PLAIN:
        raise ImageError("E_TOO_LARGE", f"{who} has {len(data)} bytes of digits, the limit is {MOST_PLAIN}; save it as a binary PPM or PNG")
    if name in ("PNG", "TIFF") and not whole(data, name):     # the decoders take some of these for whole
        raise ImageError("E_TRUNCATED", f"{who} is truncated or damaged: the {name} data end too early; get it again")
    raw, notes = _tiff(data, who, max_pixels) if name == "TIFF" else (None, ())
    # The plugin itself, not Image.open: that asks a global pixel limit (ours is an argument), and raises KeyError where "MPO" is listed.
    return raw or from_pil(Image.OPEN[name][0](io.BytesIO(data), ""), who, name, max_pixels, data, notes)


def limit(who: str, width: int, height: int, max_pixels: int | None, data: bytes = b"") -> None:
    """Refuse a size before anything of that size is made: none, too many pixels, or, unless `max_pixels` is given, many from hardly any bytes."""
    most = max_pixels or MAX_PIXELS
    if width * height > most:
        raise ImageError("E_TOO_LARGE", f"{who} has {width}×{height} pixels, the limit is {most}; shrink it or raise max_pixels")
    if data and not max_pixels and width * height > max(PLENTY, PACKED * len(data)):
        raise ImageError("E_TOO_LARGE", f"{who} unpacks {width}×{height} pixels from {len(data)} bytes, as bombs do; shrink it or give max_pixels")
    if not width or not height:
        raise ImageError("E_FORMAT", f"{who} has no pixels ({width}×{height})")


def from_pil(im: Image.Image, who: str, name: str, max_pixels: int | None, data: bytes = b"", notes: tuple[str, ...] = ()) -> Raw:
    """An opened, not yet decoded PIL image -> samples. `data` is its file, where there is one, for what Pillow would cut to 8 bits."""
    limit(who, *im.size, max_pixels, data)
    if name != "TIFF" and getattr(im, "is_animated", False):     # a GIF is walked to count its frames: only small ones
        notes += (f"first of {im.n_frames} frames" if name != "GIF" or len(data) < 1 << 20 else "first of several frames",)
    if name == "PPM" and im.mode == "RGB" and data and im.tile[0][0] == "ppm" and (top := im.tile[0][3][1]) > 255:
        samples = np.frombuffer(data, ">u2", 3 * im.width * im.height, im.tile[0][2]).reshape(im.height, im.width, 3)
        return Raw((samples / np.float32(top) * 65535 + np.float32(0.5)).astype(np.uint16), name, notes=notes)
    im.load()     # this also turns a TIFF upright and takes its tag away, so the tag is asked for afterwards
    turn, exif, icc, mode, clear = 1, None, im.info.get("icc_profile"), im.mode, im.info.get("transparency")
    with contextlib.suppress(Exception):     # the turn first: it must not be lost with a tag that cannot be written again
        turn = im.getexif().get(ORIENTATION, 1)
        exif = im.getexif().tobytes() if len(im.getexif()) else None
    if exif is None and im.info.get("exif"):
        notes += ("EXIF ignored: unreadable",)
    if name == "PNG" and data[24:25] == b"\x10" and data[25]:     # 16 bits and not plain grey: Pillow checked the file, but keeps 8 bits
        samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if samples is None or samples.dtype != np.uint16 or samples.shape[:2] != im.size[::-1] or samples.ndim != 3:
            raise ImageError("E_FORMAT", f"{who} is a 16-bit PNG that cannot be decoded; save it again")
        samples = samples[..., [0, 3]] if data[25] == 4 else samples[..., [2, 1, 0, 3][:samples.shape[2]]]
    elif mode.startswith("I;16") or mode == "I" and name == "PPM":
        samples = np.asarray(im).astype(np.uint16)[..., None]
        if isinstance(clear, int):
            samples = np.concatenate([samples, np.where(samples == clear, 0, 65535).astype(np.uint16)], 2)
    elif mode == "I":
        raise ImageError("E_FORMAT", f"{who} has 32-bit integers of unknown range; save it with 8 or 16 bits or as floats in 0..1")
    elif mode == "F":
        samples = np.asarray(im)[..., None]
    else:
        if mode in ("CMYK", "LAB"):
            im, note = to_srgb(im, icc)
            notes, icc = (*notes, note), None
        target = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "RGBa": "RGBA", "RGBA": "RGBA", "PA": "RGBA"}.get(im.mode, "RGB")
        target = target if clear is None or target[-1] == "A" else target + "A"     # tRNS: one colour, or one alpha for each palette entry
        samples = np.asarray(im if im.mode == target else im.convert(target))
        samples = samples if samples.ndim == 3 else samples[..., None]
    return Raw(samples, im.format or name, icc, exif, notes, turn)


def _tiff(data: bytes, who: str, max_pixels: int | None) -> tuple[Raw | None, tuple[str, ...]]:
    """What Pillow would cut to 8 bits or refuse: 16-bit, float and giant TIFF. For the others None, and the note about their pages."""
    try:
        tif = tifffile.TiffFile(io.BytesIO(data))
        page = tif.pages[0]
        width, height, channels, kind = page.imagewidth, page.imagelength, page.samplesperpixel, int(page.photometric)
        pieces, packed = list(zip(page.dataoffsets, page.databytecounts)), page.compression in (8, 32946)
    except Exception:
        return None, ()     # Pillow will say what is wrong
    notes = (f"first of {frames} frames{' or more' * (frames == MOST_PAGES)}",) if (frames := _tiff_pages(data)) > 1 else ()
    limit(who, width, height, max_pixels, data)
    if any(at + n > len(data) for at, n in pieces):
        raise ImageError("E_TRUNCATED", f"{who} is truncated or damaged: the TIFF data end too early; get it again")
    giant = Image.MAX_IMAGE_PIXELS is not None and width * height > 2 * Image.MAX_IMAGE_PIXELS
    if page.dtype is None or page.dtype.str[1:] not in (("u1",) if giant else ()) + ("u2", "f2", "f4", "f8"):
        return None, notes
    if channels not in {0: (1,), 1: (1, 2), 2: (3, 4)}.get(kind, ()):
        raise ImageError("E_FORMAT", f"{who} is a {page.dtype} TIFF of {channels} samples and colour kind {kind}; save it as grey or RGB")
    if packed or page.compression == 1:
        most = width * height * channels * page.dtype.itemsize + (16 << 20)     # one strip or tile may not unpack to more
        if packed and any(len(zlib.decompressobj().decompress(data[at:at + n], most + 1)) > most for at, n in pieces):
            raise ImageError("E_TOO_LARGE", f"{who} unpacks to more than its header says")
        samples = page.asarray()
        samples = np.moveaxis(samples, 0, -1) if page.planarconfig == 2 and channels > 1 else samples
    else:     # LZW and others: OpenCV brings libtiff; the turn is taken out of the bytes, since it is applied or not, by version
        plain = bytearray(data)
        if ORIENTATION in page.tags:
            at = page.tags[ORIENTATION].valueoffset
            plain[at:at + 2] = (1).to_bytes(2, "little" if data[:1] == b"I" else "big")
        samples = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED) if page.planarconfig == 1 and channels != 2 else None
        if samples is None or samples.dtype != page.dtype.newbyteorder("="):
            raise ImageError("E_FORMAT", f"{who} is a {page.dtype} TIFF whose compression cannot be decoded; save it without")
        samples = samples[..., [2, 1, 0, 3][:channels]] if channels > 2 else samples
    samples = samples.reshape(height, width, channels)
    top = np.iinfo(samples.dtype).max if samples.dtype.kind == "u" else 1
    if kind == 0:     # white is zero
        samples = top - samples
    if channels == 4 and page.extrasamples[:1] == (0,):     # a fourth channel that is no alpha
        samples = samples[..., :3]
    elif channels in (2, 4) and page.extrasamples[:1] == (1,):     # colours multiplied with alpha
        with np.errstate(divide="ignore", invalid="ignore"):
            colours = np.nan_to_num(samples[..., :-1] / samples[..., -1:].astype(np.float32) * top, posinf=0)
        samples = np.concatenate([np.clip(colours + (top > 1) / 2, 0, top).astype(samples.dtype), samples[..., -1:]], 2)
    icc, turn = (page.tags[tag].value if tag in page.tags else None for tag in (ICC_TAG, ORIENTATION))
    return Raw(samples, "TIFF", icc, data, notes, turn), ()


def clean_exif(exif: bytes | None, tiff: bool) -> tuple[bytes | None, tuple[str, ...]]:
    """What is worth keeping of an EXIF block, or of a whole TIFF file, which has the same structure, and notes."""
    tags = Image.Exif()
    try:
        tags.load(exif or b"")
        for tag in [t for t in tags if t == ORIENTATION or tiff and t not in TIFF_KEPT]:
            del tags[tag]
        for tag in (0xA002, 0xA003) if EXIF_IFD in tags else ():     # width and height before turning and enlarging
            tags.get_ifd(EXIF_IFD).pop(tag, None)
        return tags.tobytes() if len(tags) else None, ()     # this leaves out IFD1, the thumbnail
    except Exception:
        return None, ("EXIF ignored: unreadable",)


def fitting_icc(icc: bytes | None, grey: bool) -> tuple[bytes | None, tuple[str, ...]]:
    """The profile if it fits the pixels, and what to say of it."""
    if not icc:
        return None, ()
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space, name = profile.profile.xcolor_space.strip(), shown(ImageCms.getProfileDescription(profile).strip())
    except Exception:
        return None, ("ICC profile ignored: unreadable",)
    if space != ("GRAY" if grey else "RGB"):
        return None, (f"ICC profile ignored: {name} is for {space}",)
    return icc, (f"ICC profile kept: {name}",)


def to_srgb(im: Image.Image, icc: bytes | None) -> tuple[Image.Image, str]:
    """Any colours -> sRGB, through the profile where there is a usable one."""
    try:
        source = ImageCms.createProfile("LAB") if im.mode == "LAB" else ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return ImageCms.profileToProfile(im, source, ImageCms.createProfile("sRGB"), outputMode="RGB"), f"{im.mode} converted to sRGB"
    except Exception:     # no profile, rubbish, or one for other colours
        return im.convert("RGB"), f"{im.mode} converted to sRGB without a profile"


class _Quiet:
    """While a reader is inside: truncated files fail whatever others told Pillow; Pillow, tifffile and OpenCV neither warn nor log."""

    def __init__(self):
        self.lock, self.inside, self.stack = threading.Lock(), 0, contextlib.ExitStack()

    def __enter__(self):
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.stack.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module="PIL|tifffile")
                self.stack.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
                ImageFile.LOAD_TRUNCATED_IMAGES = False
                for logger in (logging.getLogger("PIL"), logging.getLogger("tifffile")):
                    self.stack.callback(logger.setLevel, logger.level)
                    logger.setLevel(logging.CRITICAL + 1)
                self.stack.callback(cv2.utils.logging.setLogLevel, cv2.utils.logging.getLogLevel())
                cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

    def __exit__(self, *_):
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.stack.close()


_QUIET = _Quiet()


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
        name, text = data and kind_of(data), str(e).removesuffix("not identified by this driver") or type(e).__name__
        words = ("truncat", "not enough", "smaller than", "end of", "eof", "bmff parsing")     # the last is AVIF's, of a cut header
        if not whole(data, name) or any(word in text.lower() for word in words):
            raise ImageError("E_TRUNCATED", f"{who} is truncated or damaged: the {name or 'file'} ends too early; get it again") from e
        code = "E_TOO_LARGE" if "too large" in text else "E_FORMAT"
        raise ImageError(code, f"{who} is a damaged or unsupported {name or 'kind of'} picture: {text}") from e


def _tiff_directory(data: bytes, at: int = 0) -> tuple[int, int, int, str, int]:
    """Of a directory, the first unless `at` says: where its entries begin, how many, where the next directory is, how an entry is packed."""
    order, big = "<" if data[:1] == b"I" else ">", 43 in data[2:4]
    word, short, entry, inline = ("Q", "Q", "HHQQ", 8) if big else ("I", "H", "HHII", 4)
    at = at or struct.unpack_from(order + word, data, 8 if big else 4)[0]
    (n,) = struct.unpack_from(order + short, data, at)
    start = at + struct.calcsize(short)
    end = start + n * struct.calcsize(order + entry)
    after = struct.unpack_from(order + word, data, end)[0] if end + struct.calcsize(order + word) <= len(data) else 0
    return start, n, after, order + entry, inline


def _tiff_pages(data: bytes) -> int:
    """Pages of a TIFF, counted up to MOST_PAGES: directories may lead round in a circle, where tifffile would count for ever."""
    seen, at = set(), 0
    with contextlib.suppress(struct.error, OverflowError):
        while len(seen) < MOST_PAGES:
            start, _, after, *_ = _tiff_directory(data, at)
            if start in seen:
                break
            seen.add(start)
            if not (at := after):
                break
    return len(seen)


def whole(data: bytes, name: str | None) -> bool:
    """False when the end of the file is surely missing."""
    if name == "TIFF":     # all that the first directory points at
        try:
            at, n, _, entry, inline = _tiff_directory(data)
            entries = list(struct.iter_unpack(entry, data[at:at + n * struct.calcsize(entry)]))
        except (struct.error, IndexError, OverflowError):     # outside the file, or outside any file
            return False
        sizes = [count * (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)[kind % 19] for _, kind, count, _ in entries]
        return len(entries) == n and all(size <= inline or e[3] + size <= len(data) for size, e in zip(sizes, entries))
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
        raise ImageError("E_FORMAT", f"{os.path.basename(name)!r} names no format to write; end it with one of {' '.join(can)}")
    return can[ending]


def encode(samples: np.ndarray, name: str, icc: bytes | None, exif: bytes | None, quality: int) -> bytes:
    if name == "TIFF" or samples.dtype == np.uint16:
        return (_tiff_file if name == "TIFF" else _png16)(samples, icc, exif)
    options = {"JPEG": {"quality": quality, "subsampling": 0 if quality >= 90 else 2}, "WEBP": {"quality": quality, "exact": True},
               "AVIF": {"quality": quality} | ({"subsampling": "4:4:4"} if quality >= 90 and samples.shape[2] > 2 else {}),
               "PNG": {"compress_level": 1, "compress_type": zlib.Z_RLE}}.get(name, {})     # for photos a quarter of the time of the default, and smaller
    options |= {"icc_profile": icc} if icc else {}
    options |= {"exif": exif} if exif and (name != "JPEG" or len(exif) <= MAX_JPEG_EXIF) else {}     # bytes: Pillow edits an Exif object
    buffer = io.BytesIO()
    Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples).save(buffer, name, **options)
    return buffer.getvalue()


def _png16(samples: np.ndarray, icc: bytes | None, exif: bytes | None) -> bytes:
    """PNG with 16 bits (PNG specification, third edition): Pillow writes 8, OpenCV neither grey with alpha nor a profile."""
    def chunk(kind: bytes, *parts: bytes) -> bytes:
        body = kind + b"".join(parts)
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    height, width, channels = samples.shape
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0], filtered[0, 1:] = 2, rows[0]     # filter 2, "up": a row is stored as its difference to the row above
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    return b"".join([
        b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)),
        chunk(b"iCCP", b"ICC profile\0\0", zlib.compress(icc)) if icc else b"",
        chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")) if exif else b"",
        chunk(b"IDAT", packer.compress(filtered), packer.flush()), chunk(b"IEND")])


def _tiff_file(samples: np.ndarray, icc: bytes | None, exif: bytes | None) -> bytes:
    """TIFF 6.0 in deflated strips. Pillow makes the directory, but not the file: it fails on some EXIF, and has no 16-bit colours."""
    height, width, channels = samples.shape
    rows = max(1, (1 << 20) // (width * channels * samples.itemsize))
    strips = [zlib.compress(samples[y:y + rows].astype(f"<u{samples.itemsize}").tobytes(), 1) for y in range(0, height, rows)]
    tags, ifd = Image.Exif(), TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    tags.load(exif or b"")
    for tag in tags:
        ifd[tag] = tags.get_ifd(tag) if tag in (EXIF_IFD, GPS_IFD) else tags[tag]
    for tag, value in {256: width, 257: height, 258: (8 * samples.itemsize,) * channels, 259: 8, 262: 1 if channels < 3 else 2, 277: channels, 278: rows,
                       **({338: 2} if channels in (2, 4) else {}), **({ICC_TAG: icc} if icc else {})}.items():     # 338: plain alpha
        ifd[tag] = value
    ifd.tagtype[273] = ifd.tagtype[279] = 4     # strip offsets (from the end of the directory) and lengths, as LONG
    lengths = [len(strip) for strip in strips]
    ifd[273], ifd[279] = (0, *itertools.accumulate(lengths[:-1])), tuple(lengths)
    buffer = io.BytesIO()
    ifd.save(buffer)
    return b"".join([buffer.getvalue(), *strips])
