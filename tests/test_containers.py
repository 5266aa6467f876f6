"""Pictures as people have them: previews and raw files, pages, what lies beside the pixels, formats
of optional packages, and folders that hold more than photos.
"""

import itertools
import os
import struct
import subprocess
import sys
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest
from bombs import MIB, chunk, png, zeros
from PIL import Image, features
from test_image import encode, picture

from mtrestore import image
from mtrestore.folder.names import no_photo, plan
from mtrestore.io import beside, foreign, packets, tiff
from mtrestore.io.beside import Beside

# ---- TIFF ----------------------------------------------------------------------------------------


def directories(order: str, *pages: dict[int, object], subs: dict[int, list[dict]] | None = None):
    """A TIFF of directories, in a chain; page -> its sub-directories. Pixels: one grey level."""
    parts, at, links = [], 8, []

    def add(facts: dict[int, object], after: int) -> tuple[bytes, int]:
        facts = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 277: 1, **facts}
        level = facts.pop("level", 0)
        body = bytes([level]) * (facts[256] * facts[257])
        facts |= {273: after, 278: facts[257], 279: len(body)}
        rows = b"".join(
            struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in sorted(facts.items())
        )
        return body, struct.pack(order + "H", len(facts)) + rows

    for i, page in enumerate(pages):
        for sub in (subs or {}).get(i, []):
            body, rows = add(sub, at)
            page = page | {330: at + len(body)}
            parts.append(body + rows + bytes(4))
            at += len(parts[-1])
        body, rows = add(page, at)
        links.append(at + len(body))
        parts.append((body, rows))
        at += len(body) + len(rows) + 4
    after, out = iter([*links[1:], 0]), b""
    for part in parts:
        out += (
            part
            if isinstance(part, bytes)
            else b"".join(part) + struct.pack(order + "I", next(after))
        )
    return struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, links[0]) + out


SMALL, FULL = {254: 1, 256: 2, 257: 2, "level": 9}, {"level": 77}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    "pages, subs, level",
    [
        ([SMALL, FULL], {}, 77),
        ([FULL, SMALL], {}, 77),
        ([SMALL], {0: [FULL]}, 77),
        ([FULL], {0: [SMALL]}, 77),
        ([{**SMALL, 254: 0, 255: 2}, FULL], {}, 77),
        ([{**SMALL, 254: 4}, FULL], {}, 77),
        ([SMALL, {**SMALL, 254: 5}, FULL], {}, 77),
        ([SMALL], {}, 9),
    ],
)
def test_a_reduced_copy_gives_way_to_the_full_page(tmp_path, order, pages, subs, level):
    (tmp_path / "x.tif").write_bytes(directories(order, *pages, subs=subs))
    got = image.load(tmp_path / "x.tif")
    assert got.samples.shape[0] == (4 if level == 77 else 2)
    assert got.samples.max() == got.samples.min() == level
    assert got.notes == () and image.pages(tmp_path / "x.tif") == 1


@pytest.mark.parametrize(
    "data",
    [
        directories("<", SMALL | {50706: 1}, subs={0: [{262: 32803}]}),
        directories(">", SMALL, subs={0: [{262: 34892}]}),
        directories("<", SMALL, {262: 32803}),
        directories("<", {262: 32803}),
        directories(">", SMALL | {50706: 1}),
        directories("<", FULL, {33421: 1}),
        b"FUJIFILMCCD-RAW 0201" + bytes(99),
        b"IIRO\x08\0\0\0" + bytes(99),
        b"IIU\0\x18\0\0\0" + bytes(99),
        b"\0\0\0\x18ftypcrx " + bytes(99),
        b"II*\0\x10\0\0\0CR\2\0" + bytes(99),
        b"FOVb" + bytes(99),
    ],
)
def test_what_a_sensor_saw_is_no_picture_yet(tmp_path, data):
    (tmp_path / "x.tif").write_bytes(data)
    with pytest.raises(image.ImageError, match="develop it first") as caught:
        image.load(tmp_path / "x.tif")
    assert caught.value.code == "E_FORMAT"


