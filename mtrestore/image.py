"""The photo convention, the one reader and the one writer.

A *photo* is a float32 array, RGB, H×W×3, in 0..1; a *tensor* is B×3×H×W in 0..1; only this file
turns one into the other. A `Picture` is a photo plus what its file said beside the colours: alpha,
grey, 16 bits, ICC profile, EXIF. It holds *samples*: the same H×W×3, but in the file's own type
(uint8, uint16 or float32 in 0..1), a quarter of the memory. `as_photo` and `as_samples` lead from
one to the other.

    read:   regular file -> bytes -> format by content -> pixel limit -> decode -> turn -> 0..1
    write:  round -> encode -> decode and compare -> temporary name -> fsync -> read back -> rename

Bytes and names are `files`' business, formats are `formats`'. Whatever is wrong with a file leaves
as one `ImageError` with a code.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import DTypeLike
from PIL import Image

from .guard import forks
from .io import beside as besides
from .io import codecs as formats
from .io import packets
from .io.beside import Beside
from .io.codecs import ALPHA, DEEP, LOSSLESS, MAX_JPEG_EXIF, TAGGED, Raw
from .io.codecs import SUFFIXES as SUFFIXES
from .io.cost import limit
from .io.files import ImageError, filename, head, read_bytes, write_bytes
from .io.text import shown
from .io.tiff import book

if TYPE_CHECKING:
    import torch

Photo = np.ndarray
CLEAR = 1 / 16  # alpha below which a colour is hidden


@dataclass(frozen=True, eq=False)
class Picture:
    """A photo and what its file said beside it.

    samples: H×W×3, RGB, upright (a grey picture has three equal channels), uint8, uint16 or float32
    in 0..1; `pixels` is the photo made of them, float32 in 0..1, anew each time. alpha: float32 H×W
    0..1 or None, not premultiplied. bits: 8 or 16, the depth to write again. icc, exif: bytes or
    None; exif has lost the turn (it is applied), the thumbnail and the size. beside: XMP, IPTC,
    texts and dpi, cleaned likewise. notes: what was changed, left out or kept, for people.
    """

    samples: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    bits: int = 8
    icc: bytes | None = None
    exif: bytes | None = None
    format: str = ""
    notes: tuple[str, ...] = ()
    path: Path | None = None
    beside: Beside = Beside()

    @property
    def pixels(self) -> Photo:
        return as_photo(self.samples)

    def with_pixels(self, pixels: np.ndarray) -> Picture:
        """The same picture with other pixels (a photo or samples, H×W×3 of any size); alpha follows
        to their size.
        """
        alpha = self.alpha if self.alpha is None else resize(self.alpha, pixels.shape[:2])
        return replace(self, samples=pixels, alpha=alpha)

    def without_location(self) -> Picture:
        """The same picture, which does not say where it was taken (`formats.without_location` and
        `packets.without_place` tell what else goes).
        """
        exif = formats.without_location(self.exif)
        return replace(self, exif=exif, beside=packets.without_place(self.beside))


def top_of(dtype: DTypeLike) -> int:
    """The largest sample of a type: 255, 65535, or 1 for floats."""
    return {"u1": 255, "u2": 65535}.get(np.dtype(dtype).str[1:], 1)


def as_photo(samples: np.ndarray) -> Photo:
    """Samples of any shape -> float32 in 0..1; float32 comes back as it is, not copied."""
    top = top_of(samples.dtype)
    if top == 1:
        return np.asarray(samples, np.float32)
    return np.divide(samples, top, dtype=np.float32)


def as_samples(photo: Photo, dtype: DTypeLike) -> np.ndarray:
    """A photo, within 0..1 or not, -> samples of that type, rounded to the nearest; NaNs stay NaNs
    in float32 alone.
    """
    top = np.float32(top_of(dtype))
    if top == 1:
        return np.asarray(np.clip(photo, 0, 1), np.float32)
    return (np.clip(photo, 0, 1) * top + np.float32(0.5)).astype(dtype)


def load(
    src: str | bytes | os.PathLike | Image.Image | np.ndarray,
    max_pixels: int | None = None,
    page: int = 1,
) -> Picture:
    """Read a picture from a path (str, bytes, Path), a PIL image or an array. Raises ImageError and
    nothing else for what is wrong with it.

    Files: JPEG, MPO, PNG, WebP, TIFF, BMP, GIF, PPM, AVIF, told by content, not by name; of several
    frames the first. WebP and GIF also obey PIL.Image.MAX_IMAGE_PIXELS. Arrays: uint8, uint16 or
    float; H×W or H×W×1 grey, ×2 grey + alpha, ×3 RGB, ×4 RGBA; always copied. Floats, in files too,
    must lie in 0..1 (0.001 beyond is clipped); from a file they count as 16 bits, from an array as
    8. max_pixels: by default 200 million, but 16 million where a file has less than a byte of
    payload for 256 of them, as bombs do; and what a picture may cost in memory and work goes by its
    payload as well (`cost`). Given, that many are read whatever they unpack from. page: of a TIFF,
    from 1; copies of reduced size are no pages.
    """
    forks.check()
    if isinstance(src, np.ndarray):
        bits = 16 if src.dtype == np.uint16 else 8
        return _upright(_from_array(src, max_pixels), "array", bits)
    if isinstance(src, Image.Image):
        who = "PIL image"
        with formats.guard(who):
            return _upright(formats.from_pil(src, who, src.format or "PIL", max_pixels), who)
    data, path = read_bytes(src), Path(filename(src))
    who = repr(str(path))
    with formats.guard(who, data):
        picture = _upright(formats.decode(data, who, max_pixels, page), who, fresh=True)
        return replace(picture, path=path)


def read(src: str | bytes | os.PathLike | Image.Image | np.ndarray) -> Photo:
    """The pixels of `load(src)`: float32 H×W×3, RGB, 0..1, upright."""
    return load(src).pixels


def pages(src: str | bytes | os.PathLike) -> int:
    """How many pages `load` can be asked for; 1 for all but a TIFF. Raises ImageError."""
    return len(book(read_bytes(src)).pages) if formats.kind_of(head(src, 16)) == "TIFF" else 1


def is_picture(begin: bytes) -> bool:
    """Whether a file that begins so is a picture by its content, readable or not; the two letters
    of BMP and PPM begin many a text."""
    return formats.kind_of(begin) not in (None, "BMP", "PPM")


def _from_array(a: np.ndarray, max_pixels: int | None) -> Raw:
    if a.dtype not in (np.uint8, np.uint16) and a.dtype.kind != "f":
        raise ImageError(
            "E_FORMAT",
            f"array must be uint8, uint16 or float in 0..1, got {a.dtype}; convert it with astype",
        )
    if a.ndim not in (2, 3) or a.ndim == 3 and a.shape[2] not in (1, 2, 3, 4):
        raise ImageError(
            "E_FORMAT",
            "array must be H×W or H×W×C with C of 1, 2, 3 or 4 (channels last), "
            f"got shape {a.shape}",
        )
    limit("array", a.shape[1], a.shape[0], max_pixels)
    return Raw(a if a.ndim == 3 else a[..., None], "array")


def _upright(raw: Raw, who: str, bits: int | None = None, fresh: bool = False) -> Picture:
    """Samples as stored -> Picture: turned, scaled to 0..1, split into colours and alpha; ICC and
    EXIF looked at. `fresh` samples are nobody else's, and may be kept as they are."""
    samples = raw.samples
    if samples.dtype.kind == "f":
        _check_floats(samples, who)
    exif, said = formats.clean_exif(raw.exif, raw.format == "TIFF")
    icc, heard = formats.fitting_icc(raw.icc, samples.shape[2] < 3)
    samples = samples.swapaxes(0, 1) if raw.turn in (5, 6, 7, 8) else samples
    samples = samples[::-1] if raw.turn in (3, 4, 7, 8) else samples
    samples = samples[:, ::-1] if raw.turn in (2, 3, 6, 7) else samples
    grey, alpha = samples.shape[2] < 3, None
    if samples.shape[2] in (2, 4):
        top = top_of(samples.dtype)
        alpha = np.divide(samples[..., -1], top, dtype=np.float32, order="C")
    own = fresh and samples.shape[2] == 3 and samples.flags.c_contiguous
    if own and samples.dtype in (np.uint8, np.uint16, np.float32):
        colours = samples  # a large picture is not copied once more
    else:
        dtype = samples.dtype.newbyteorder("=") if samples.dtype.kind == "u" else np.float32
        colours = np.empty((*samples.shape[:2], 3), dtype)
        colours[...] = samples[..., : 1 if grey else 3]
    if colours.dtype == np.float32:
        np.clip(colours, 0, 1, out=colours)
        alpha = alpha if alpha is None else np.clip(alpha, 0, 1, out=alpha)
    bits = bits or (8 if samples.dtype == np.uint8 else 16)
    beside = packets.clean(raw.beside, raw.turn in range(2, 9))
    beside = beside._replace(dpi=beside.dpi or formats.resolution(exif))
    if beside.dpi and raw.turn in (5, 6, 7, 8):
        beside = beside._replace(dpi=beside.dpi[::-1])
    notes = tuple(map(shown, (*raw.notes, *said, *heard, *beside.notes)))
    return Picture(colours, alpha, grey, bits, icc, exif, raw.format, notes, beside=beside)


