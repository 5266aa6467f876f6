"""The one reader and the one writer: what comes in is read right or refused with a code, what goes
out is whole or not there.
"""

import contextlib
import errno
import io
import os
import pickle
import socket
import struct
import threading
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from pairwise import pairwise
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps, features
from skimage.color import lab2rgb

from mtrestore import image
from mtrestore.image import ImageError, Picture, load, read, write
from mtrestore.io import codecs as formats
from mtrestore.io import files

AVIF = pytest.param(
    "AVIF", marks=pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
)
FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", AVIF]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encode(im: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    im.save(buffer, format, **options)
    return buffer.getvalue()


def colours(
    height: int = 24, width: int = 31, channels: int = 3, dtype=np.uint8, seed: int = 0
) -> np.ndarray:
    """Smooth random colours, so that lossy formats stay close; the corners differ, so that a turn
    is seen.
    """
    small = np.random.default_rng(seed).random((4, 5, channels)).astype(np.float32)
    return np.rint(
        cv2.resize(small, (width, height)).reshape(height, width, channels) * np.iinfo(dtype).max
    ).astype(dtype)


def picture(mode: str = "RGB", **options) -> Image.Image:
    a = colours(channels=len(Image.new(mode, (1, 1)).getbands()), **options)
    return Image.frombytes(mode, a.shape[1::-1], a.tobytes())


def exif(turn: int | None = None, maker: str = "Maker") -> bytes:
    tags = Image.Exif()
    tags[0x010F] = maker
    if turn is not None:
        tags[0x0112] = turn
    return tags.tobytes()


def code(action, *args, **kwargs) -> str:
    """The code that an action fails with; its message is one printable line that says more than the
    code.
    """
    with pytest.raises(ImageError) as caught:
        action(*args, **kwargs)
    message = str(caught.value)
    assert message.isprintable() and len(message) > 20
    return caught.value.code


@contextlib.contextmanager
def no_root():
    """Permissions mean nothing to root."""
    if not hasattr(os, "geteuid"):
        pytest.skip("no user ids here")
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


# ---------------------------------------------- names and things that are no picture files


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_a_path_may_be_str_bytes_or_path(tmp_path, kind):
    file = tmp_path / "a.png"
    file.write_bytes(encode(picture(), "PNG"))
    assert load(kind(str(file))).path == file