def test_each_page_has_an_output_and_copies_have_none(tmp_path):
    levels = [{"level": 10 * i} for i in (1, 2, 3)]
    path = tmp_path / "in" / "scan.tif"
    path.parent.mkdir()
    path.write_bytes(directories("<", SMALL, *levels))
    assert image.pages(path) == 3
    assert [image.load(path, page=i).samples.max() for i in (1, 2, 3)] == [10, 20, 30]
    assert image.load(path, page=2).notes == ("number 2 of 3 frames",)
    with pytest.raises(image.ImageError, match="has 3 pages, asked for 4"):
        image.load(path, page=4)
    jobs = plan([str(path.parent)], str(tmp_path / "out"), every_page=True)
    assert [str(job.rel) for job in jobs] == ["scan_p1.tif", "scan_p2.tif", "scan_p3.tif"]
    jobs = plan([str(path)], str(tmp_path / "a.png"), every_page=True)
    assert [str(job.rel) for job in jobs] == ["a_p1.png", "a_p2.png", "a_p3.png"]
    assert [str(job.rel) for job in plan([str(path)], str(tmp_path / "a.png"))] == ["a.png"]


def test_directories_that_lead_round_or_nowhere_end(tmp_path):
    data = directories("<", *[{}] * 3)
    at = tiff.directory(data)[0] - 2
    for sub in (at, 7, 10**9):
        book = tiff.book(directories("<", {330: sub, 254: 1}, {}))
        assert len(book.pages) == 1 and not book.raw
    start = time.process_time()
    tiff.book(data[:8] + bytes(1 << 20))
    assert time.process_time() - start < 1


def packed(a: np.ndarray, kind: str, planes: bool, predictor: int, order: str, tiled: bool):
    """A deep TIFF whose pieces Pillow packed as bytes."""
    number = {"tiff_lzw": 5, "packbits": 32773}[kind]
    height, width, channels = a.shape
    piece, pieces = (16, 16) if tiled else (8, width), []
    whole = [a[..., i : i + 1] for i in range(channels)] if planes else [a]
    for plane, y, x in itertools.product(
        whole, range(0, height, piece[0]), range(0, width, piece[1])
    ):
        part = plane[y : y + piece[0], x : x + piece[1]].copy()
        if tiled:
            part = np.pad(part, [(0, 16 - part.shape[0]), (0, 16 - part.shape[1]), (0, 0)])
        if predictor == 2:
            part[:, 1:] -= part[:, :-1].copy()
        raw = part.astype(order + "u2").tobytes()
        file = encode(Image.frombytes("L", (len(raw), 1), raw), "TIFF", compression=kind)
        tags = tiff.Tags(file)
        pieces.append(file[tags.one(273) : tags.one(273) + tags.one(279)])
    lengths = [len(p) for p in pieces]
    places = [8 + sum(lengths[:i]) for i in range(len(lengths))]
    facts = {256: [width], 257: [height], 258: [16] * channels, 259: [number], 277: [channels]}
    facts |= {262: [2 if channels > 2 else 1], 284: [2 if planes else 1], 317: [predictor]}
    facts |= {322: [16], 323: [16]} if tiled else {278: [8]}
    facts |= {324: places, 325: lengths} if tiled else {273: places, 279: lengths}
    facts |= {338: [2]} if channels in (2, 4) else {}
    at = 8 + sum(lengths)
    rows, after, tail = struct.pack(order + "H", len(facts)), at + 6 + 12 * len(facts), b""
    for tag, values in sorted(facts.items()):
        value = struct.pack(f"{order}{len(values)}I", *values)
        place = value if len(value) == 4 else struct.pack(order + "I", after + len(tail))
        tail += b"" if len(value) == 4 else value
        rows += struct.pack(order + "HHI", tag, 4, len(values)) + place
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, at)
    return head + b"".join(pieces) + rows + bytes(4) + tail