def _check_floats(samples: np.ndarray, who: str) -> None:
    low, high = samples.min(), samples.max()  # a NaN goes through both
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("E_NONFINITE", f"{who} holds NaN or infinite samples; replace them first")
    if low < -1e-3 or high > 1 + 1e-3:
        raise ImageError(
            "E_FORMAT",
            f"{who} holds floats from {low:.4g} to {high:.4g}, expected 0..1; "
            "scale or clip them first",
        )


def what_is_lost(picture: Picture, suffix: str) -> tuple[str, ...]:
    """What `write` cannot keep in a format, a short sentence each; () when nothing. `suffix` is one
    like ".jpg", or a whole path.
    """
    name = formats.writable(filename(suffix))
    alpha, lost = picture.alpha is not None, []
    if alpha and name not in ALPHA:
        lost.append(f"{name} has no alpha: the picture becomes opaque, its colours stay")
    if picture.bits == 16 and name not in DEEP:
        lost.append(f"{name} has 8 bits: 16 are rounded to 8")
    if picture.grey and (name == "WEBP" or name == "AVIF" and alpha):
        lost.append(f"{name} stores grey as three equal channels")
    if picture.icc and name not in TAGGED:
        lost.append(f"{name} has no ICC profile: the colours are converted to sRGB")
    if picture.exif and not _holds_exif(picture, name):
        lost.append(f"{name} cannot hold this EXIF: it is dropped")
    return (*lost, *besides.lost(picture.beside, name))


