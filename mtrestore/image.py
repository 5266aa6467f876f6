"""The photo convention, the one reader and the one writer.

A *photo* is a float32 array, RGB, H×W×3, in 0..1; a *tensor* is B×3×H×W in 0..1; only this file turns one into the other. A `Picture` is
a photo plus what its file said beside the colours: alpha, grey, 16 bits, ICC profile, EXIF.

    read:   regular file -> bytes -> format by content -> pixel limit by header -> decode -> turn upright -> 0..1
    write:  round -> encode -> decode and compare -> temporary name -> fsync -> read back -> rename

Whatever is wrong with a file leaves as one `ImageError` with a code.
"""
from __future__ import annotations

import contextlib
import errno
import io
import itertools
import logging
import os
import secrets
import stat
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

Photo = np.ndarray

if TYPE_CHECKING:
    import torch

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")     # what is decoded; MPO (phones) comes through JPEG's door
SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".avif": "AVIF"}
DEEP, LOSSLESS = {"PNG", "TIFF"}, {"PNG", "TIFF", "BMP"}     # keep 16 bits; come back bit for bit
ALPHA, TAGGED = {"PNG", "TIFF", "WEBP", "AVIF"}, {"PNG", "TIFF", "WEBP", "AVIF", "JPEG"}     # keep alpha; keep ICC and EXIF
MAX_BYTES, MAX_PIXELS, MAX_JPEG_EXIF = 256 << 20, 200_000_000, 65533
ORIENTATION, EXIF_IFD, GPS_IFD, ICC_TAG = 0x0112, 0x8769, 0x8825, 34675
TIFF_KEPT = {270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, EXIF_IFD, GPS_IFD}     # about the picture; the rest is about the file


def _line(text: str) -> str:
    """Text from outside on one printable line: control characters, turns of writing and surrogates escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class ImageError(ValueError):
    """A file or an array that is no usable picture. `.code` is for programs, `str(error)` is one line for people.

    Codes: E_MISSING E_NAME E_NOT_A_FILE E_PERMISSION E_EMPTY E_TRUNCATED E_FORMAT E_TOO_LARGE E_NONFINITE E_WRITE.
    """

    def __init__(self, code: str, message: str):
        super().__init__(code, _line(message))     # both in args: it has to pickle
        self.code = code

    def __str__(self) -> str:
        return self.args[1]


@dataclass(frozen=True, eq=False)
class Picture:
    """A photo and what its file said beside it.

    pixels: float32 H×W×3, RGB, 0..1, upright (a grey picture has three equal channels). alpha: float32 H×W 0..1 or None, not premultiplied.
    bits: 8 or 16, the depth to write again. icc, exif: bytes or None; exif has lost the turn (it is applied), the thumbnail and the size.
    notes: what was changed, left out or kept, for people.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    bits: int = 8
    icc: bytes | None = None
    exif: bytes | None = None
    format: str = ""
    notes: tuple[str, ...] = ()
    path: Path | None = None

    def with_pixels(self, pixels: np.ndarray) -> Picture:
        """The same picture with other pixels (H×W×3 of any size); alpha follows to their size."""
        alpha = self.alpha if self.alpha is None or self.alpha.shape == pixels.shape[:2] else resize(self.alpha, pixels.shape[:2])
        return replace(self, pixels=pixels, alpha=alpha)


class _Raw(NamedTuple):
    """A decoded file before it is turned and scaled: uint8, uint16 or float samples, H×W×(1 grey, 2 with alpha, 3 RGB, 4 RGBA)."""

    samples: np.ndarray
    format: str
    icc: bytes | None = None
    exif: bytes | None = None     # as it was
    notes: tuple[str, ...] = ()
    turn: int = 1     # EXIF orientation


# ---------------------------------------------------------------- bytes