@pytest.mark.parametrize("kind", ["tiff_lzw", "packbits"])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_packed_deep_samples_are_read_whatever_their_order(
    tmp_path, monkeypatch, kind, planes, channels
):
    a = np.random.default_rng(0).integers(0, 1 << 16, (37, 23, channels)).astype(np.uint16)
    colours = a[..., :3] if channels > 2 else np.repeat(a[..., :1], 3, 2)
    for band, predictor, order, tiled in itertools.product((99, 1 << 22), (1, 2), "<>", (0, 1)):
        monkeypatch.setattr(tiff, "BAND", band)
        (tmp_path / "x.tif").write_bytes(packed(a, kind, planes, predictor, order, tiled))
        got = image.load(tmp_path / "x.tif")
        assert np.array_equal(got.samples, colours) and got.bits == 16
        if channels in (2, 4):
            assert np.array_equal(np.rint(got.alpha * 65535), a[..., -1])


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_a_deep_animation_of_any_colour_shows_its_default_picture(tmp_path, colour):
    size = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    row = b"\0" + struct.pack(f">{2 * size}H", *range(1000, 1000 + 2 * size))
    control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 2, 1, 0, 0, 1, 1, 0, 0))
    frame = chunk(b"fdAT", struct.pack(">I", 1) + zlib.compress(bytes(len(row))))
    start, pixels = chunk(b"acTL", struct.pack(">II", 1, 0)), chunk(b"IDAT", zlib.compress(row))
    (tmp_path / "x.png").write_bytes(png(2, 1, 16, colour, start, pixels, control, frame))
    got = image.load(tmp_path / "x.png").samples
    assert got[0, 0].tolist() == ([1000] * 3 if size < 3 else [1000, 1001, 1002])


# ---- beside the pixels ---------------------------------------------------------------------------

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-synt'
    b'ax-ns#"><rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:t="http://ns.adobe.'
    b'com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1'
    b'.0/" t:Orientation="6" exif:GPSLatitude="47,22N"  dc:format=\'a t:Orientation="1" b\'>'
    b"<dc:subject><rdf:Bag><rdf:li>Oma</rdf:li></rdf:Bag></dc:subject><exif:PixelXDimension>99"
    b"</exif:PixelXDimension><xmp:Thumbnails><rdf:Alt/></xmp:Thumbnails><t:ImageWidth/>"
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def dataset(number: int, text: bytes, record: int = 2) -> bytes:
    return b"\x1c" + bytes([record, number]) + struct.pack(">H", len(text)) + text


IPTC = dataset(25, b"Oma") + dataset(90, b"Ulm") + dataset(120, "Größe".encode())
WORDS = Beside(XMP, IPTC, (("Comment", "box 12"), ("Title", "Größe ∞")), (300.0, 200.0))


