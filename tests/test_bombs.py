"""Any file of at most 1 MiB costs at most 2 s of the processor and 300 MiB.

Some two hundred try to cost more. A child for each format reads each file in a fork of its own, so
that each starts with the same memory; nothing may be written to its stderr.
"""

import io
import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from bombs import BOMBS, MIB, TIGHT, chunk, png, tiff
from PIL import Image, features
from test_image import WHOLE

from mtrestore.image import ImageError, load
from mtrestore.io import cost

METER = """
import json, os, resource, sys
from mtrestore import image

def read(path):
    if path == "nothing":
        return
    if path == "300 MB":
        bytearray(b"1") * 300_000_000
    try:
        image.load(path).samples.sum()
    except image.ImageError as e:
        assert str(e).isprintable() and len(str(e)) < 500
        os.write(out, e.code.encode())

for path in sys.argv[1:]:
    ends, out = os.pipe()
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
        read(path)
        os._exit(0)
    os.close(out)
    code = os.read(ends, 99).decode()
    _, status, used = os.wait4(pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    row = [path, status, used.ru_utime + used.ru_stime, used.ru_maxrss * unit, code]
    print(json.dumps(row), flush=True)
    os.close(ends)
"""


def measured(root, *paths) -> tuple[list[dict], str]:
    """[{name, status, seconds, mib, code}] of reading each file, mib above a fork that reads
    nothing, and what came on stderr.
    """
    env = {**os.environ, "PYTHONPATH": str(root)}
    # Through a shell that stays: on Linux a program begins with the peak of the process that
    # started it.
    command = [
        "sh",
        "-c",
        '"$@"; exit $?',
        "sh",
        sys.executable,
        "-c",
        METER,
        "nothing",
        *map(str, paths),
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(paths) + 1, done.stderr
    plain = rows[0][3]
    return [
        {
            "name": os.path.basename(path),
            "status": status,
            "seconds": seconds,
            "mib": (peak - plain) / MIB,
            "code": code,
        }
        for path, status, seconds, peak, code in rows[1:]
    ], done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="time and memory are measured the POSIX way")
@pytest.mark.parametrize("kind", BOMBS)
def test_any_file_of_a_megabyte_costs_two_seconds_and_300_mib_at_most(tmp_path, root, kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    paths = []
    for name, make in BOMBS[kind].items():
        data = make()
        assert len(data) <= MIB, f"{name}: {len(data)} bytes"
        paths.append(tmp_path / name.replace("/", " "))
        paths[-1].write_bytes(data)
    rows, said = measured(root, *paths)
    wrong = [row for row in rows if row["status"] or row["seconds"] > 2 or row["mib"] > 300]
    assert not wrong and len(rows) >= 10 and said == ""
    assert sum(not row["code"] for row in rows) >= 2, "some lie within the line, and are read"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="time and memory are measured the POSIX way")
def test_the_meter_sees_memory_and_codes(tmp_path, root):
    (tmp_path / "x.png").write_bytes(b"no picture")
    rows, _ = measured(root, tmp_path / "x.png", "300 MB")
    assert (
        rows[0]["code"] == "E_FORMAT"
        and rows[0]["mib"] < 30
        and 280 < rows[1]["mib"] < 330
        and rows[1]["code"] == "E_MISSING"
    )


# ---- what must be read all the same ------------------------------------------------------------