def _name(path: str | bytes | os.PathLike) -> str:
    """The path as str; bytes that are no UTF-8 become surrogates (os.fsdecode), which is how Python opens such names."""
    try:
        name = os.fsdecode(path)
        if b"\0" not in os.fsencode(name):
            return name
        reason = "it holds a null byte"
    except (TypeError, UnicodeError) as e:
        reason = str(e)
    raise ImageError("E_NAME", f"{path!r:.80} is no file name: {reason}; give a str, bytes or Path")


def read_bytes(path: str | bytes | os.PathLike, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of at most `max_bytes`. Pipes, devices, sockets and folders are refused without waiting for them."""
    name = _name(path)
    try:
        fd = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise ImageError("E_NOT_A_FILE", f"{name!r} is not a regular file; give the path of a file")
            with open(fd, "rb", closefd=False) as file:     # one more than allowed, since a file may grow
                data = file.read(max_bytes + 1) if info.st_size <= max_bytes else None
        finally:
            os.close(fd)
    except OSError as e:
        code, why = {
            errno.ELOOP: ("E_MISSING", "is a link that leads to itself"), errno.ENAMETOOLONG: ("E_NAME", "is too long for a name"),
            errno.EACCES: ("E_PERMISSION", "may not be read; check its permissions and those of its folder"),
            errno.EPERM: ("E_PERMISSION", "may not be read; check its permissions"), errno.ENXIO: ("E_NOT_A_FILE", "is not a regular file"),
        }.get(e.errno, ("E_MISSING", f"cannot be read: {e.strerror}; check the path"))
        raise ImageError(code, f"{name if len(name) < 300 else name[:60] + '...'!r} {why}") from e
    if data is None or len(data) > max_bytes:
        raise ImageError("E_TOO_LARGE", f"{name!r} has {info.st_size} bytes, more than the limit of {max_bytes}")
    return data


def write_bytes(path: str | bytes | os.PathLike, data: bytes, overwrite: bool = True) -> Path:
    """Write a file in one step: under its name is the old file or the whole new one, never a part.

    Temporary name in the same folder, fsync, read back, rename, fsync of the folder. overwrite=False never replaces a file, not even one
    that appears meanwhile. A link is replaced, not followed. Raises ImageError E_WRITE (E_NAME, E_NOT_A_FILE); leaves no temporary file.
    """
    path = Path(_name(path))
    try:
        if path.exists() and not path.is_file():
            raise ImageError("E_NOT_A_FILE", f"{str(path)!r} exists and is not a regular file; choose another name")
        temp = path.with_name(f".mtrestore-{secrets.token_hex(8)}.tmp")     # short: the final name may be as long as names go
        try:
            with open(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if read_bytes(temp, len(data)) != data:
                raise ImageError("E_WRITE", f"{str(path)!r} came back changed from the disk; check the disk")
            if overwrite:
                os.replace(temp, path)
            else:
                _claim(temp, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temp)
        with contextlib.suppress(OSError):     # not every system can fsync a folder
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except FileExistsError as e:
        raise ImageError("E_WRITE", f"{str(path)!r} exists; choose another name or pass overwrite=True") from e
    except OSError as e:
        raise ImageError("E_WRITE", f"{str(path)!r} cannot be written: {e.strerror or e}; check folder, rights and space") from e
    return path


def _claim(temp: Path, path: Path) -> None:
    """Give `temp` its final name only if that name is free; the file system decides, so two writers cannot both win."""
    try:
        os.link(temp, path)
    except FileExistsError:
        raise
    except OSError:     # no hard links here: take the name with an empty file, then replace that
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(temp, path)


# ---------------------------------------------------------------- reading

def load(src: str | bytes | os.PathLike | Image.Image | np.ndarray, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture from a path (str, bytes, Path), a PIL image or an array. Raises ImageError and nothing else for what is wrong with it.

    Files: JPEG, MPO, PNG, WebP, TIFF, BMP, GIF, PPM, AVIF, told by content, not by name; of several frames the first. WebP and GIF also
    obey PIL.Image.MAX_IMAGE_PIXELS. Arrays: uint8, uint16 or float; H×W or H×W×1 grey, ×2 grey + alpha, ×3 RGB, ×4 RGBA; always copied.
    Floats, in files too, must lie in 0..1 (0.001 beyond is clipped); from a file they count as 16 bits, from an array as 8.
    """
    if isinstance(src, np.ndarray):
        return _upright(_from_array(src, max_pixels), "array", bits=16 if src.dtype == np.uint16 else 8)
    if isinstance(src, Image.Image):
        with _guard("PIL image"):
            return _upright(_from_pil(src, "PIL image", src.format or "PIL", max_pixels), "PIL image")
    data, path = read_bytes(src), Path(_name(src))
    with _guard(repr(str(path)), data):
        return replace(_upright(_decode(data, repr(str(path)), max_pixels), repr(str(path))), path=path)


def read(src: str | bytes | os.PathLike | Image.Image | np.ndarray) -> Photo:
    """The pixels of `load(src)`: float32 H×W×3, RGB, 0..1, upright."""
    return load(src).pixels


def _format(data: bytes) -> str | None:
    Image.init()
    return next((f for f in FORMATS if f in Image.OPEN and Image.OPEN[f][1](data[:16]) is True), None)


def _decode(data: bytes, who: str, max_pixels: int) -> _Raw:
    """Bytes of a file -> samples. The content decides the format, the header tells the size, and only then is anything decoded."""
    if not data:
        raise ImageError("E_EMPTY", f"{who} is empty (0 bytes); copy or download it again")
    name = _format(data)
    if name is None:
        hint = "is it HEIC? convert it to JPEG" if data[4:8] == b"ftyp" else f"give one of {', '.join(FORMATS)}"
        raise ImageError("E_FORMAT", f"{who} is no picture that can be read (it starts with {data[:8]!r}); {hint}")
    if name in ("PNG", "TIFF") and not _whole(data, name):     # the decoders take some of these for whole
        raise ImageError("E_TRUNCATED", f"{who} is truncated or damaged: the {name} data end too early; get it again")
    raw, notes = _tiff(data, who, max_pixels) if name == "TIFF" else (None, ())
    # The plugin itself, not Image.open: that asks a global pixel limit (ours is an argument), and raises KeyError where "MPO" is listed.
    return raw or _from_pil(Image.OPEN[name][0](io.BytesIO(data), ""), who, name, max_pixels, data, notes)


def _limit(who: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError("E_TOO_LARGE", f"{who} has {width}×{height} pixels, the limit is {max_pixels}; shrink it or raise max_pixels")
    if not width or not height:
        raise ImageError("E_FORMAT", f"{who} has no pixels ({width}×{height})")


def _from_array(a: np.ndarray, max_pixels: int) -> _Raw:
    if a.dtype not in (np.uint8, np.uint16) and a.dtype.kind != "f":
        raise ImageError("E_FORMAT", f"array must be uint8, uint16 or float in 0..1, got {a.dtype}; convert it with astype")
    if a.ndim not in (2, 3) or a.ndim == 3 and a.shape[2] not in (1, 2, 3, 4):
        raise ImageError("E_FORMAT", f"array must be H×W or H×W×C with C of 1, 2, 3 or 4 (channels last), got shape {a.shape}")
    _limit("array", a.shape[1], a.shape[0], max_pixels)
    return _Raw(a if a.ndim == 3 else a[..., None], "array")


def _from_pil(im: Image.Image, who: str, name: str, max_pixels: int, data: bytes = b"", notes: tuple[str, ...] = ()) -> _Raw:
    """An opened, not yet decoded PIL image -> samples. `data` is its file, where there is one, for what Pillow would cut to 8 bits."""
    _limit(who, *im.size, max_pixels)
    if name != "TIFF" and getattr(im, "is_animated", False):     # a GIF is walked to count its frames: only small ones
        notes += (f"first of {im.n_frames} frames" if name != "GIF" or len(data) < 1 << 20 else "first of several frames",)
    if name == "PPM" and im.mode == "RGB" and data and im.tile[0][0] == "ppm" and (top := im.tile[0][3][1]) > 255:
        samples = np.frombuffer(data, ">u2", 3 * im.width * im.height, im.tile[0][2]).reshape(im.height, im.width, 3)
        return _Raw((samples / np.float32(top) * 65535 + np.float32(0.5)).astype(np.uint16), name, notes=notes)
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
            im, note = _to_srgb(im, icc)
            notes, icc = (*notes, note), None
        target = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "RGBa": "RGBA", "RGBA": "RGBA", "PA": "RGBA"}.get(im.mode, "RGB")
        target = target if clear is None or target[-1] == "A" else target + "A"     # tRNS: one colour, or one alpha for each palette entry
        samples = np.asarray(im if im.mode == target else im.convert(target))
        samples = samples if samples.ndim == 3 else samples[..., None]
    return _Raw(samples, im.format or name, icc, exif, notes, turn)


def _tiff(data: bytes, who: str, max_pixels: int) -> tuple[_Raw | None, tuple[str, ...]]:
    """What Pillow would cut to 8 bits or refuse: 16-bit, float and giant TIFF. For the others None, and the note about their pages."""
    try:
        tif = tifffile.TiffFile(io.BytesIO(data))
        page, frames = tif.pages[0], len(tif.pages)
        width, height, channels, kind = page.imagewidth, page.imagelength, page.samplesperpixel, int(page.photometric)
        pieces, packed = list(zip(page.dataoffsets, page.databytecounts)), page.compression in (8, 32946)
    except Exception:
        return None, ()     # Pillow will say what is wrong
    _limit(who, width, height, max_pixels)
    if any(at + n > len(data) for at, n in pieces):
        raise ImageError("E_TRUNCATED", f"{who} is truncated or damaged: the TIFF data end too early; get it again")
    notes = (f"first of {frames} frames",) if frames > 1 else ()
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
    return _Raw(samples, "TIFF", icc, data, notes, turn), ()


def _upright(raw: _Raw, who: str, bits: int | None = None) -> Picture:
    """Samples as stored -> Picture: turned, scaled to 0..1, split into colours and alpha; ICC and EXIF looked at."""
    samples, notes = raw.samples, raw.notes
    if samples.dtype.kind == "f":
        low, high = samples.min(), samples.max()     # a NaN goes through both
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ImageError("E_NONFINITE", f"{who} holds NaN or infinite samples; replace them first")
        if low < -1e-3 or high > 1 + 1e-3:
            raise ImageError("E_FORMAT", f"{who} holds floats from {low:.4g} to {high:.4g}, expected 0..1; scale or clip them first")
        samples = np.clip(samples, 0, 1)
    exif, said = _exif(raw.exif, raw.format == "TIFF")
    icc, heard = _icc(raw.icc, samples.shape[2] < 3)
    samples = samples.swapaxes(0, 1) if raw.turn in (5, 6, 7, 8) else samples
    samples = samples[::-1 if raw.turn in (3, 4, 7, 8) else 1, ::-1 if raw.turn in (2, 3, 6, 7) else 1]
    grey, top = samples.shape[2] < 3, {"u1": 255, "u2": 65535}.get(samples.dtype.str[1:], 1)
    pixels = np.empty((*samples.shape[:2], 3), np.float32)
    np.divide(samples[..., :1 if grey else 3], top, out=pixels, dtype=np.float32)
    alpha = np.divide(samples[..., -1], top, dtype=np.float32, order="C") if samples.shape[2] in (2, 4) else None
    bits = bits or (8 if samples.dtype == np.uint8 else 16)
    return Picture(pixels, alpha, grey, bits, icc, exif, raw.format, (*notes, *said, *heard))


def _exif(exif: bytes | None, tiff: bool) -> tuple[bytes | None, tuple[str, ...]]:
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


def _icc(icc: bytes | None, grey: bool) -> tuple[bytes | None, tuple[str, ...]]:
    """The profile if it fits the pixels, and what to say of it."""
    if not icc:
        return None, ()
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space, name = profile.profile.xcolor_space.strip(), _line(ImageCms.getProfileDescription(profile).strip())
    except Exception:
        return None, ("ICC profile ignored: unreadable",)
    if space != ("GRAY" if grey else "RGB"):
        return None, (f"ICC profile ignored: {name} is for {space}",)
    return icc, (f"ICC profile kept: {name}",)


def _to_srgb(im: Image.Image, icc: bytes | None) -> tuple[Image.Image, str]:
    """CMYK or LAB -> RGB, through the profile where there is a usable one."""
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
def _guard(who: str, data: bytes = b""):
    """Whatever the decoders raise (OSError, ValueError, SyntaxError, RuntimeError, KeyError, struct.error, ...) leaves as an ImageError."""
    try:
        with _QUIET:
            yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, MemoryError) as e:
        raise ImageError("E_TOO_LARGE", f"{who} is too large: {e or 'not enough memory'}") from e
    except Exception as e:
        name, text = data and _format(data), str(e).removesuffix("not identified by this driver") or type(e).__name__
        words = ("truncat", "not enough", "smaller than", "end of", "eof", "bmff parsing")     # the last is AVIF's, of a cut header
        if not _whole(data, name) or any(word in text.lower() for word in words):
            raise ImageError("E_TRUNCATED", f"{who} is truncated or damaged: the {name or 'file'} ends too early; get it again") from e
        code = "E_TOO_LARGE" if "too large" in text else "E_FORMAT"
        raise ImageError(code, f"{who} is a damaged or unsupported {name or 'kind of'} picture: {text}") from e