def _holds_exif(picture: Picture, name: str) -> bool:
    long = len(picture.exif or b"") > MAX_JPEG_EXIF
    return name in TAGGED and not (name == "JPEG" and long)


def place_taken(picture: Picture, suffix: str, strip: bool) -> tuple[str, ...]:
    """What becomes of the place where a photo was taken in a file of this suffix: a sentence, or ()
    where it says none.
    """
    name = formats.writable(filename(suffix))
    exif = _holds_exif(picture, name) and formats.has_location(picture.exif)
    if not exif and not packets.has_place(besides.fitting(picture.beside, name)):
        return ()
    what = "the place where it was taken"
    what += " (GPS)" if exif else ""
    return (f"{what} is removed",) if strip else (f"{what} is kept; --strip-location removes it",)


def write(
    path: str | bytes | os.PathLike,
    photo: Photo | Picture,
    *,
    overwrite: bool = True,
    quality: int = 95,
) -> Path:
    """Write a picture in the format of its suffix (.jpg .jpeg .png .webp .tif .tiff .bmp .avif);
    returns the path.

    A Picture keeps alpha, grey, 16 bits, ICC, EXIF, XMP, IPTC, texts and dpi where the format can
    (`what_is_lost` tells; docs/formats.md has the table).
    An array is what `load` takes: a photo is written as RGB, 8 bits. Values are rounded to the
    nearest level; a grey picture is the mean of its channels. Before `write_bytes` puts the file in
    place it is decoded again: same size, and in PNG, TIFF and BMP the same samples. `quality`:
    JPEG, WebP, AVIF, 0..100.
    """
    name = formats.writable(filename(path))
    picture = photo if isinstance(photo, Picture) else load(photo)
    samples = _samples(
        picture, np.uint16 if picture.bits == 16 and name in DEEP else np.uint8, name in ALPHA
    )
    if picture.icc and name not in TAGGED:
        flat = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
        samples = np.asarray(formats.to_srgb(flat, picture.icc)[0])
    # Pixels are upright, so a turn in there would be wrong.
    exif, _ = formats.clean_exif(picture.exif if name in TAGGED else None, False)
    try:
        icc = picture.icc if name in TAGGED else None
        data = formats.encode(samples, name, icc, exif, quality, picture.beside)
        with formats.guard("the encoded picture", data):
            if name in LOSSLESS:
                same = np.array_equal(
                    formats.decode(data, "the encoded picture", samples.size).samples, samples
                )
            else:
                same = formats.decoded_size(data, name) == samples.shape[:2]
    except Exception as e:
        raise ImageError(
            "E_WRITE",
            f"{samples.shape[1]}×{samples.shape[0]} pixels cannot be written as {name}: {e}",
        ) from e
    if not same:
        raise ImageError(
            "E_WRITE", f"the encoded {name} does not decode to the picture; nothing was written"
        )
    return write_bytes(path, data, overwrite)