def gradient(mode: str) -> Image.Image:
    """12 million pixels of a ramp."""
    ramp = np.broadcast_to(np.arange(4000) * 255 // 3999, (3000, 4000)).astype(np.uint8)
    return Image.fromarray(ramp).convert(mode)


@pytest.mark.parametrize(
    "make, kind, options",
    [
        (lambda: gradient("RGB"), "PNG", {}),
        (lambda: gradient("RGBA"), "PNG", {}),
        (lambda: gradient("RGB"), "WEBP", {"lossless": True, "quality": 0, "method": 0}),
        (lambda: Image.new("RGB", (4960, 7016), "white"), "JPEG", {"quality": 75}),
        (lambda: Image.new("1", (3507, 4960), 1), "TIFF", {"compression": "group4"}),
        (lambda: Image.new("L", (3507, 4960), 255), "TIFF", {"compression": "tiff_lzw"}),
    ],
    ids=["png", "rgba png", "webp", "page at 600 dpi", "fax", "grey page"],
)
def test_flat_pictures_that_are_meant_are_read(tmp_path, make, kind, options):
    picture = make()
    picture.save(tmp_path / "x", kind, **options)
    if picture.width * picture.height > 16_000_000:  # above that: a byte for 256 pixels
        enough = (tmp_path / "x").stat().st_size * 256 > picture.width * picture.height
        if not enough:
            with pytest.raises(ImageError, match="hardly any bytes"):
                load(tmp_path / "x")
    got = load(tmp_path / "x", max_pixels=35_000_000)
    assert got.samples.shape == (picture.height, picture.width, 3)


def test_a_smooth_progressive_photo_of_24_megapixels_is_read(tmp_path):
    """One of 0.7 MB was refused: its coefficients were counted as if no colour were halved."""
    clouds = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))
    clouds = clouds.resize((6000, 4000), Image.Resampling.BICUBIC)
    clouds.save(tmp_path / "x.jpg", quality=30, progressive=True, subsampling="4:2:0")
    assert (tmp_path / "x.jpg").stat().st_size < 800_000
    assert load(tmp_path / "x.jpg").samples.shape == (4000, 6000, 3)


@pytest.mark.parametrize("subsampling, bytes_", [("4:4:4", 6), ("4:2:2", 4), ("4:2:0", 3)])
def test_coefficients_of_a_progressive_jpeg_are_counted(subsampling, bytes_):
    file = io.BytesIO()
    picture = Image.new("RGB", (64, 48), "red")
    picture.save(file, "JPEG", progressive=True, subsampling=subsampling)
    assert cost.survey(file.getvalue(), "JPEG", "x").memory == bytes_


def test_the_line_is_drawn_at_bytes_that_are_no_repetition():
    """17 million pixels need 66,407 bytes; so many zeros are not so many."""
    bytes_ = np.random.default_rng(0).bytes(67_000)
    ask = lambda payload, **more: cost.afford(
        "x", 17_000, 1000, None, 1, 1, [memoryview(payload)], **more
    )
    ask(bytes_)
    ask(bytes(67_000), packed=False)
    for payload in (bytes_[:66_000], bytes(10**6), bytes_[:30_000] * 3):
        with pytest.raises(ImageError, match="hardly any bytes") as caught:
            ask(payload)
        assert caught.value.code == "E_TOO_LARGE"


def test_a_strip_that_many_share_counts_once(tmp_path):
    rows = np.random.default_rng(0).bytes(10_000)
    (tmp_path / "x.tif").write_bytes(tiff(5000, 3400, rows, 3400, compression=1))
    with pytest.raises(ImageError, match="hardly any bytes"):
        load(tmp_path / "x.tif")
    (tmp_path / "x.tif").write_bytes(tiff(5000, 30, rows, 30, compression=1))
    assert load(tmp_path / "x.tif").samples.shape == (30, 5000, 3)


@pytest.mark.parametrize(
    "extra, code",
    [(0, ""), (1, "E_TOO_LARGE"), (-1, "E_TRUNCATED")],
)
def test_a_strip_unpacks_to_its_own_share_and_no_byte_more(tmp_path, extra, code):
    """4 strips of 2 rows of 3 samples of 16 bits: 12 bytes each, though the picture has 48."""
    (tmp_path / "x.tif").write_bytes(tiff(3, 8, TIGHT(bytes(12 + extra)), 4, bits=16))
    if not code:
        assert load(tmp_path / "x.tif").bits == 16
        return
    with pytest.raises(ImageError) as caught:
        load(tmp_path / "x.tif")
    assert caught.value.code == code


def test_differences_of_floats_are_summed_byte_by_byte(tmp_path):
    """Adobe's Technical Note 3: the bytes of a row by weight, each the difference to the last."""
    values = np.array([[0.0, 0.25, 0.5, 1.0], [1.0, 0.125, 0.75, 0.0]], ">f4")
    planes = np.concatenate([values.view(np.uint8).reshape(2, 4, 4)[..., i] for i in range(4)], 1)
    packed = np.diff(planes, axis=1, prepend=np.zeros((2, 1), np.uint8)).astype(np.uint8)
    more = {339: (3, [3]), 317: (3, [3])}
    (tmp_path / "x.tif").write_bytes(tiff(4, 2, TIGHT(packed.tobytes()), 1, bits=32, more=more))
    assert load(tmp_path / "x.tif").samples[..., 0].tolist() == values.tolist()