def _whole(data: bytes, name: str | None) -> bool:
    """False when the end of the file is surely missing."""
    if name == "TIFF":     # all that the first directory points at
        order, big = "<" if data[:1] == b"I" else ">", 43 in data[2:4]
        try:
            (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
            (n,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
            at, step, entry, inline = (at + 8, 20, "HHQQ", 8) if big else (at + 2, 12, "HHII", 4)
            entries = [struct.unpack_from(order + entry, data, at + i * step) for i in range(min(n, 65536))]
        except (struct.error, IndexError, OverflowError):     # outside the file, or outside any file
            return False
        sizes = [count * (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)[kind % 19] for _, kind, count, _ in entries]
        return all(size <= inline or e[3] + size <= len(data) for size, e in zip(sizes, entries))
    if name == "GIF":
        return data.rstrip(b"\0").endswith(b";")
    if name == "WEBP":
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    return {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}.get(name, b"") in data


# ---------------------------------------------------------------- writing

def what_is_lost(picture: Picture, suffix: str) -> tuple[str, ...]:
    """What `write` cannot keep in a format, a short sentence each; () when nothing. `suffix` is one like ".jpg", or a whole path."""
    name = _writable(_name(suffix))
    return tuple(text for lost, text in (
        (picture.alpha is not None and name not in ALPHA, f"{name} has no alpha: the picture becomes opaque, its colours stay"),
        (picture.bits == 16 and name not in DEEP, f"{name} has 8 bits: 16 are rounded to 8"),
        (picture.grey and (name == "WEBP" or name == "AVIF" and picture.alpha is not None), f"{name} stores grey as three equal channels"),
        (picture.icc and name not in TAGGED, f"{name} has no ICC profile: it is dropped"),
        (picture.exif and (name not in TAGGED or name == "JPEG" and len(picture.exif) > MAX_JPEG_EXIF),
         f"{name} cannot hold this EXIF: it is dropped"),
    ) if lost)


def write(path: str | bytes | os.PathLike, photo: Photo | Picture, *, overwrite: bool = True, quality: int = 95) -> Path:
    """Write a picture in the format of its suffix (.jpg .jpeg .png .webp .tif .tiff .bmp .avif); returns the path.

    A Picture keeps alpha, grey, 16 bits, ICC and EXIF where the format can (`what_is_lost` tells). An array is what `load` takes: a photo
    is written as RGB, 8 bits. Values are rounded to the nearest level; a grey picture is the mean of its channels. Before `write_bytes`
    puts the file in place it is decoded again: same size, and in PNG, TIFF and BMP the same samples. `quality`: JPEG, WebP, AVIF, 0..100.
    """
    name = _writable(_name(path))
    picture = photo if isinstance(photo, Picture) else load(photo)
    samples = _samples(picture, np.uint16 if picture.bits == 16 and name in DEEP else np.uint8, name in ALPHA)
    exif, _ = _exif(picture.exif if name in TAGGED else None, False)     # pixels are upright, so a turn in there would be wrong
    try:
        data = _encode(samples, name, picture.icc if name in TAGGED else None, exif, quality)
        with _guard("the encoded picture", data):
            back = _decode(data, "the encoded picture", samples.size).samples
    except Exception as e:
        raise ImageError("E_WRITE", f"{samples.shape[1]}×{samples.shape[0]} pixels cannot be written as {name}: {e}") from e
    if back.shape[:2] != samples.shape[:2] or name in LOSSLESS and not np.array_equal(back, samples):
        raise ImageError("E_WRITE", f"the encoded {name} does not decode to the picture; nothing was written")
    return write_bytes(path, data, overwrite)


def _writable(name: str) -> str:
    Image.init()
    can = {suffix: format for suffix, format in SUFFIXES.items() if format in Image.SAVE}
    ending = next((suffix for suffix in can if name.lower().endswith(suffix)), None)
    if ending is None:
        raise ImageError("E_FORMAT", f"{os.path.basename(name)!r} names no format to write; end it with one of {' '.join(can)}")
    return can[ending]


def _samples(picture: Picture, dtype: type, alpha: bool) -> np.ndarray:
    """A Picture -> uint8 or uint16, H×W×(1..4), as a file stores it; strip by strip, since fresh memory is what costs."""
    height, width = picture.pixels.shape[:2]
    top, colours = np.float32(np.iinfo(dtype).max), 1 if picture.grey else 3
    alpha = alpha and picture.alpha is not None
    out = np.empty((height, width, colours + alpha), dtype)
    for y in range(0, height, 64):
        strip = picture.pixels[y:y + 64]
        strip = strip.mean(axis=2, keepdims=True, dtype=np.float32) if picture.grey else strip
        strip = np.concatenate([strip, picture.alpha[y:y + 64, :, None]], 2) if alpha else strip
        if not (np.isfinite(strip.min()) and np.isfinite(strip.max())):
            raise ImageError("E_NONFINITE", "the picture holds NaN or infinite values; nothing was written")
        out[y:y + 64] = np.clip(strip * top + np.float32(0.5), 0, top)
    return out


def _encode(samples: np.ndarray, name: str, icc: bytes | None, exif: bytes | None, quality: int) -> bytes:
    if samples.dtype == np.uint16:
        return (_png16 if name == "PNG" else _tiff16)(samples, icc, exif)
    options = {"JPEG": {"quality": quality, "subsampling": 0 if quality >= 90 else 2}, "WEBP": {"quality": quality, "exact": True},
               "AVIF": {"quality": quality} | ({"subsampling": "4:4:4"} if quality >= 90 and samples.shape[2] > 2 else {}),
               "TIFF": {"compression": "tiff_adobe_deflate"}, "PNG": {"compress_level": 2}}.get(name, {})     # 2: a fifth of the time of 6
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


def _tiff16(samples: np.ndarray, icc: bytes | None, exif: bytes | None) -> bytes:
    """TIFF 6.0 with 16 bits in deflated strips. Pillow makes the directory, so that profile and EXIF are as in its 8-bit files."""
    height, width, channels = samples.shape
    rows = max(1, (1 << 20) // (width * channels * 2))
    strips = [zlib.compress(samples[y:y + rows].astype("<u2").tobytes(), 1) for y in range(0, height, rows)]
    tags, ifd = Image.Exif(), TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    tags.load(exif or b"")
    for tag in tags:
        ifd[tag] = tags.get_ifd(tag) if tag in (EXIF_IFD, GPS_IFD) else tags[tag]
    for tag, value in {256: width, 257: height, 258: (16,) * channels, 259: 8, 262: 1 if channels < 3 else 2, 277: channels, 278: rows,
                       **({338: 2} if channels in (2, 4) else {}), **({ICC_TAG: icc} if icc else {})}.items():     # 338: plain alpha
        ifd[tag] = value
    ifd.tagtype[273] = ifd.tagtype[279] = 4     # strip offsets (from the end of the directory) and lengths, as LONG
    lengths = [len(strip) for strip in strips]
    ifd[273], ifd[279] = (0, *itertools.accumulate(lengths[:-1])), tuple(lengths)
    buffer = io.BytesIO()
    ifd.save(buffer)
    return b"".join([buffer.getvalue(), *strips])


# ---------------------------------------------------------------- sizes and tensors

def shrink(photo: Photo, long_side: int) -> Photo:
    """The photo with its longer side at most `long_side` pixels, antialiased; the very same array when it is small enough already."""
    scale = long_side / max(photo.shape[:2])
    return photo if scale >= 1 else resize(photo, tuple(max(1, round(n * scale)) for n in photo.shape[:2]))


def resize(photo: Photo, size: tuple[int, int]) -> Photo:
    """The photo (H×W×C or H×W) at `(height, width)`, clipped to 0..1; pixel centres keep their place relative to the picture.

    Bicubic with antialiasing (as PIL's BICUBIC) when a side shrinks, OpenCV's cubic when both grow; the same array at the same size.
    """
    height, width = (int(n) for n in size)
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least 1×1, got {height}×{width}")
    if (height, width) == photo.shape[:2]:
        return photo
    photo = np.require(photo, np.float32, "CW")     # W: torch warns of read-only arrays
    if height >= photo.shape[0] and width >= photo.shape[1]:
        out = cv2.resize(photo, (width, height), interpolation=cv2.INTER_CUBIC)
    else:
        import torch  # here and below: a bad file should be refused before two seconds go into this import

        planes = torch.from_numpy(photo.reshape(*photo.shape[:2], -1)).permute(2, 0, 1)[None]
        out = torch.nn.functional.interpolate(planes, (height, width), mode="bicubic", antialias=True, align_corners=False)
        out = np.ascontiguousarray(out[0].permute(1, 2, 0).numpy())
    return np.clip(out, 0, 1, out=out).reshape(height, width, *photo.shape[2:])


def enlarge(photo: Photo, scale: float) -> Photo:
    """The photo at `round(side * scale)` (at least 1), cubic; pixel x goes to scale·x + (scale − 1)/2. The result is the only memory."""
    return resize(photo, tuple(max(1, round(n * scale)) for n in photo.shape[:2]))


def to_tensor(photo: Photo) -> torch.Tensor:
    """H×W×3 photo -> 1×3×H×W float32 tensor, contiguous. Always a copy: changing one never changes the other."""
    import torch

    return torch.from_numpy(np.array(photo.transpose(2, 0, 1)[None], np.float32, order="C"))


def to_photo(tensor: torch.Tensor) -> Photo:
    """1×3×H×W or 3×H×W tensor, any device and float type -> H×W×3 photo, clipped to 0..1. Always a copy."""
    planes = tensor.detach()[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor.detach()
    if planes.ndim != 3 or planes.shape[0] != 3:
        raise ValueError(f"tensor must be 1×3×H×W or 3×H×W, got {'×'.join(map(str, tensor.shape))}; give one picture at a time")
    photo = np.array(planes.float().cpu().permute(1, 2, 0).numpy(), order="C")
    return np.clip(photo, 0, 1, out=photo)