def _samples(picture: Picture, dtype: type, alpha: bool) -> np.ndarray:
    """A Picture -> uint8 or uint16, H×W×(1..4), as a file stores it; strip by strip, since fresh
    memory is what costs.
    """
    height, width = picture.samples.shape[:2]
    colours = 1 if picture.grey else 3
    opacity = picture.alpha if alpha else None
    if picture.samples.dtype == dtype and not picture.grey and opacity is None:
        return np.ascontiguousarray(picture.samples)
    out = np.empty((height, width, colours + (opacity is not None)), dtype)
    for y in range(0, height, 64):
        strip = as_photo(picture.samples[y : y + 64])
        strip = strip.mean(axis=2, keepdims=True, dtype=np.float32) if picture.grey else strip
        if opacity is not None:
            strip = np.concatenate([strip, opacity[y : y + 64, :, None]], 2)
        if not (np.isfinite(strip.min()) and np.isfinite(strip.max())):
            raise ImageError(
                "E_NONFINITE", "the picture holds NaN or infinite values; nothing was written"
            )
        out[y : y + 64] = as_samples(strip, dtype)
    return out


# ---------------------------------------------------------------- alpha


def hidden(picture: Picture) -> np.ndarray | None:
    """H×W bool: where alpha shows next to nothing of the colours; None where it shows them all."""
    if picture.alpha is None:
        return None
    mask = picture.alpha < CLEAR
    return mask if mask.any() and not mask.all() else None


def without_hidden(picture: Picture) -> np.ndarray:
    """Its samples, in which each hidden colour is that of the nearest pixel that is seen.

    So no net, filter or resize draws into the edge what nobody is meant to see, as it would not of
    colours multiplied with alpha; and unlike those they have no dark edge of their own. The samples
    themselves, not copied, where nothing is hidden.
    """
    mask = hidden(picture)
    if mask is None:
        return picture.samples
    kind = cv2.DIST_LABEL_PIXEL
    _, nearest = cv2.distanceTransformWithLabels(
        mask.view(np.uint8), cv2.DIST_L2, 5, labelType=kind
    )
    seen = np.flatnonzero(~mask)
    place = np.empty(len(seen) + 1, np.int64)
    place[nearest.ravel()[seen]] = seen
    samples = picture.samples.copy()
    samples[mask] = samples.reshape(-1, 3)[place[nearest[mask]]]
    return samples