def test_a_deep_animation_shows_its_own_default_picture(tmp_path):
    """16 bits, and the picture itself is no frame: OpenCV alone would give a black one."""
    row = b"\0" + struct.pack(">6H", 1000, 2000, 3000, 40000, 50000, 60000)
    control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 2, 1, 0, 0, 1, 1, 0, 0))
    frame = chunk(b"fdAT", struct.pack(">I", 1) + TIGHT(bytes(13)))
    start = chunk(b"acTL", struct.pack(">II", 1, 0))
    data = png(2, 1, 16, 2, start, chunk(b"IDAT", TIGHT(row)), control, frame)
    (tmp_path / "x.png").write_bytes(data)
    got = load(tmp_path / "x.png")
    assert got.samples.tolist() == [[[1000, 2000, 3000], [40000, 50000, 60000]]]
    assert got.notes == ("first of 2 frames",)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_grey_key_of_any_depth_is_clear(tmp_path, bits):
    most = 2**bits - 1
    key = chunk(b"tRNS", struct.pack(">H", most))
    data = png(8 // bits, 1, bits, 0, key, chunk(b"IDAT", TIGHT(bytes([0, most]))))
    (tmp_path / "x.png").write_bytes(data)
    assert load(tmp_path / "x.png").alpha.tolist() == [[1.0] * (8 // bits - 1) + [0.0]]


@pytest.mark.parametrize(
    "text, samples",
    [
        (b"P1 3 1\n1#no 0\n0 1", [0, 255, 0]),
        (b"P1 3 1\n101", [0, 255, 0]),
        (b"P2 3 1 4 0 2 4", [0, 128, 255]),
        (b"P2 3 1 1000 0 500 1000", [0, 32768, 65535]),
        (b"P5 3 1 4 \0\2\4", [0, 128, 255]),
    ],
)
def test_digits_and_other_largest_samples_are_scaled(tmp_path, text, samples):
    (tmp_path / "x.ppm").write_bytes(text)
    assert load(tmp_path / "x.ppm").samples[0, :, 0].tolist() == samples


@pytest.mark.parametrize(
    "text", [b"P1 3 1 1 2 1", b"P2 1 1 4 5", b"P2 1 1 4 -1", b"P3 1 1 255 a b c"]
)
def test_digits_that_are_none_are_refused(tmp_path, text):
    (tmp_path / "x.ppm").write_bytes(text)
    with pytest.raises(ImageError) as caught:
        load(tmp_path / "x.ppm")
    assert caught.value.code == "E_FORMAT"


def test_digits_that_are_missing_are_not_made_up(tmp_path):
    for text in (b"P3 100 100 255\n" + b"1 " * 29_999, b"P2 2 1 9 1", b"P1 2 1 1"):
        (tmp_path / "x.ppm").write_bytes(text)
        with pytest.raises(ImageError) as caught:
            load(tmp_path / "x.ppm")
        assert caught.value.code == "E_TRUNCATED"


@pytest.mark.parametrize("kind", ["tiff-lzw", "tiff-jpeg", "tiff16-lzw", "png16", "jpeg"])
def test_no_library_writes_to_stderr(tmp_path, capfd, kind):
    """libtiff, libpng and OpenCV print what they think of a file, unless they are asked not to."""
    data, rng, refused = WHOLE[kind](), np.random.default_rng(3), 0
    for i in range(80):
        broken = bytearray(data)
        places = rng.integers(0, len(data) if i % 2 else min(len(data), 400), 3)
        for at in places:
            broken[at] = rng.integers(256)
        (tmp_path / "x").write_bytes(broken)
        try:
            load(tmp_path / "x", max_pixels=1_000_000)
        except ImageError:
            refused += 1
    assert refused > 10 and capfd.readouterr().err == ""