def test_a_name_that_is_no_utf8_is_read_and_written(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9\xff.png"
    try:
        with open(name, "wb") as file:
            file.write(encode(picture(), "PNG"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    photo = read(name)
    written = write(os.fsencode(tmp_path) + b"/\xff out.png", photo)
    assert os.fsencode(written).endswith(b"\xff out.png") and np.array_equal(read(written), photo)
    assert (
        code(load, os.fsencode(tmp_path) + b"/\xfe\n\x1b[31m.png") == "E_MISSING"
    )  # the line is printable


@pytest.mark.parametrize(
    "name", ["a\0b.png", b"a\0b.png", "\ud800.png", None, 3, io.BytesIO(b""), "x" * 300 + ".png"]
)
def test_what_is_no_name_is_said(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert code(load, name) == "E_NAME"
    if not isinstance(name, str) or len(name) < 300:
        assert code(write, name, np.zeros((2, 2, 3), np.float32)) == "E_NAME"


def make_socket(path):
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as s:
        s.bind(path.name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize(
    "make",
    [
        os.mkdir,
        lambda p: os.mkfifo(p),
        make_socket,
        lambda p: os.symlink("/dev/zero", p),
        lambda p: os.symlink("/dev/full", p),
    ],
    ids=["folder", "pipe", "socket", "zero", "full"],
)
def test_only_regular_files_are_opened(tmp_path, make):
    make(tmp_path / "x.png")
    assert code(load, tmp_path / "x.png") == "E_NOT_A_FILE"
    assert code(write, tmp_path / "x.png", np.zeros((2, 2, 3), np.float32)) == "E_NOT_A_FILE"
    assert os.path.lexists(tmp_path / "x.png") and len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("target", [None, "gone.png", "x.png"])
def test_missing_dangling_and_looping_are_missing(tmp_path, target):
    if target:
        os.symlink(target, tmp_path / "x.png")
    assert code(load, tmp_path / "x.png") == "E_MISSING"
    assert code(load, tmp_path / "no" / "x.png") == "E_MISSING"


def test_no_permission(tmp_path):
    file = tmp_path / "x.png"
    file.write_bytes(encode(picture(), "PNG"))
    file.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    with no_root():
        assert code(load, file) == "E_PERMISSION"
        if os.geteuid() == 65534:
            assert code(write, tmp_path / "y.png", np.zeros((2, 2, 3), np.float32)) == "E_WRITE"


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"", "E_EMPTY"),
        (b"\x89", "E_FORMAT"),
        (b"this is not a picture\n" * 20, "E_FORMAT"),
        (b"\0" * 4096, "E_FORMAT"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "E_FORMAT"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "E_FORMAT"),
        (b"8BPS\0\1" + bytes(99), "E_FORMAT"),
        (b"version https://git-lfs.github.com/spec/v1\n", "E_FORMAT"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "E_TRUNCATED"),
    ],
)
def test_what_is_no_picture_is_said_whatever_its_name(tmp_path, data, expected):
    (tmp_path / "x.jpg").write_bytes(data)
    assert code(load, tmp_path / "x.jpg") == expected


def test_the_content_tells_the_format_not_the_name(tmp_path):
    (tmp_path / "x.jpg").write_bytes(encode(picture(), "PNG"))
    assert load(tmp_path / "x.jpg").format == "PNG"


def test_an_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(ImageError("E_EMPTY", "a\nb\x1b[31m\u202e")))
    assert (type(error), error.code, str(error)) == (
        ImageError,
        "E_EMPTY",
        "a\\nb\\x1b[31m\\u202e",
    ) and isinstance(error, ValueError)


# ---------------------------------------------------------------- cut, broken and giant files


def samples16(channels):
    return colours(channels=channels, dtype=np.uint16)


def tiff(a, **options):
    buffer = io.BytesIO()
    a = a[..., 0] if a.shape[2:] == (1,) else a  # tifffile would take the one channel for pages
    tifffile.imwrite(
        buffer, a, photometric=options.pop("photometric", "rgb"), metadata=None, **options
    )
    return buffer.getvalue()


WHOLE = {
    "jpeg": lambda: encode(picture(), "JPEG"),
    "progressive": lambda: encode(picture(), "JPEG", progressive=True),
    "grey": lambda: encode(picture("L"), "JPEG"),
    "cmyk": lambda: encode(picture("CMYK"), "JPEG"),
    "png": lambda: encode(picture(), "PNG"),
    "png16": lambda: formats.encode(samples16(3), "PNG", None, None, 95),
    "palette": lambda: encode(picture().quantize(16), "PNG"),
    "gif": lambda: encode(picture().quantize(16), "GIF"),
    "webp": lambda: encode(picture(), "WEBP"),
    "lossless": lambda: encode(picture("RGBA"), "WEBP", lossless=True),
    "bmp": lambda: encode(picture(), "BMP"),
    "ppm": lambda: encode(picture(), "PPM"),
    "ppm16": lambda: b"P6 31 24 65535\n" + samples16(3).astype(">u2").tobytes(),
    "tiff": lambda: encode(picture(), "TIFF"),
    "tiff-lzw": lambda: encode(picture(), "TIFF", compression="tiff_lzw", icc_profile=SRGB),
    "tiff-jpeg": lambda: encode(picture(), "TIFF", compression="jpeg", icc_profile=SRGB),
    "tiff16": lambda: tiff(samples16(3)),
    "tiff16-lzw": lambda: cv2.imencode(".tif", samples16(3), [cv2.IMWRITE_TIFF_COMPRESSION, 5])[
        1
    ].tobytes(),
    "ours16": lambda: formats.encode(samples16(4), "TIFF", SRGB, exif(), 95),
    "float": lambda: tiff((samples16(3) / 65535).astype(np.float32)),
    "avif": lambda: (
        encode(picture(), "AVIF")
        if features.check("avif")
        else pytest.skip("this Pillow has no AVIF")
    ),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_that_was_cut_is_refused_as_truncated(tmp_path, kind):
    data, file = WHOLE[kind](), tmp_path / "x"
    file.write_bytes(data)
    load(file)
    for share in range(0, 100, 10):
        file.write_bytes(data[: len(data) * share // 100])
        assert code(load, file) == ("E_TRUNCATED" if share else "E_EMPTY"), f"cut at {share} %"


def test_a_cut_file_is_refused_also_where_pillow_was_told_to_take_them(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    (tmp_path / "x.jpg").write_bytes(encode(picture(), "JPEG")[:-60])
    assert code(load, tmp_path / "x.jpg") == "E_TRUNCATED" and ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("kind", WHOLE)
def test_a_damaged_file_is_a_picture_or_an_image_error(tmp_path, kind):
    data, rng, file = WHOLE[kind](), np.random.default_rng(7), tmp_path / "x"
    for i in range(25):
        broken = bytearray(data)
        for at in rng.integers(
            0, min(len(data), (100, 400, 1 << 30)[i % 3]), rng.choice([1, 2, 8])
        ):
            broken[at] = rng.integers(256)
        file.write_bytes(broken)
        with contextlib.suppress(ImageError):
            pixels = load(file, max_pixels=1_000_000).pixels
            assert pixels.dtype == np.float32 and pixels.min() >= 0 and pixels.max() <= 1


def png_header(width, height, bits=8, kind=2):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    idat, end = b"IDAT" + zlib.compress(bytes(100)), b"IEND"
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (body, idat, end)
    )


def patched(data: bytes, mark: bytes, skip: int, new: bytes) -> bytes:
    at = data.index(mark) + skip
    return data[:at] + new + data[at + len(new) :]


GIANT = {
    "png": lambda: png_header(30000, 30000),
    "png16": lambda: png_header(2**31 - 1, 2**31 - 1, 16, 6),
    "jpeg": lambda: patched(
        encode(picture(), "JPEG"), b"\xff\xc0", 5, struct.pack(">HH", 65500, 65500)
    ),
    "gif": lambda: patched(
        encode(picture().quantize(4), "GIF"), b"GIF", 6, struct.pack("<HH", 65535, 65535)
    ),
    "bmp": lambda: patched(encode(picture(), "BMP"), b"BM", 18, struct.pack("<ii", 30000, 30000)),
    "ppm": lambda: b"P6 30000 30000 255\n" + bytes(99),
    "tiff": lambda: patched(
        encode(picture(), "TIFF"), struct.pack("<HHII", 256, 4, 1, 31), 8, struct.pack("<I", 10**8)
    ),
    "tiff16": lambda: patched(
        tiff(samples16(3)), struct.pack("<HHII", 256, 4, 1, 31), 8, struct.pack("<I", 10**8)
    ),
    "webp": lambda: (
        b"RIFF"
        + struct.pack("<I", 40)
        + b"WEBPVP8X"
        + struct.pack("<II", 10, 0)
        + b"\xfe\x3f\x00" * 2
        + bytes(18)
    ),
}


@pytest.mark.parametrize(
    "head",
    [
        b"II+\0\x08\0\0\0" + b"\xff" * 8,
        b"II+\0\x08\0\0\0\x10" + bytes(7) + b"\xff" * 8,
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"II*\0",
    ],
)
def test_a_tiff_directory_that_leads_nowhere(tmp_path, head):
    (tmp_path / "x.tif").write_bytes(head + bytes(40))
    assert code(load, tmp_path / "x.tif") in ("E_TRUNCATED", "E_FORMAT")


@pytest.mark.parametrize("kind", GIANT)
def test_the_pixel_limit_is_asked_before_anything_is_decoded(tmp_path, kind):
    """There are hardly any data behind these headers: a reader that decoded first would call them
    truncated.
    """
    (tmp_path / "x").write_bytes(GIANT[kind]())
    assert code(load, tmp_path / "x") == "E_TOO_LARGE"


def test_the_pixel_limit_is_a_limit(tmp_path):
    (tmp_path / "x.png").write_bytes(encode(picture(), "PNG"))
    assert load(tmp_path / "x.png", max_pixels=24 * 31).pixels.shape == (24, 31, 3)
    for source in (tmp_path / "x.png", picture(), colours()):
        assert code(load, source, max_pixels=24 * 31 - 1) == "E_TOO_LARGE"


def test_the_byte_limit_is_asked_before_anything_is_read(tmp_path):
    (tmp_path / "x.png").touch()
    os.truncate(tmp_path / "x.png", 1 << 40)  # sparse: a terabyte of nothing
    assert code(load, tmp_path / "x.png") == "E_TOO_LARGE"
    (tmp_path / "y").write_bytes(b"12345")
    assert image.read_bytes(tmp_path / "y", max_bytes=5) == b"12345"
    assert code(image.read_bytes, tmp_path / "y", max_bytes=4) == "E_TOO_LARGE"


def test_a_strip_that_unpacks_to_more_than_it_says_is_refused(tmp_path):
    data = tiff(samples16(3), compression="zlib")
    page = tifffile.TiffFile(io.BytesIO(data)).pages[0]
    bomb = zlib.compress(bytes(20 << 20))
    at = (
        data.index(struct.pack("<HHII", 279, 4, 1, page.databytecounts[0]))
        if page.tags[279].dtype == 4
        else None
    )
    if at is None:
        pytest.skip("this tifffile writes its strip sizes another way")
    data = bytearray(data + bytes(len(data) % 2))
    struct.pack_into("<I", data, at + 8, len(bomb))
    struct.pack_into("<I", data, page.tags[273].valueoffset, len(data))
    (tmp_path / "x.tif").write_bytes(bytes(data) + bomb)
    assert code(load, tmp_path / "x.tif") == "E_TOO_LARGE"


# ---------------------------------------------------------------- colours as the file has them

NO_ALPHA = [(f, m) for f in ("JPEG", "BMP", "GIF", "PPM") for m in ("RGB", "L")]
ALPHA_TOO = [(f, m) for f in ("PNG", "WEBP", "TIFF") for m in ("RGB", "L", "RGBA")]


@pytest.mark.parametrize(
    "format, mode",
    [
        *NO_ALPHA,
        *ALPHA_TOO,
        *(pytest.param("AVIF", m, marks=AVIF.marks) for m in ("RGB", "L", "RGBA")),
    ],
)
def test_eight_bit_pixels_are_what_pillow_decodes(tmp_path, format, mode):
    (tmp_path / "x").write_bytes(encode(picture(mode), format))
    got, want = load(tmp_path / "x"), Image.open(tmp_path / "x")
    assert (
        np.array_equal(got.pixels, np.asarray(want.convert("RGB"), np.float32) / 255)
        and got.pixels.dtype == np.float32
    )
    assert (got.format, got.bits, got.grey) == (format, 8, want.mode == "L")
    assert got.pixels.flags.c_contiguous and got.pixels.flags.writeable
    if mode == "RGBA":
        assert np.array_equal(got.alpha, np.asarray(want)[..., 3] / np.float32(255))
    else:
        assert got.alpha is None


@pytest.mark.parametrize(
    "im, options",
    [
        (picture().quantize(8), {"transparency": bytes(range(0, 256, 32))}),
        (picture().quantize(8), {"transparency": 3}),
        (picture("LA"), {}),
        (picture("RGB"), {"transparency": (1, 2, 3)}),
        (picture("L"), {"transparency": 100}),
        (picture("L").convert("1"), {"transparency": 0}),
        (picture("L").convert("1"), {}),
    ],
    ids=["palette-alphas", "palette-one", "LA", "rgb-key", "grey-key", "bit-key", "bit"],
)
def test_every_way_to_be_transparent(tmp_path, im, options):
    (tmp_path / "x.png").write_bytes(encode(im, "PNG", **options))
    got, want = (
        load(tmp_path / "x.png"),
        np.asarray(Image.open(tmp_path / "x.png").convert("RGBA"), np.float32) / 255,
    )
    assert np.array_equal(got.pixels, want[..., :3]) and got.grey == (im.mode in ("L", "LA", "1"))
    assert (
        got.alpha is None
        if im.mode == "1" and not options
        else np.array_equal(got.alpha, want[..., 3])
    )


def by_opencv(suffix, *options):
    return lambda a: cv2.imencode(
        suffix, a[..., [2, 1, 0, 3][: a.shape[2]]] if a.shape[2] > 2 else a, options
    )[1].tobytes()


@pytest.mark.parametrize(
    "channels, make",
    [
        (3, by_opencv(".png")),
        (4, by_opencv(".png")),
        (1, by_opencv(".png")),
        (3, by_opencv(".tif", cv2.IMWRITE_TIFF_COMPRESSION, 5)),
        (3, by_opencv(".ppm")),
        (1, by_opencv(".pgm")),
        (3, tiff),
        (3, lambda a: tiff(a, compression="zlib")),
        (3, lambda a: tiff(a, byteorder=">")),
        (3, lambda a: tiff(a, bigtiff=True)),
        (3, lambda a: tiff(a, tile=(16, 16))),
        (4, lambda a: tiff(a, extrasamples=["unassalpha"])),
        (3, lambda a: tiff(np.moveaxis(a, 2, 0).copy(), planarconfig="separate")),
        (1, lambda a: tiff(a, photometric="minisblack")),
        (1, lambda a: tiff(65535 - a, photometric="miniswhite")),
        (2, lambda a: tiff(a, photometric="minisblack", extrasamples=["unassalpha"])),
        (2, lambda a: formats.encode(a, "PNG", None, None, 95)),
        (2, lambda a: formats.encode(a, "TIFF", None, None, 95)),
    ],
    ids=[
        "png-rgb",
        "png-rgba",
        "png-grey",
        "tiff-lzw",
        "ppm",
        "pgm",
        "tiff",
        "tiff-deflate",
        "tiff-big-endian",
        "bigtiff",
        "tiff-tiles",
        "tiff-rgba",
        "tiff-planes",
        "tiff-grey",
        "tiff-white-is-zero",
        "tiff-grey-alpha",
        "png-grey-alpha",
        "ours-grey-alpha",
    ],
)
def test_sixteen_bits_stay_sixteen_also_when_the_picture_is_dark(tmp_path, channels, make):
    for dark in (1, 300):
        a = samples16(channels) // dark
        (tmp_path / "x").write_bytes(make(a))
        got, scaled = load(tmp_path / "x"), a.astype(np.float32) / np.float32(65535)
        assert got.bits == 16 and got.grey == (channels < 3), dark
        assert np.array_equal(
            got.pixels,
            np.broadcast_to(scaled[..., :3] if channels > 2 else scaled[..., :1], (24, 31, 3)),
        )
        assert (
            np.array_equal(got.alpha, scaled[..., -1]) if channels in (2, 4) else got.alpha is None
        ), dark


def test_colours_multiplied_with_alpha_are_divided_again(tmp_path):
    a = samples16(4)
    a[..., 3] = 32768
    a[0, 0] = 0
    pre = a.copy()
    pre[..., :3] = np.rint(a[..., :3] * (a[..., 3:] / 65535))
    (tmp_path / "x.tif").write_bytes(tiff(pre, extrasamples=["assocalpha"]))
    got = load(tmp_path / "x.tif")
    assert np.abs(got.pixels - a[..., :3] / 65535).max() < 3 / 65535 and got.alpha[0, 0] == 0


def test_sixteen_bit_key_colour(tmp_path):
    a = samples16(1)[..., 0]
    (tmp_path / "x.png").write_bytes(encode(Image.fromarray(a), "PNG", transparency=int(a[3, 4])))
    got = load(tmp_path / "x.png")
    assert got.alpha is not None and np.array_equal(got.alpha == 0, a == a[3, 4]) and got.bits == 16


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_files_hold_0_to_1(tmp_path, channels, dtype):
    a = (samples16(channels) / 65535).astype(dtype)
    kind = "rgb" if channels == 3 else "minisblack"
    (tmp_path / "x.tif").write_bytes(tiff(a, photometric=kind))
    got = load(tmp_path / "x.tif")
    assert got.bits == 16 and np.array_equal(
        got.pixels, np.broadcast_to(a.astype(np.float32), (24, 31, 3))
    )
    for bad, expected in (
        (np.nan, "E_NONFINITE"),
        (np.inf, "E_NONFINITE"),
        (-np.inf, "E_NONFINITE"),
        (1.5, "E_FORMAT"),
        (-0.5, "E_FORMAT"),
    ):
        a[5, 6] = bad
        (tmp_path / "x.tif").write_bytes(tiff(a, photometric=kind))
        assert code(load, tmp_path / "x.tif") == expected


@pytest.mark.parametrize(
    "a",
    [samples16(3).astype(np.uint32), samples16(3).astype(np.int32), samples16(1).astype(np.int16)],
)
def test_integers_of_unknown_range_are_refused(tmp_path, a):
    (tmp_path / "x.tif").write_bytes(
        tiff(a, photometric="rgb" if a.shape[2] == 3 else "minisblack")
    )
    assert code(load, tmp_path / "x.tif") == "E_FORMAT"


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_of_several_frames_the_first_is_read_and_that_is_said(tmp_path, format):
    frames = [Image.new("RGB", (16, 16), (80 * i, 0, 0)) for i in range(3)]
    (tmp_path / "x").write_bytes(encode(frames[0], format, save_all=True, append_images=frames[1:]))
    got = load(tmp_path / "x")
    assert "first of 3 frames" in got.notes and got.pixels.max() < 0.02


@pytest.mark.parametrize(
    "options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}]
)
def test_a_tiff_too_large_for_pillow_is_read_and_written_all_the_same(
    tmp_path, monkeypatch, options
):
    (tmp_path / "x.tif").write_bytes(encode(picture(), "TIFF", exif=exif(6), **options))
    want = load(tmp_path / "x.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 31 // 2 - 10)
    got = load(tmp_path / "x.tif")
    assert np.array_equal(got.pixels, want.pixels) and (got.bits, got.exif) == (8, want.exif)
    assert np.array_equal(read(write(tmp_path / "y.tif", got)), want.pixels)
    for suffix in (".png", ".jpg", ".bmp"):
        assert read(write(tmp_path / f"y{suffix}", got)).shape == (31, 24, 3)


# ---------------------------------------------------------------- turns, EXIF, ICC


@pytest.mark.parametrize("format", FORMATS)
def test_all_eight_turns_are_applied(tmp_path, format):
    for turn in range(1, 9):
        (tmp_path / "x").write_bytes(encode(picture(), format, exif=exif(turn)))
        got, want = load(tmp_path / "x"), ImageOps.exif_transpose(Image.open(tmp_path / "x"))
        assert np.array_equal(got.pixels, np.asarray(want, np.float32) / 255), turn
        tags = Image.Exif()
        tags.load(got.exif)
        assert 0x0112 not in tags and tags[0x010F] == "Maker", turn


def with_turn(data: bytes, turn: int) -> bytes:
    """A little-endian TIFF with an orientation tag more: its directory is written again at the
    end.
    """
    (at,) = struct.unpack_from("<I", data, 4)
    (n,) = struct.unpack_from("<H", data, at)
    entries = sorted(
        [data[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(n)]
        + [struct.pack("<HHIHH", 274, 3, 1, turn, 0)],
        key=lambda e: struct.unpack("<H", e[:2]),
    )
    data += bytes(len(data) % 2)
    return (
        data[:4]
        + struct.pack("<I", len(data))
        + data[8:]
        + struct.pack("<H", n + 1)
        + b"".join(entries)
        + bytes(4)
    )


@pytest.mark.parametrize("kind", ["png", "tiff", "tiff-lzw", "grey"])
def test_sixteen_bit_pictures_are_turned_too(tmp_path, kind):
    for turn in range(1, 9):
        a = samples16(1 if kind == "grey" else 3)
        if kind == "tiff-lzw":
            data = with_turn(WHOLE["tiff16-lzw"](), turn)
        elif kind == "tiff":
            data = formats.encode(a, "TIFF", None, exif(turn), 95)
        else:
            data = formats.encode(a, "PNG", None, exif(turn), 95)
        (tmp_path / "x").write_bytes(data)
        a = a[..., ::-1] if kind == "tiff-lzw" else a  # OpenCV stored blue first
        plain = np.dstack(
            [
                np.asarray(ImageOps.exif_transpose(turned(a[..., i], turn)))
                for i in range(a.shape[2])
            ]
        )
        assert np.array_equal(
            load(tmp_path / "x").pixels,
            np.broadcast_to(plain.astype(np.float32) / np.float32(65535), (*plain.shape[:2], 3)),
        )


def turned(a, turn):
    """One channel as a PIL image that says it is turned."""
    im = Image.fromarray(a.astype(np.int32))
    im.getexif()[0x0112] = turn
    return im


def test_the_turn_is_not_lost_with_a_tag_that_cannot_be_written_again(tmp_path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(encode(picture(), "JPEG", exif=exif(6)))
    monkeypatch.setattr(Image.Exif, "tobytes", lambda *_: struct.pack("b", 1000))
    got = load(tmp_path / "x.jpg")
    assert (
        got.pixels.shape == (31, 24, 3)
        and got.exif is None
        and "EXIF ignored: unreadable" in got.notes
    )


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_turn_that_only_xmp_tells_is_applied(tmp_path, format):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    (tmp_path / "x").write_bytes(encode(picture(), format, xmp=xmp))
    want = ImageOps.exif_transpose(Image.open(tmp_path / "x"))
    got = load(tmp_path / "x")
    assert want.size == (24, 31) or format == "PNG"  # Pillow before 12 did not write XMP into a PNG
    assert np.array_equal(got.pixels, np.asarray(want, np.float32) / 255) and got.exif is None


@pytest.mark.parametrize("turn", [0, 9, 255, 65535])
def test_a_turn_that_is_none_is_ignored(tmp_path, turn):
    (tmp_path / "x.jpg").write_bytes(encode(picture(), "JPEG", exif=exif(turn)))
    assert np.array_equal(
        read(tmp_path / "x.jpg"), np.asarray(Image.open(tmp_path / "x.jpg"), np.float32) / 255
    )


def test_rubbish_exif_is_ignored_and_said_and_warns_nobody(tmp_path):
    data = bytearray(encode(picture(), "JPEG", exif=exif(6)))
    at = data.index(b"Exif\0\0") + 10
    data[at : at + 20] = b"\xff" * 20
    (tmp_path / "x.jpg").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        got = load(tmp_path / "x.jpg")
        assert warnings.filters == before
    assert (
        got.exif is None
        and got.pixels.shape == (24, 31, 3)
        and "EXIF ignored: unreadable" in got.notes
    )


def test_the_stale_thumbnail_and_the_stale_size_are_dropped_the_rest_is_kept(tmp_path):
    thumbnail = encode(Image.new("RGB", (8, 8), "red"), "JPEG")
    entry = lambda tag, kind, value: struct.pack("<HHII", tag, kind, 1, value)
    main = [
        struct.pack("<HHI4s", 271, 2, 4, b"Cam\0"),
        entry(274, 3, 6),
        entry(0x8769, 4, 8 + 2 + 36 + 4),
    ]
    sub = [entry(0xA002, 4, 31), entry(0xA003, 4, 24), entry(0xA406, 3, 2)]  # size; portrait scene
    second = 8 + 2 + 36 + 4 + 2 + 36 + 4
    one = [entry(513, 4, second + 2 + 24 + 4), entry(514, 4, len(thumbnail))]
    block = (
        b"Exif\0\0II*\0"
        + struct.pack("<I", 8)
        + b"".join(
            struct.pack("<H", len(e)) + b"".join(e) + struct.pack("<I", after)
            for e, after in ((main, second), (sub, 0), (one, 0))
        )
        + thumbnail
    )
    (tmp_path / "x.jpg").write_bytes(encode(picture(), "JPEG", exif=block))
    source = Image.open(tmp_path / "x.jpg").getexif()
    assert source.get_ifd(ExifTags.IFD.IFD1)[514] == len(
        thumbnail
    )  # the file is as meant: it has one
    got = load(tmp_path / "x.jpg")
    tags = Image.Exif()
    tags.load(got.exif)
    assert thumbnail not in got.exif and not tags.get_ifd(ExifTags.IFD.IFD1)
    assert dict(tags.get_ifd(0x8769)) == {0xA406: 2} and tags[271] == "Cam"
    assert got.pixels.shape == (31, 24, 3)


def test_tags_about_a_tiff_file_do_not_travel(tmp_path):
    (tmp_path / "x.tif").write_bytes(encode(picture(), "TIFF", exif=exif(6)))
    out = Image.open(write(tmp_path / "y.jpg", load(tmp_path / "x.tif")))
    assert dict(out.getexif()) == {0x010F: "Maker"} and out.size == (24, 31)


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.tif", "x.avif", "x.bmp"])
@pytest.mark.parametrize("bits", [8, 16])
def test_icc_and_exif_go_through(tmp_path, name, bits):
    if name == "x.avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    source = replace(load(colours()), bits=bits, icc=SRGB, exif=exif())
    got, lost = load(write(tmp_path / name, source)), image.what_is_lost(source, name)
    assert (got.icc == SRGB) == (name != "x.bmp") == (not any("ICC" in text for text in lost))
    assert (got.exif is not None) == (name != "x.bmp") == (not any("EXIF" in text for text in lost))
    assert (got.bits == bits) == (not any("16" in text for text in lost))
    if name != "x.bmp":
        assert (
            any(note.startswith("ICC profile kept: sRGB") for note in got.notes)
            and b"Maker" in got.exif
        )


def test_exif_too_long_for_a_jpeg_is_dropped_and_said(tmp_path):
    source = replace(load(colours()), exif=exif(maker="x" * 70000))
    assert image.what_is_lost(source, ".jpg") and not image.what_is_lost(source, ".png")
    assert (
        load(write(tmp_path / "x.jpg", source)).exif is None
        and len(load(write(tmp_path / "x.png", source)).exif) > 70000
    )


def icc_profile(
    space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", pcs: bytes = b"XYZ "
) -> bytes:
    """A profile by hand (ICC.1:2001): header, tag table, tags."""
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"mine\0" + bytes(79),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
        **tags,
    }
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    header = struct.pack(
        ">I4sI4s4s4s12s4s28x3i48x",
        at + len(body),
        bytes(4),
        0x02100000,
        kind,
        space,
        pcs,
        bytes(12),
        b"acsp",
        63190,
        65536,
        54061,
    )
    return header + struct.pack(">I", len(tags)) + table + body


GREY_ICC = icc_profile(
    b"GRAY", {b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, 0x0233) + b"\0\0"}
)


def cmyk_icc() -> bytes:
    """Cyan ink alone prints Lab (60, 40, 30), a pink no plain formula would give; everything else
    gets darker with ink.
    """
    table = b""
    for corner in range(16):
        ink = [corner >> 3 & 1, corner >> 2 & 1, corner >> 1 & 1, corner & 1]
        lab = (60, 40, 30) if ink == [1, 0, 0, 0] else (100 - 25 * sum(ink), 0, 0)
        table += bytes([round(lab[0] * 2.55), lab[1] + 128, lab[2] + 128])
    line = bytes(range(256))
    lut = (
        b"mft1\0\0\0\0"
        + bytes([4, 3, 2, 0])
        + struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
        + line * 4
        + table
        + line * 3
    )
    return icc_profile(b"CMYK", {b"A2B0": lut}, b"prtr", b"Lab ")


def test_cmyk_goes_through_its_profile_to_srgb_and_that_is_said(tmp_path):
    im = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    (tmp_path / "x.tif").write_bytes(encode(im, "TIFF", icc_profile=cmyk_icc()))
    got = load(tmp_path / "x.tif")
    assert "CMYK converted to sRGB" in got.notes and got.icc is None
    assert (
        np.abs(got.pixels[0, 0] - lab2rgb([[(60.0, 40.0, 30.0)]], illuminant="D65")[0, 0]).max()
        < 0.02
    )  # another way from Lab to sRGB


@pytest.mark.parametrize("icc", [None, b"rubbish" * 99, SRGB])
def test_cmyk_without_a_usable_profile_is_not_inverted(tmp_path, icc):
    im = (
        Image.fromarray(np.array([[[255, 255, 255]], [[200, 30, 30]], [[0, 0, 0]]], np.uint8))
        .convert("CMYK")
        .resize((16, 48), 0)
    )
    (tmp_path / "x.jpg").write_bytes(encode(im, "JPEG", quality=95, icc_profile=icc))
    got = load(tmp_path / "x.jpg")
    assert (
        np.abs(
            got.pixels[[8, 24, 40], 8] - np.array([[255, 255, 255], [200, 30, 30], [0, 0, 0]]) / 255
        ).max()
        < 0.05
    )
    assert "CMYK converted to sRGB without a profile" in got.notes and got.icc is None


def test_a_grey_profile_on_grey_is_kept_and_written(tmp_path):
    (tmp_path / "x.png").write_bytes(encode(picture("L"), "PNG", icc_profile=GREY_ICC))
    got = load(tmp_path / "x.png")
    assert got.grey and got.icc == GREY_ICC and "ICC profile kept: mine" in got.notes
    assert load(write(tmp_path / "y.jpg", got)).icc == GREY_ICC


@pytest.mark.parametrize(
    "mode, icc, said",
    [
        ("RGB", b"not a profile" * 50, "unreadable"),
        ("L", SRGB, "is for RGB"),
        ("RGB", GREY_ICC, "is for GRAY"),
    ],
)
def test_a_profile_that_does_not_fit_is_ignored_and_said(tmp_path, mode, icc, said):
    (tmp_path / "x.jpg").write_bytes(encode(picture(mode), "JPEG", icc_profile=icc))
    got = load(tmp_path / "x.jpg")
    assert got.icc is None and any(
        "ICC profile ignored" in note and said in note for note in got.notes
    )


# ---------------------------------------------------------------- PIL images and arrays


def test_a_pil_image_is_read_as_its_file_and_not_changed(tmp_path):
    (tmp_path / "x.jpg").write_bytes(encode(picture(), "JPEG", exif=exif(6), icc_profile=SRGB))
    im, file = Image.open(tmp_path / "x.jpg"), load(tmp_path / "x.jpg")
    got = load(im)
    assert np.array_equal(got.pixels, file.pixels) and (got.icc, got.exif, got.path) == (
        file.icc,
        file.exif,
        None,
    )
    assert im.getexif()[0x0112] == 6 and im.size == (31, 24)


def test_a_pil_image_that_cannot_be_decoded_is_said():
    data = encode(picture(), "JPEG")
    assert code(load, Image.open(io.BytesIO(data[:-60]))) == "E_TRUNCATED"
    assert code(load, Image.new("RGB", (0, 5))) == "E_FORMAT"
    assert code(load, Image.new("I", (2, 2))) == "E_FORMAT"
    assert code(load, Image.fromarray(np.full((2, 2), np.nan, np.float32))) == "E_NONFINITE"


@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
@pytest.mark.parametrize(
    "dtype, top, bits",
    [(np.uint8, 255, 8), (np.uint16, 65535, 16), (np.float32, 1, 8), (np.float64, 1, 8)],
)
def test_arrays(channels, dtype, top, bits):
    a = np.asarray(
        np.random.default_rng(0).random((5, 7) if channels is None else (5, 7, channels)) * top,
        dtype,
    )
    got, scaled = load(a), (a / np.float32(top)).astype(np.float32).reshape(5, 7, -1)
    assert np.array_equal(
        got.pixels,
        np.broadcast_to(scaled[..., :3] if (channels or 1) > 2 else scaled[..., :1], (5, 7, 3)),
    )
    assert (got.bits, got.grey) == (bits, (channels or 1) < 3)
    assert np.array_equal(got.alpha, scaled[..., -1]) if channels in (2, 4) else got.alpha is None
    assert not np.shares_memory(got.pixels, a)


@pytest.mark.parametrize(
    "a, expected",
    [
        (np.zeros((4, 4, 3), np.int64), "E_FORMAT"),
        (np.zeros((4, 4, 3), bool), "E_FORMAT"),
        (np.zeros((4, 4, 3), complex), "E_FORMAT"),
        (np.zeros((4, 4, 3), object), "E_FORMAT"),
        (np.zeros((4,), np.uint8), "E_FORMAT"),
        (np.zeros((1, 3, 4, 4), np.float32), "E_FORMAT"),
        (np.zeros((3, 4, 6), np.float32), "E_FORMAT"),
        (np.zeros((4, 4, 0), np.uint8), "E_FORMAT"),
        (np.zeros((0, 4, 3), np.uint8), "E_FORMAT"),
        (np.full((4, 4, 3), 255.0), "E_FORMAT"),
        (np.full((4, 4, 3), -0.1), "E_FORMAT"),
        (np.full((4, 4), np.nan, np.float32), "E_NONFINITE"),
        (np.full((4, 4), np.inf), "E_NONFINITE"),
    ],
)
def test_arrays_that_are_no_picture(a, expected):
    assert code(load, a) == expected


def test_a_float_a_hair_outside_is_clipped():
    assert np.array_equal(read(np.array([[-1e-6, 1 + 1e-6]])), [[[0, 0, 0], [1, 1, 1]]])


def test_readers_in_threads_leave_the_warnings_as_they_were(tmp_path):
    (tmp_path / "x.png").write_bytes(encode(picture(), "PNG"))
    before, wrong = list(warnings.filters), []

    def reader():
        wrong.extend(1 for _ in range(5) if read(tmp_path / "x.png").shape != (24, 31, 3))

    threads = [threading.Thread(target=reader) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and warnings.filters == before


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize(
    "suffix, channels, dtype",
    pairwise([".png", ".tif", ".TIFF", ".bmp"], [1, 2, 3, 4], [np.uint8, np.uint16]),
)
def test_lossless_formats_give_back_what_they_can_hold(tmp_path, suffix, channels, dtype):
    source = load(colours(channels=channels, dtype=dtype))
    got, lost = load(write(tmp_path / f"x{suffix}", source)), image.what_is_lost(source, suffix)
    deep = suffix != ".bmp" or dtype == np.uint8
    assert (
        np.array_equal(got.pixels, source.pixels)
        if deep
        else np.abs(got.pixels - source.pixels).max() <= 0.5 / 255 + 1e-6
    )
    assert (got.bits == source.bits) == (not any("16" in text for text in lost)) == deep
    kept = source.alpha is None or got.alpha is not None and np.array_equal(got.alpha, source.alpha)
    assert (
        kept
        == (not any("alpha" in text for text in lost))
        == (suffix != ".bmp" or channels in (1, 3))
    )
    assert got.grey == source.grey


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp", ".avif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_lossy_formats_come_close(tmp_path, suffix, channels):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    source = load(colours(channels=channels))
    got = load(write(tmp_path / f"x{suffix}", source))
    assert np.abs(got.pixels - source.pixels).mean() < 0.02
    assert (got.alpha is not None) == (channels in (2, 4) and "j" not in suffix.lower())
    assert got.grey == (
        source.grey and not any("grey" in text for text in image.what_is_lost(source, suffix))
    )
    if source.grey:
        assert np.ptp(got.pixels, axis=2).max() < 0.01


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_turn_left_in_the_exif_is_not_written(tmp_path, suffix, bits):
    out = load(write(tmp_path / f"x{suffix}", replace(load(colours()), bits=bits, exif=exif(6))))
    assert out.pixels.shape == (24, 31, 3) and b"Maker" in out.exif


def test_other_programs_read_our_sixteen_bits(tmp_path):
    source = replace(
        load(samples16(4)), icc=SRGB, exif=exif(6)
    )  # somebody put a turn in, but the pixels are upright: it must go
    png, tif = write(tmp_path / "x.png", source), write(tmp_path / "x.tif", source)
    assert np.array_equal(
        cv2.imread(str(png), cv2.IMREAD_UNCHANGED)[..., [2, 1, 0, 3]], samples16(4)
    )
    assert np.array_equal(tifffile.imread(tif), samples16(4))
    im = Image.open(png)
    assert im.info["icc_profile"] == SRGB and dict(im.getexif()) == {0x010F: "Maker"}
    page = tifffile.TiffFile(tif).pages[0]
    assert (
        page.tags[34675].value == SRGB
        and page.tags["Make"].value == "Maker"
        and page.extrasamples[0] == 2
    )


def test_sub_directories_of_exif_go_into_sixteen_bit_tiffs(tmp_path):
    tags = Image.Exif()
    tags[271] = "Cam"
    tags.get_ifd(0x8769)[0x9003] = "2001:02:03 04:05:06"
    tags.get_ifd(0x8825)[1] = "N"
    got = load(write(tmp_path / "x.tif", replace(load(samples16(3)), exif=tags.tobytes())))
    back = Image.Exif()
    back.load(got.exif)
    assert (
        back[271] == "Cam"
        and back.get_ifd(0x8769)[0x9003] == "2001:02:03 04:05:06"
        and back.get_ifd(0x8825)[1] == "N"
    )


def test_a_photo_is_written_as_eight_bit_rgb_rounded_to_nearest(tmp_path):
    levels = np.arange(256, dtype=np.float32)
    row = np.concatenate([levels, levels[:-1] + 0.49, levels[1:] - 0.49]) / np.float32(255)
    write(tmp_path / "x.png", np.repeat(row[None, :, None], 3, 2))
    im = Image.open(tmp_path / "x.png")
    assert im.mode == "RGB" and np.array_equal(
        np.asarray(im)[0, :, 1], np.concatenate([levels, levels[:-1], levels[1:]])
    )


def test_grey_is_written_as_the_mean_and_clipped(tmp_path):
    pixels = np.array([[[0.2, 0.4, 0.6], [-1, -1, -1], [2, 2, 2]]], np.float32)
    write(tmp_path / "x.png", Picture(pixels, grey=True))
    im = Image.open(tmp_path / "x.png")
    assert im.mode == "L" and np.asarray(im).tolist() == [[102, 0, 255]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nothing_that_is_not_finite_is_written(tmp_path, value):
    pixels = np.zeros((70, 3, 3), np.float32)
    pixels[69, 2, 1] = value
    assert (
        code(write, tmp_path / "x.png", Picture(pixels)) == "E_NONFINITE"
        and code(write, tmp_path / "x.png", pixels) == "E_NONFINITE"
    )
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["x", "x.gif", "x.txt", "x.png.bak", "x.jp2"])
def test_an_unknown_suffix_lists_the_known_ones(tmp_path, name):
    with pytest.raises(ImageError, match=r"\.jpg.*\.png.*\.tif") as caught:
        write(tmp_path / name, colours())
    assert caught.value.code == "E_FORMAT" and not os.listdir(tmp_path)


def test_overwrite_or_not(tmp_path):
    first, second = colours(seed=1), colours(seed=2)
    file = write(tmp_path / "x.png", first, overwrite=False)
    assert code(write, file, second, overwrite=False) == "E_WRITE" and np.array_equal(
        read(file), read(first)
    )
    assert np.array_equal(read(write(file, second)), read(second)) and os.listdir(tmp_path) == [
        "x.png"
    ]


@pytest.mark.parametrize("links", [True, False])
def test_of_many_writers_that_may_not_overwrite_one_wins(tmp_path, monkeypatch, links):
    if not links:  # a file system without hard links
        monkeypatch.setattr(
            os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links"))
        )
    won, gate = [], threading.Barrier(8)

    def writer(i):
        gate.wait()
        with contextlib.suppress(ImageError):
            image.write_bytes(tmp_path / "x", b"%d" % i * 1000, overwrite=False)
            won.append(i)

    threads = [threading.Thread(target=writer, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (
        len(won) == 1
        and image.read_bytes(tmp_path / "x") == b"%d" % won[0] * 1000
        and os.listdir(tmp_path) == ["x"]
    )


@pytest.mark.parametrize("call", ["fsync", "replace", "open", "link"])
def test_a_failing_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    (tmp_path / "x.png").write_bytes(b"old")
    real = getattr(os, call)

    def fail(*args, **kwargs):
        if call == "open" and not args[1] & os.O_CREAT:
            return real(*args, **kwargs)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    name = "y.png" if call == "link" else "x.png"
    if call == "link":  # then the name is taken another way, which fails as well
        monkeypatch.setattr(os, "replace", fail)
    assert code(write, tmp_path / name, colours(), overwrite=call != "link") == "E_WRITE"
    monkeypatch.undo()
    assert (tmp_path / "x.png").read_bytes() == b"old" and not [
        n for n in os.listdir(tmp_path) if n.endswith(".tmp")
    ]


def test_a_file_that_is_cut_off_while_it_is_written_never_gets_the_name(tmp_path):
    resource = pytest.importorskip("resource")
    (tmp_path / "x").write_bytes(b"old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (5000, limit[1])
    )  # the system takes 5000 bytes and then fails
    try:
        assert code(image.write_bytes, tmp_path / "x", bytes(9000)) == "E_WRITE"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (tmp_path / "x").read_bytes() == b"old" and os.listdir(tmp_path) == ["x"]


def test_bytes_that_come_back_changed_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "read_bytes", lambda *_: b"other")
    assert code(image.write_bytes, tmp_path / "x", b"these") == "E_WRITE" and not os.listdir(
        tmp_path
    )


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_encoder_that_lies_is_noticed(tmp_path, monkeypatch, suffix):
    other = encode(
        Image.new("RGB", (31, 24) if suffix == ".png" else (31, 23)),
        "PNG" if suffix == ".png" else "JPEG",
    )
    monkeypatch.setattr(formats, "encode", lambda *_: other)
    assert code(write, tmp_path / f"x{suffix}", colours()) == "E_WRITE"
    monkeypatch.setattr(formats, "encode", lambda *_: other[: len(other) // 2])
    assert code(write, tmp_path / f"x{suffix}", colours()) == "E_WRITE" and not os.listdir(tmp_path)


def test_what_a_format_cannot_hold_is_an_error_not_a_file(tmp_path):
    assert (
        code(write, tmp_path / "x.webp", np.zeros((1, 16384, 3), np.float32)) == "E_WRITE"
    )  # WebP ends at 16383
    assert code(write, tmp_path / "x.jpg", np.zeros((1, 65536, 3), np.float32)) == "E_WRITE"
    assert code(write, tmp_path / "no" / "x.jpg", colours()) == "E_WRITE" and not os.listdir(
        tmp_path
    )


@pytest.mark.skipif(os.name != "posix", reason="POSIX rights")
def test_a_written_file_has_the_rights_of_any_new_file(tmp_path):
    mask = os.umask(0o027)
    try:
        assert write(tmp_path / "x.png", colours()).stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(mask)


def test_a_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "origin.png").write_bytes(b"origin")
    os.symlink("origin.png", tmp_path / "x.png")
    write(tmp_path / "x.png", colours())
    assert (tmp_path / "origin.png").read_bytes() == b"origin" and not (
        tmp_path / "x.png"
    ).is_symlink()


def test_the_longest_name_can_be_written(tmp_path):
    assert load(write(tmp_path / ("x" * 251 + ".png"), colours())).pixels.shape == (24, 31, 3)


def test_bytes_of_any_kind_go_round(tmp_path):
    for data in (b"", b"\0" * 10, os.urandom(10_000)):
        assert image.read_bytes(image.write_bytes(tmp_path / "weights.bin", data)) == data
    assert image.write_bytes(os.fsencode(tmp_path / "y"), b"1") == tmp_path / "y"


# ---------------------------------------------------------------- sizes and tensors


def photo(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "height, width, side, expected",
    [
        (100, 50, 20, (20, 10)),
        (50, 100, 33, (16, 33)),
        (1, 1000, 10, (1, 10)),
        (1000, 2, 5, (5, 1)),
        (7, 5, 1, (1, 1)),
        (3, 1, 2, (2, 1)),
    ],
)
def test_shrink_keeps_the_shape_and_at_least_one_pixel(height, width, side, expected):
    out = image.shrink(photo(height, width), side)
    assert (
        out.shape == (*expected, 3)
        and out.dtype == np.float32
        and out.flags.c_contiguous
        and out.min() >= 0
        and out.max() <= 1
    )


def test_shrink_never_enlarges_and_then_gives_the_same_array():
    a = photo(20, 30)
    assert (
        image.shrink(a, 30) is a
        and image.shrink(a, 10_000) is a
        and image.enlarge(a, 1) is a
        and image.resize(a, (20, 30)) is a
    )


@pytest.mark.parametrize("size", [(20, 30), (1, 1), (13, 90), (64, 7)])
def test_shrinking_is_pil_bicubic_with_antialiasing(size):
    a = photo(64, 90)
    want = np.dstack(
        [
            np.asarray(Image.fromarray(a[..., i]).resize(size[::-1], Image.Resampling.BICUBIC))
            for i in range(3)
        ]
    ).clip(0, 1)
    assert np.abs(image.resize(a, size) - want.reshape(*size, 3)).max() < 1e-5


def test_shrinking_does_not_alias():
    checker = np.repeat(np.indices((80, 80)).sum(0)[..., None] % 2, 3, 2).astype(np.float32)
    assert np.abs(image.shrink(checker, 20)[2:-2, 2:-2] - 0.5).max() < 0.01


@pytest.mark.parametrize("scale", [2, 3, 1.5, 4])
def test_enlarging_keeps_pixel_centres(scale):
    """A ramp 0.1 + 0.01·x becomes 0.1 + 0.01·(X − (k − 1)/2)/k. OpenCV's cubic ripples by up to a
    twentieth of a pixel; half a pixel of the larger picture, the usual mistake, is an eighth at the
    least."""
    ramp = np.broadcast_to(0.1 + 0.01 * np.arange(40, dtype=np.float32)[None, :, None], (40, 40, 3))
    for a in (ramp, ramp.transpose(1, 0, 2)):
        out = image.enlarge(a, scale)
        side = round(40 * scale)
        want = 0.1 + 0.01 * (np.arange(side) - (scale - 1) / 2) / scale
        margin = slice(int(3 * scale), -int(3 * scale))
        line = out[side // 2, margin, 0] if a is ramp else out[margin, side // 2, 0]
        assert out.shape == (side, side, 3) and np.abs(line - want[margin]).max() < 0.01 / 20


@pytest.mark.parametrize(
    "height, width, scale",
    [(1, 1, 2), (1, 1, 7.5), (3, 5, 1.5), (7, 1, 2), (2, 40_000, 1.5), (40_000, 1, 2), (5, 5, 0.1)],
)
def test_enlarge_gives_exactly_the_rounded_size(height, width, scale):
    out = image.enlarge(photo(height, width), scale)
    assert (
        out.shape == (max(1, round(height * scale)), max(1, round(width * scale)), 3)
        and out.min() >= 0
        and out.max() <= 1
    )


def test_resize_takes_masks_views_and_read_only_arrays_and_leaves_them_alone():
    a = photo(20, 30)
    kept = a.copy()
    a.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in ((10, 15), (40, 60), (10, 60)):
            assert image.resize(a[..., 0], size).shape == size
            assert np.allclose(
                image.resize(a[:, ::-1], size), image.resize(a, size)[:, ::-1], atol=1e-6
            )
    assert np.array_equal(a, kept)
    for size in ((0, 5), (5, -1)):
        with pytest.raises(ValueError, match="at least 1"):
            image.resize(a, size)


def test_photo_and_tensor_are_copies_of_each_other():
    a = photo(4, 6)
    t = image.to_tensor(a)
    assert (
        t.shape == (1, 3, 4, 6)
        and t.dtype == torch.float32
        and t.is_contiguous()
        and t[0, 2, 1, 5] == a[1, 5, 2]
    )
    for tensor in (t, t[0], t.to(memory_format=torch.channels_last), t.double()):
        assert np.array_equal(image.to_photo(tensor), a)
    back = image.to_photo(t)
    t[:] = 0
    assert np.array_equal(back, a) and back.flags.c_contiguous
    planes = np.ascontiguousarray(a.transpose(2, 0, 1))
    image.to_tensor(planes.transpose(1, 2, 0))[:] = 0  # the layout a careless version would alias
    assert np.array_equal(planes.transpose(1, 2, 0), a)
    leaf = torch.full((3, 2, 2), 1.5, requires_grad=True)
    assert np.array_equal(image.to_photo(leaf), np.ones((2, 2, 3))) and leaf.max() == 1.5
    assert image.to_tensor(a[::-1, ::-1]).shape == (1, 3, 4, 6)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 1, 4, 4), (4, 4), (4, 4, 3)])
def test_what_is_no_single_rgb_tensor_is_said(shape):
    with pytest.raises(ValueError, match="×".join(map(str, shape))):
        image.to_photo(torch.zeros(shape))


def test_with_pixels_takes_alpha_along():
    source = load(colours(channels=4))
    large = source.with_pixels(image.enlarge(source.pixels, 2))
    assert (
        large.alpha.shape == (48, 62)
        and np.array_equal(large.alpha, image.enlarge(source.alpha, 2))
        and source.alpha.shape == (24, 31)
    )
    same = source.with_pixels(np.zeros_like(source.pixels))
    assert same.alpha is source.alpha and same.pixels.max() == 0 and source.pixels.max() > 0


def test_a_note_is_printable_whatever_a_profile_says(tmp_path):
    """The colour space of a profile is four bytes of its own choice."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"R\x1bB\0"
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", icc_profile=bytes(profile))
    notes = image.load(tmp_path / "a.png").notes
    assert any("ICC profile ignored" in note for note in notes)
    assert all(note.isprintable() for note in notes)