def test_what_would_lie_of_the_new_picture_is_cut_out_and_the_rest_stays_to_the_byte():
    xmp = packets.clean(WORDS, turned=False).xmp
    assert b't:Orientation="6"' not in xmp and b"Pixel" not in xmp and b"Thumb" not in xmp
    assert b"ImageWidth" not in xmp and b"47,22N" in xmp
    assert b"""exif:GPSLatitude="47,22N"  dc:format='a t:Orientation="1" b'>""" in xmp
    assert b"<dc:subject><rdf:Bag><rdf:li>Oma</rdf:li></rdf:Bag></dc:subject></rdf:Desc" in xmp


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif", ".bmp"])
@pytest.mark.parametrize("bits", [8, 16])
def test_words_go_round_or_are_named(tmp_path, suffix, bits):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    source = replace(image.load(picture()), beside=packets.clean(WORDS, False), bits=bits)
    back = image.load(image.write(tmp_path / f"x{suffix}", source)).beside
    lost = " ".join(image.what_is_lost(source, suffix))
    assert back.xmp == source.beside.xmp or back.xmp is None and "XMP" in lost
    assert back.iptc == IPTC or back.iptc is None and "IPTC" in lost
    for key, text in WORDS.texts:
        assert (key, text) in back.texts or key in lost
    assert back.dpi == pytest.approx((300, 200), abs=0.1)
    held = {".png": 4, ".jpg": 3, ".tif": 2, ".webp": 1, ".avif": 1, ".bmp": 0}[suffix]
    assert (back.xmp is not None) + (back.iptc is not None) + len(back.texts) == held


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_the_place_goes_from_xmp_and_iptc_too(tmp_path, suffix):
    source = replace(image.load(picture()), beside=WORDS)
    assert "is kept" in image.place_taken(source, suffix, False)[0]
    assert "is removed" in image.place_taken(source, suffix, True)[0]
    path = image.write(tmp_path / f"x{suffix}", source.without_location())
    assert b"47,22N" not in path.read_bytes() and b"Ulm" not in path.read_bytes()
    back = image.load(path).beside
    assert b"Oma" in back.xmp and (suffix == ".webp" or b"Oma" in back.iptc)
    assert image.place_taken(image.load(path), suffix, False) == ()


@pytest.mark.parametrize(
    "xmp",
    [
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
        b"<a><b></a>",
        XMP.decode().encode("utf-16"),
        b"no xml at all",
        b"<a " + b"b='' " * 2 + b"/>",
    ],
)
def test_xmp_that_is_none_is_left_out_and_said(tmp_path, xmp):
    path = tmp_path / "x.jpg"
    path.write_bytes(encode(picture(), "JPEG", xmp=xmp))
    got = image.load(path)
    assert got.beside.xmp is None and "XMP ignored: unreadable" in got.notes


def gif_comment() -> bytes:
    data = encode(picture(), "GIF")
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
    return data[:at] + b"\x21\xfe\x06box 12\0" + data[at:]


@pytest.mark.parametrize(
    "data, texts",
    [
        (encode(picture(), "JPEG", comment=b"box 12"), (("Comment", "box 12"),)),
        (gif_comment(), (("Comment", "box 12"),)),
        (png(1, 1, 8, 0, chunk(b"tEXt", b"Title\0\xe9"), chunk(b"IDAT", zlib.compress(b"\0\0"))),
         (("Title", "é"),)),
        (png(1, 1, 8, 0, chunk(b"zTXt", b"A\0\0" + zlib.compress(b"b")),
             chunk(b"IDAT", zlib.compress(b"\0\0"))), (("A", "b"),)),
        (png(1, 1, 8, 0, chunk(b"iTXt", b"A\0\1\0de\0x\0" + zlib.compress("∞".encode())),
             chunk(b"IDAT", zlib.compress(b"\0\0"))), (("A", "∞"),)),
        (png(1, 1, 8, 0, chunk(b"tEXt", b"Thumb::URI\0x"), chunk(b"IDAT", zlib.compress(b"\0\0"))),
         ()),
    ],
    ids=["jpeg", "gif", "tEXt", "zTXt", "iTXt", "thumb"],
)  # fmt: skip
def test_texts_are_read(tmp_path, data, texts):
    (tmp_path / "x").write_bytes(data)
    assert image.load(tmp_path / "x").beside.texts == texts


