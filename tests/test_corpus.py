"""The corpus of bad files in its quick form: every kind of them through the reader, a few through a
folder run, bombs by time and memory.

`make soak` runs all of it through the program (tests/long/corpus.py), and the mutator for minutes
(tests/long/fuzz.py).
"""

import importlib.util
import io
import os
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_image import encode, no_root, picture

from mtrestore import image
from mtrestore.image import ImageError


@pytest.fixture(scope="module")
def programs(root):
    """The programs in tests/long/, as modules."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, root / "tests/long" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    return type("Programs", (), {"corpus": load("corpus"), "fuzz": load("fuzz")})


@pytest.fixture(scope="module")
def corpus(shared, programs, tmp_path_factory):
    """(folder, rows) of the corpus, made from its seed."""
    if not (programs.corpus.SHARED / "make_corpus.py").is_file():
        pytest.skip(f"needs {programs.corpus.SHARED / 'make_corpus.py'}")
    folder = tmp_path_factory.mktemp("corpus")
    return folder, programs.corpus.rows_of(folder)


def outcome(path) -> dict:
    """What the reader makes of a file, as a row of a report."""
    try:
        got = image.load(path)
        assert got.pixels.dtype == np.float32 and got.pixels.min() >= 0 and got.pixels.max() <= 1
        return {"status": "restored", "code": None, "message": "", "notes": got.notes}
    except ImageError as e:
        return {"status": "failed", "code": e.code, "message": str(e)}


@pytest.mark.slow
def test_every_file_of_the_corpus_leads_where_it_must(corpus, programs):
    """All 388 that are no bit flips and every tenth of those."""
    folder, rows = corpus
    seen, wrong = 0, []
    for i, row in enumerate(rows):
        if row["class"] == "bitflip" and i % 10 or row["class"] == "ckpt":
            continue
        seen += 1
        if bad := programs.corpus.disagreement(
            outcome(folder / row["file"]),
            row["class"],
            os.path.basename(row["file"]),
            row["expected"],
        ):
            wrong.append((row["file"], bad, row["why"]))
    assert not wrong and seen == 888 - 450 - 94


@pytest.mark.slow
def test_the_weights_of_the_corpus_load_or_are_refused_and_none_runs(corpus, programs):
    counts, wrong = programs.corpus.weights(*corpus)
    assert not wrong and counts["as they must"] == 94 and not counts["canaries"]


@pytest.mark.slow
def test_some_of_the_corpus_through_a_folder_run(corpus, programs):
    folder, rows = corpus
    counts, wrong = programs.corpus.pictures(folder, rows, every=60, jobs=1, faces=False)
    assert not wrong and counts["as they must"] == counts["files"] > 20


@pytest.mark.skipif(os.name != "posix", reason="POSIX names, pipes and rights")
@pytest.mark.parametrize("root_user", [True, False], ids=["root", "nobody"])
def test_the_file_system_cases_at_the_reader(shared, programs, tmp_path, root_user):
    """52 names, links, pipes, devices and rights; the folder run over them is in `make soak`."""
    if root_user and os.geteuid():
        pytest.skip("needs root")
    corpus, wrong = programs.corpus, []
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    cases = corpus.fs_cases(tmp_path)
    os.chmod(tmp_path / "fs" / "noexec_dir", 0o600)
    for case in cases:
        expected = corpus.fs_expected(case, root_user)
        path = (
            tmp_path / "fs" / case["file"]
            if case["file"] != "deep.jpg"
            else tmp_path / "fs" / "/".join(["d" * 200] * 20) / "deep.jpg"
        )
        if root_user:
            row = outcome(path)
        else:
            with no_root():
                row = outcome(path)
        if bad := corpus.disagreement(row, "fs", case["file"], expected):
            wrong.append((case["file"], bad, case["why"]))
    os.chmod(tmp_path / "fs" / "noexec_dir", 0o700)
    assert not wrong and len(cases) == 52


# ---- bombs ---------------------------------------------------------------------------------------


def zeros(n: int) -> bytes:
    packer = zlib.compressobj(9)
    return (
        b"".join(packer.compress(bytes(1 << 20)) for _ in range(n >> 20))
        + packer.compress(bytes(n % (1 << 20)))
        + packer.flush()
    )


def png(
    width: int, height: int, bits: int, kind: int, rows: bytes, *more: tuple[bytes, bytes]
) -> bytes:
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)),
        *more,
        (b"IDAT", rows),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )


def many_scans() -> bytes:
    data = encode(Image.new("RGB", (3000, 3000), "red"), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * 5000 + data[-2:]


def round_tiff() -> bytes:
    """300 directories that lead round in a circle."""
    data = bytearray(encode(picture(), "TIFF"))
    (at,) = struct.unpack_from("<I", data, 4)
    (n,) = struct.unpack_from("<H", data, at)
    data += bytes(len(data) % 2)
    first = len(data)
    struct.pack_into("<I", data, at + 2 + 12 * n, first)
    return bytes(data) + b"".join(
        struct.pack("<HHHIII", 1, 256, 4, 1, 8, first + 18 * ((i + 1) % 300)) for i in range(300)
    )


SMALL_ROWS = zlib.compress(bytes(9 * 8))
BOMBS = {
    "flat png": (lambda: png(12000, 12000, 8, 0, zeros(12001 * 12000)), "E_TOO_LARGE"),
    "flat webp": (
        lambda: encode(
            Image.new("RGB", (8000, 8000), (7, 7, 7)), "WEBP", lossless=True, quality=0, method=0
        ),
        "E_TOO_LARGE",
    ),
    "text": (
        lambda: png(8, 8, 8, 0, SMALL_ROWS, (b"zTXt", b"Comment\0\0" + zeros(256 << 20))),
        "E_TOO_LARGE",
    ),
    "profile": (
        lambda: png(8, 8, 8, 0, SMALL_ROWS, (b"iCCP", b"x\0\0" + zeros(256 << 20))),
        "E_TOO_LARGE",
    ),
    "scans": (many_scans, "E_TOO_LARGE"),
    "digits": (lambda: b"P3 3000 3000 255\n" + b"1 " * 27_000_000, "E_TOO_LARGE"),
    "round tiff": (round_tiff, ""),
}


@pytest.mark.skipif(os.name != "posix", reason="memory is measured the POSIX way")
@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_costs_two_seconds_and_300_mib_at_most(tmp_path, programs, kind):
    make, expected = BOMBS[kind]
    (tmp_path / "x").write_bytes(make())
    seconds, mib, code = programs.corpus.bomb(tmp_path / "x")
    assert code == expected and seconds <= 2 and mib <= 300


def test_a_flat_picture_that_is_meant_can_still_be_read_and_written(tmp_path):
    """16 million pixels of one colour are no bomb.

    More are taken where max_pixels says so, and written whatever they pack to.
    """
    for height, code in ((4000, None), (4001, "E_TOO_LARGE")):
        Image.new("L", (4000, height)).save(tmp_path / "x.png", compress_level=9)
        assert (tmp_path / "x.png").stat().st_size * 256 < 16_000_000 and outcome(
            tmp_path / "x.png"
        )["code"] == code
    flat = image.load(tmp_path / "x.png", max_pixels=20_000_000)
    path = image.write(tmp_path / "y.webp", flat)
    assert path.stat().st_size * 256 < 16_000_000 and image.load(
        path, max_pixels=20_000_000
    ).pixels.shape == flat.pixels.shape == (4001, 4000, 3)


def test_the_measure_of_memory_measures(tmp_path, programs):
    """A picture of 10 million pixels takes 120 MB as floats: a meter that never moved would pass
    every bomb.
    """
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (2500, 4000, 3), np.uint8)).save(
        tmp_path / "x.bmp"
    )
    assert 100 < programs.corpus.bomb(tmp_path / "x.bmp")[1] < 300


# ---- the mutator ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["reader", "weights"])
def test_two_seconds_of_the_mutator(tmp_path, programs, target):
    tried, wrong = programs.fuzz.fuzz(target, 1, 2.0, tmp_path)
    assert not wrong and tried >= 1


def test_a_case_is_the_same_whenever_it_is_made_and_cases_differ(programs):
    cases = [
        programs.fuzz.case(target, 0, n) for target in ("reader", "weights") for n in range(20)
    ]
    assert cases == [
        programs.fuzz.case(target, 0, n) for target in ("reader", "weights") for n in range(20)
    ]
    assert len(set(cases)) > 35


def test_the_mutator_finds_a_fault_that_is_there(tmp_path, programs, monkeypatch):
    monkeypatch.setattr(image, "load", lambda path, max_pixels: {}["no such key"])
    tried, wrong = programs.fuzz.fuzz("reader", 0, 0, tmp_path)
    assert tried == 1 and "KeyError" in wrong[0] and "--case 0" in wrong[0]


def test_mended_checksums_are_right(programs):
    data, at = encode(picture(), "PNG"), 8 + 8 + 3  # the lowest byte of the width
    assert programs.fuzz.mended_png(data) == data
    wider = programs.fuzz.mended_png(data[:at] + bytes([data[at] + 1]) + data[at + 1 :])
    assert Image.open(io.BytesIO(wider)).size == (32, 24)