def with_hidden(samples: np.ndarray, picture: Picture) -> np.ndarray:
    """Restored samples of any size, with the picture's own colours again where they are hidden."""
    mask = hidden(picture)
    if mask is None:
        return samples
    size = samples.shape[1::-1]
    mask = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) > 0
    if size != picture.samples.shape[1::-1]:  # where alpha, resized, shows a little they stay
        mask &= resize(picture.alpha, samples.shape[:2]) < CLEAR
    old = cv2.resize(picture.samples, size, interpolation=cv2.INTER_NEAREST_EXACT)
    samples = samples.copy()
    samples[mask] = (
        old[mask] if old.dtype == samples.dtype else as_samples(as_photo(old[mask]), samples.dtype)
    )
    return samples


# ---------------------------------------------------------------- sizes and tensors


def shrink(photo: Photo, long_side: int) -> Photo:
    """The photo with its longer side at most `long_side` pixels, antialiased; the very same array
    when it is small enough already.
    """
    scale = long_side / max(photo.shape[:2])
    return photo if scale >= 1 else enlarge(photo, scale)


def resize(photo: Photo, size: tuple[int, int]) -> Photo:
    """The photo or samples (H×W×C or H×W) at `(height, width)`, clipped to 0..1; pixel centres keep
    their place relative to the picture.

    Bicubic with antialiasing (as PIL's BICUBIC) when a side shrinks, OpenCV's cubic when both grow;
    the same array at the same size.
    """
    forks.check()
    height, width = (int(n) for n in size)
    if height < 1 or width < 1:
        raise ValueError(f"size must be at least 1×1, got {height}×{width}")
    if (height, width) == photo.shape[:2]:
        return photo
    dtype = photo.dtype if photo.dtype in (np.uint8, np.uint16) else np.float32
    photo = np.require(photo, dtype, ["C", "W"])  # W: torch warns of read-only arrays
    if height >= photo.shape[0] and width >= photo.shape[1]:
        out = cv2.resize(photo, (width, height), interpolation=cv2.INTER_CUBIC)
    elif photo.dtype == np.uint8:
        out = _antialiased(photo.reshape(*photo.shape[:2], -1), (height, width))
    else:  # width first, strip by strip: no float32 picture of the large size
        rows = [
            photo[y : y + 256].reshape(-1, photo.shape[1], photo[0, 0].size)
            for y in range(0, len(photo), 256)
        ]
        narrow = np.concatenate([_antialiased(as_photo(r), (len(r), width)) for r in rows])
        out = as_samples(_antialiased(narrow, (height, width)), photo.dtype)
    out = out if out.dtype != np.float32 else np.clip(out, 0, 1, out=out)
    return out.reshape(height, width, *photo.shape[2:])


def _antialiased(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import torch  # here and below: a bad file is refused before two seconds go into this import

    planes = torch.from_numpy(photo).permute(2, 0, 1)[None]
    out = torch.nn.functional.interpolate(
        planes, size, mode="bicubic", antialias=True, align_corners=False
    )
    return np.ascontiguousarray(out[0].permute(1, 2, 0).numpy())


def enlarge(photo: Photo, scale: float) -> Photo:
    """The photo at `round(side * scale)` (at least 1), cubic; pixel x goes to scale·x + (scale −
    1)/2. The result is the only memory.
    """
    height, width = (max(1, round(n * scale)) for n in photo.shape[:2])
    return resize(photo, (height, width))


def to_tensor(photo: Photo) -> torch.Tensor:
    """H×W×3 photo or samples -> 1×3×H×W float32 tensor in 0..1, contiguous. Always a copy: changing
    one never changes the other.
    """
    import torch

    forks.check()
    return torch.from_numpy(
        np.array(as_photo(photo).transpose(2, 0, 1)[None], np.float32, order="C")
    )


def to_photo(tensor: torch.Tensor) -> Photo:
    """1×3×H×W or 3×H×W tensor, any device and float type -> H×W×3 photo, clipped to 0..1. Always a
    copy.
    """
    planes = tensor.detach()[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor.detach()
    if planes.ndim != 3 or planes.shape[0] != 3:
        raise ValueError(
            f"tensor must be 1×3×H×W or 3×H×W, got {'×'.join(map(str, tensor.shape))}; "
            "give one picture at a time"
        )
    photo = np.array(planes.float().cpu().permute(1, 2, 0).numpy(), order="C")
    return np.clip(photo, 0, 1, out=photo)