def app(code: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


def jpeg_with(*segments: bytes, tail: bytes = b"") -> bytes:
    data = encode(picture(), "JPEG")
    return data[:2] + b"".join(segments) + data[2:] + tail


def xmp_segment(words: str) -> bytes:
    names = ' xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"'
    names += ' xmlns:GDepth="http://ns.google.com/photos/1.0/depthmap/"'
    return app(0xE1, beside.XMP_HEAD + f"<a{names} {words}/>".encode())


@pytest.mark.parametrize(
    "data, words",
    [
        (jpeg_with(xmp_segment('hdrgm:Version="1.0"')), "gain map"),
        (jpeg_with(app(0xE2, b"urn:iso:std:iso:ts:21496:-1\0")), "gain map"),
        (jpeg_with(tail=b"\xff\xd8 http://ns.apple.com/HDRGainMap/1.0/"), "gain map"),
        (jpeg_with(xmp_segment('GDepth:Format="x"')), "depth map"),
        (jpeg_with(tail=b"\0\0\0\x18ftypmp42" + bytes(99)), "video"),
        (jpeg_with(tail=b"MotionPhoto_Data" + bytes(99)), "video"),
        (jpeg_with(app(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 40)), "extension"),
        (jpeg_with(app(0xEB, b"JP\0\1" + bytes(20))), "C2PA"),
        (png(1, 1, 8, 0, chunk(b"cICP", b"\x09\x10\0\1"), chunk(b"IDAT", zlib.compress(b"\0\0"))),
         "cICP"),
    ],
)  # fmt: skip
def test_parts_that_no_output_holds_are_named(tmp_path, data, words):
    (tmp_path / "x").write_bytes(data)
    got = image.load(tmp_path / "x")
    assert any(words in note and "left out" in note or "cICP" in note for note in got.notes)
    assert b"hdrgm:Version" not in (got.beside.xmp or b"")


PIXEL = chunk(b"IDAT", zlib.compress(b"\0\0"))
HEAVY = {
    "60 texts of a MiB": lambda: png(
        1, 1, 8, 0, chunk(b"zTXt", b"a\0\0" + zeros(MIB - 9)) * 60, PIXEL
    ),
    "XMP of 60 MiB": lambda: png(
        1, 1, 8, 0, chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zeros(60 * MIB)), PIXEL
    ),
    "IPTC in 60 MiB of hex": lambda: png(
        1, 1, 8, 0, chunk(b"zTXt", b"Raw profile type iptc\0\0" + zeros(60 * MIB)), PIXEL
    ),
    "a nest of elements": lambda: png(
        1, 1, 8, 0, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<a>" * 300_000), PIXEL
    ),
    "elements": lambda: png(
        1, 1, 8, 0,
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<a>" + b"<b/>" * 200_000 + b"</a>"), PIXEL,
    ),
    "attributes": lambda: png(
        1, 1, 8, 0,
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<a xmlns:t='http://ns.adobe.com/tiff/1.0/'>"
              + b"<b t:Orientation='1'/>" * 30_000 + b"</a>"), PIXEL,
    ),
}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured the Linux way")
@pytest.mark.parametrize("kind", HEAVY)
def test_words_of_hostile_sizes_cost_little(tmp_path, root, kind):
    from test_bombs import measured

    (tmp_path / "x.png").write_bytes(HEAVY[kind]())
    assert (tmp_path / "x.png").stat().st_size <= MIB
    (row,), _ = measured(root, tmp_path / "x.png")
    assert row["code"] == ("E_TOO_LARGE" if kind == "XMP of 60 MiB" else "")
    assert row["seconds"] < 2 and row["mib"] < 300


# ---- optional formats ----------------------------------------------------------------------------

HEIC = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(64)


@pytest.mark.parametrize(
    "data, name, package",
    [
        (HEIC, "HEIC", "pip install pillow-heif"),
        (b"\0\0\0\x14ftypheix\0\0\0\0heix" + bytes(64), "HEIC", "pip install pillow-heif"),
        (b"\xff\x0a" + bytes(64), "JPEG XL", "pip install pillow-jxl-plugin"),
        (foreign.BOX_JXL + bytes(64), "JPEG XL", "pip install pillow-jxl-plugin"),
        (b"\xff\x4f\xff\x51" + bytes(64), "JPEG 2000", "pip install --upgrade pillow"),
        (foreign.BOX_JP2 + bytes(64), "JPEG 2000", "pip install --upgrade pillow"),
    ],
)
def test_a_format_that_is_missing_is_named_with_its_command(
    tmp_path, monkeypatch, data, name, package
):
    monkeypatch.setattr(foreign.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(foreign.features, "check", lambda _: False)
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(image.ImageError, match=f"is {name}, .*{package}"):
        image.load(tmp_path / "x.jpg")


@pytest.mark.parametrize(
    "data, size",
    [
        (b"\xff\x0a" + (1 | 7 << 1 | 0 << 6 | 1 << 9 | 15 << 10).to_bytes(8, "little"), None),
        (b"\xff\x0a" + (1 | 7 << 1 | 1 << 6).to_bytes(8, "little"), (64, 64)),
        (b"\xff\x0a" + (0 | 0 << 1 | 99 << 3 | 3 << 12).to_bytes(8, "little"), (133, 100)),
        (b"\xff\x0a" + (0 | 1 << 1 | 4999 << 3 | 7 << 16).to_bytes(8, "little"), (10_000, 5000)),
        (b"\xff\x0a" + (0 | 2 << 1 | 99_999 << 3 | 1 << 21).to_bytes(8, "little"), (100_000,) * 2),
    ],
)
def test_the_size_of_a_jxl_is_read_from_its_header(data, size):
    if size is None:
        size = (8 * ((int.from_bytes(data[2:], "little") >> 9 & 31) + 1), 64)
    assert foreign._jxl(data) == size


needs_jp2 = pytest.mark.skipif(
    not features.check("jpg_2000"), reason="this Pillow has no JPEG 2000"
)


@needs_jp2
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_jpeg_2000_is_what_pillow_decodes(tmp_path, mode):
    (tmp_path / "x.jp2").write_bytes(encode(picture(mode), "JPEG2000"))
    got = image.load(tmp_path / "x.jp2")
    assert np.array_equal(got.samples, np.asarray(picture(mode).convert("RGB")))
    assert got.format == "JPEG 2000" and (got.alpha is not None) == ("A" in mode)


@needs_jp2
@pytest.mark.parametrize("kind", ["flat", "tiles", "lie", "cut", "noise"])
def test_a_hostile_jpeg_2000_costs_little(tmp_path, root, kind):
    from test_bombs import measured

    plain = encode(picture(), "JPEG2000")
    at = plain.index(b"\xff\x4f\xff\x51")
    size = struct.pack(">II", 3900, 3900)
    data = {
        "flat": lambda: encode(Image.new("RGB", (4000, 4000)), "JPEG2000"),
        "tiles": lambda: encode(Image.new("RGB", (900, 900)), "JPEG2000", tile_size=(16, 16)),
        "lie": lambda: plain[: at + 8] + size + plain[at + 16 : at + 24] + size + plain[at + 32 :],
        "cut": lambda: plain[: len(plain) // 2],
        "noise": lambda: plain[: at + 120] + bytes(range(256)) * 400,
    }[kind]()
    (tmp_path / "x.jp2").write_bytes(data)
    (row,), said = measured(root, tmp_path / "x.jp2")
    assert row["seconds"] < 2 and row["mib"] < 300 and said == ""
    assert row["code"] or kind == "tiles"


# ---- folders -------------------------------------------------------------------------------------

PHOTO = encode(picture(), "JPEG")


@pytest.mark.parametrize(
    "name, data, what",
    [
        ("._a.jpg", b"\0\5\x16\7", "a Mac's resource fork"),
        (".DS_Store", b"\0\0\0\1Bud1", "hidden"),
        (".thumbnails/a.jpg", PHOTO, "hidden"),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0", "a file of the system"),
        ("DESKTOP.INI", b"[x]", "a file of the system"),
        ("__MACOSX/a.jpg", b"\0\5\x16\7", "a file of the system"),
        ("@eaDir/a.jpg/x.jpg", PHOTO, "a file of the system"),
        ("a.xmp", b"<x/>", "a side-car"),
        ("IMG_1.AAE", b"<x/>", "a side-car"),
        ("a.jpg.json", b"{}", "a side-car"),
        ("a.thm", PHOTO, "a side-car"),
        ("notes", "Größe\n".encode(), "a text"),
        ("README.txt", b"", "a text"),
        ("list", b"BMW, P1 and P2", "a text"),
        ("clip.mov", b"", "a video or sound"),
        ("clip", b"\0\0\0\x18ftypmp42", "a video or sound"),
        ("a.zip", b"PK\3\4", "an archive"),
        ("a.jpg", b"text", ""),
        ("a.heic", b"", ""),
        ("photo", PHOTO, ""),
        ("photo.txt", PHOTO, ""),
        ("a.cr2", b"\0", ""),
        ("unknown.xyz", bytes(range(255)), ""),
    ],
)
def test_what_is_known_to_be_no_photo_is_ignored(tmp_path, name, data, what):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    assert no_photo(path, path.relative_to(tmp_path)) == what


def test_a_named_file_is_a_photo_and_a_folder_without_one_is_said(tmp_path):
    (tmp_path / ".a.jpg").write_bytes(PHOTO)
    assert plan([str(tmp_path / ".a.jpg")], str(tmp_path / "out.png"))[0].ignored == ""
    with pytest.raises(image.ImageError, match="holds no photo, only 1 other files"):
        plan([str(tmp_path)], str(tmp_path / "out"))


# ---- alpha ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("side", ["left", "top"])
def test_a_hidden_colour_does_not_bleed_into_the_edge(astronaut, scale, side):
    """On a slightly noisy photo, which the restorer does not leave; a sharpener that is given acts
    on any."""
    from mtrestore import weights
    from mtrestore.pipeline import Restorer

    noise = np.random.default_rng(0).normal(0, 3, (96, 96, 3))
    photo = np.rint(np.clip(astronaut[:96, 200:296] * 255 + noise, 0, 255)).astype(np.uint8)
    alpha = np.full((96, 96), 255, np.uint8)
    alpha[(slice(None), slice(48)) if side == "left" else (slice(48), slice(None))] = 0
    sharpener = weights.load("sharpener_x1") if scale == 1 else None
    restorer = Restorer(scale=scale, keep_steps=False, faces=False, sharpener=sharpener)
    clean, results = restorer(photo).samples.astype(float), []
    edge = slice(48 * scale, 48 * scale + 3 * scale)
    band = (slice(None), edge) if side == "left" else (edge, slice(None))
    for colour in ((0, 255, 0), (255, 255, 255), (0, 0, 0)):
        cut = np.where(alpha[..., None] == 0, np.uint8(colour), photo)
        out = restorer(np.dstack([cut, alpha])).samples
        results.append(out[band])
        assert np.abs(out[band] - clean[band]).mean() < 3
        assert np.abs(restorer(cut).samples[band] - clean[band]).mean() > 3.5 or colour != (
            0,
            255,
            0,
        )
        assert np.array_equal(out[:8, :8].reshape(-1, 3)[0], colour), "hidden colours stay"
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


# ---- a home that cannot be written ---------------------------------------------------------------


@pytest.mark.parametrize("home", ["/proc/nohome", "/dev/null", "/proc/1/nohome"])
@pytest.mark.parametrize("door", ["folder", "api"])
def test_workers_and_python_make_no_noise_without_a_home(tmp_path, root, home, door):
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "notes.txt", "._a.jpg"):
        (tmp_path / "in" / name).write_bytes(PHOTO if name == "a.jpg" else b"words")
    code = "import mtrestore as mt; mt.restore('in/a.jpg').save('out.png')"
    words = {"folder": ["-m", "mtrestore", "restore", "in", "-o", "out"], "api": ["-c", code]}
    names = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    env = {**os.environ, "PYTHONPATH": str(root), **dict.fromkeys(names, home)}
    command = [sys.executable, *words[door]]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    if door == "folder":
        assert "1 restored, 0 skipped, 0 failed, 2 ignored" in done.stdout
