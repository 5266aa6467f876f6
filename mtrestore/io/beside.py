"""What lies beside the pixels in a file: XMP, IPTC, texts and resolution, which are kept, and parts
that no output of ours can hold, which are named (gain maps, depth maps, motion, credentials).

    read(data, format)  -> Beside, of a file that `cost` has walked; nothing in it fails the picture
    fitting(beside, format), lost(beside, format)   what a format can hold, and what it cannot

A block has at most 1 MiB unpacked, all together 4 MiB, and texts are 200 at most: what is more is
left out, and said.
"""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from . import tiff
from .cost import gif_blocks, jpeg_scans, png_chunk, png_chunks, riff_chunks

MOST, MOST_ALL, MOST_TEXTS = 1 << 20, 4 << 20, 200  # bytes of a block, of all; texts
INCH = 0.0254  # m
SEGMENT = 65_533  # bytes in a segment of a JPEG
XMP_HEAD, IRB_HEAD = b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0"
XMP_KEY, COMMENT = "XML:com.adobe.xmp", "Comment"
HOLDS_XMP = {"JPEG", "PNG", "WEBP", "TIFF", "AVIF"}
HOLDS_IPTC = {"JPEG", "PNG", "TIFF"}
PARTS = {  # what is named: how it shows, in the XMP or behind the picture
    "the HDR gain map": rb"hdrgm:|HDRGainMap|urn:iso:std:iso:ts:21496|hdrgainmap",
    "the depth map": rb'GDepth:|Semantic="(?:Depth|Confidence)|apple\.com/depthData|:auxid:2\b',
    "the moving part (video)": rb"ftyp(?:mp4|isom|qt  |M4V|3gp)|MotionPhoto_Data|Motion_Photo",
    "the sound": rb"GAudio:|SoundShot",
    "a second view (VR)": rb"GImage:",
}
CHUNKS = {
    b"cICP": "HDR or wide colours (cICP) are taken for sRGB: convert it first",
    b"caBX": "content credentials (C2PA) are left out: they sign the old pixels",
}


class Beside(NamedTuple):
    """xmp: a packet; iptc: its datasets (IIM); texts: (keyword, text), a comment under "Comment";
    dpi: across and down; notes: what is left out.
    """

    xmp: bytes | None = None
    iptc: bytes | None = None
    texts: tuple[tuple[str, str], ...] = ()
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


class Gathered:
    """A `Beside` in the making, which keeps the bounds."""

    def __init__(self) -> None:
        self.blocks: dict[str, bytes] = {}
        self.texts: list[tuple[str, str]] = []
        self.dpi: tuple[float, float] | None = None
        self.notes: dict[str, None] = {}
        self.room = MOST_ALL

    def fits(self, what: str, size: int) -> bool:
        if size > min(MOST, self.room) or len(self.texts) >= MOST_TEXTS:
            self.notes[f"{what} of too many bytes is left out"] = None
            return False
        self.room -= size
        return True

    def block(self, kind: str, data: bytes) -> None:
        """The first XMP or IPTC block."""
        if data and kind not in self.blocks and self.fits(kind, len(data)):
            self.blocks[kind] = bytes(data)

    def text(self, key: str, data: bytes) -> None:
        if self.fits("text", len(data)):
            try:
                words = data.decode("utf-8")
            except UnicodeDecodeError:
                words = data.decode("latin-1")
            self.texts.append((key, words.replace("\0", "")))

    def resolution(self, across: float, down: float) -> None:
        if 1 <= across <= 30_000 and 1 <= down <= 30_000:
            self.dpi = self.dpi or (across, down)

    def part(self, data: bytes) -> None:
        """Names what shows in these bytes."""
        for what, mark in PARTS.items():
            if re.search(mark, data):
                self.notes[f"{what} is left out"] = None

    def beside(self) -> Beside:
        xmp = self.blocks.get("XMP", b"").strip(b"\0") or None
        self.part(xmp or b"")
        return Beside(xmp, self.blocks.get("IPTC"), tuple(self.texts), self.dpi, tuple(self.notes))


def read(data: bytes, name: str) -> Beside:
    """Of a file that was walked before; what cannot be read of it is as if it were not there."""
    out = Gathered()
    readers: dict[str, Callable[[bytes, Gathered], None]] = {
        **{"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "TIFF": _tiff, "GIF": _gif, "BMP": _bmp},
        **{"AVIF": _boxes, "HEIC": _boxes, "JPEG XL": _boxes},
    }
    wrong = (struct.error, IndexError, ValueError, OverflowError, EOFError, zlib.error)
    with contextlib.suppress(*wrong):
        readers.get(name, lambda data, out: None)(data, out)
    return out.beside()


# ---------------------------------------------------------------- formats


def _jpeg(data: bytes, out: Gathered) -> None:
    _, scans, apps = jpeg_scans(data, "")
    photoshop = []
    for start, end in apps:
        code, body = data[start], bytes(data[start + 3 : end])
        if code == 0xFE:
            out.text(COMMENT, body)
        elif code == 0xE0 and body[:5] == b"JFIF\0":
            unit, across, down = struct.unpack_from(">BHH", body, 7)
            each = {1: 1.0, 2: 2.54}.get(unit, 0.0)
            out.resolution(across * each, down * each)
        elif code == 0xE1 and body.startswith(XMP_HEAD):
            out.block("XMP", body[len(XMP_HEAD) :])
        elif code == 0xE1 and body.startswith(b"http://ns.adobe.com/xmp/extension/"):
            out.notes["the extension of its XMP is left out"] = None
            out.part(body)
        elif code == 0xED and body.startswith(IRB_HEAD):
            photoshop.append(body[len(IRB_HEAD) :])
        elif code == 0xEB and body[:2] == b"JP":
            out.notes[CHUNKS[b"caBX"]] = None
        elif code == 0xE2:
            out.part(body[:64])
    out.block("IPTC", _iptc_of(b"".join(photoshop)))
    if scans:
        out.part(data[scans[-1][1] :])


def _iptc_of(resources: bytes) -> bytes:
    """The IPTC datasets among Photoshop's image resources."""
    at = 0
    while resources[at : at + 4] == b"8BIM":
        number, name = struct.unpack_from(">HB", resources, at + 4)
        at += 6 + (name + 2) // 2 * 2
        (size,) = struct.unpack_from(">I", resources, at)
        if number == 0x0404:
            return resources[at + 4 : at + 4 + size]
        at += 4 + size + size % 2
    return b""


def _unhexed(text: bytes) -> bytes:
    """ImageMagick's form of a block in a text: its kind, its size, its bytes in hex."""
    return bytes.fromhex(b"".join(text.split()[2:]).decode())


def _png_text(kind: bytes, body: bytes) -> tuple[str, bytes]:
    """Keyword and text of a tEXt, zTXt or iTXt chunk; one that is too long is cut above MOST."""
    key, body = body.split(b"\0", 1)
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed, body = bool(body[0]), body[2:].split(b"\0", 2)[2]
    elif packed:
        body = body[1:]
    if packed:
        body = zlib.decompressobj().decompress(body, MOST + 1)
    key = key.decode("latin-1")
    return key, body if kind == b"iTXt" else body[: MOST + 1].decode("latin-1").encode()


def _png(data: bytes, out: Gathered) -> None:
    for kind, start, end in png_chunks(data):
        if kind in CHUNKS:
            out.notes[CHUNKS[kind]] = None
        elif kind == b"pHYs":
            across, down, unit = struct.unpack_from(">IIB", data, start)
            out.resolution(across * INCH * (unit == 1), down * INCH * (unit == 1))
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            if out.room <= 0 or len(out.texts) >= MOST_TEXTS:
                out.fits("text", 1)
                continue
            with contextlib.suppress(IndexError, ValueError, zlib.error):
                _file(*_png_text(kind, bytes(data[start:end])), out)


def _file(key: str, text: bytes, out: Gathered) -> None:
    """A text of a PNG: some are blocks in disguise, some are stale."""
    form = key.removeprefix("Raw profile type ")
    if key == XMP_KEY:
        out.block("XMP", text)
    elif form != key:
        if form in ("iptc", "8bim", "xmp") and out.fits(form, len(text)):
            block = _unhexed(text)
            block = (_iptc_of(block) or block) if form != "xmp" else block
            out.block("XMP" if form == "xmp" else "IPTC", block)
    elif not key.startswith("Thumb::"):
        out.text(key, text)


def _webp(data: bytes, out: Gathered) -> None:
    for kind, start, end in riff_chunks(data, 12, len(data)):
        if kind == b"XMP ":
            out.block("XMP", data[start:end])


def _tiff(data: bytes, out: Gathered) -> None:
    tags = tiff.Tags(data)
    for tag, kind in ((700, "XMP"), (33723, "IPTC"), (34377, "")):
        if row := tags.rows.get(tag):
            block = data[row.at : row.at + min(row.size, MOST + 1)]
            out.block(kind or "IPTC", block if kind else _iptc_of(block))
    if 37724 in tags:
        out.notes["Photoshop's layers are left out: the picture is their sum"] = None
    each = {2: 1.0, 3: 2.54}.get(tags.one(296, 2), 0.0)
    across, down = (_fraction(data, tags.rows.get(tag), tags.order) for tag in (282, 283))
    out.resolution(across * each, down * each)


def _fraction(data: bytes, row: tiff.Entry | None, order: str) -> float:
    if row is None or row.kind != 5:
        return 0.0
    above, below = struct.unpack_from(order + "II", data, row.at)
    return above / below if below else 0.0


def _gif(data: bytes, out: Gathered) -> None:
    for kind, start, end in gif_blocks(data):
        if kind == 0x21FE:
            blocks, at = [], start
            while at < end and data[at]:
                blocks.append(data[at + 1 : at + 1 + data[at]])
                at += data[at] + 1
            out.text(COMMENT, b"".join(blocks))
        elif kind == 0x21FF and data[start + 1 : start + 12] == b"XMP DataXMP":
            block = data[start + 12 : end]
            out.block("XMP", block[: block.rfind(b"?>") + 2])


def _bmp(data: bytes, out: Gathered) -> None:
    (size,) = struct.unpack_from("<I", data, 14)
    across, down = struct.unpack_from("<ii", data, 38) if size >= 40 else (0, 0)
    out.resolution(across * INCH, down * INCH)


def _boxes(data: bytes, out: Gathered) -> None:
    """AVIF, HEIC and JPEG XL name their parts near the beginning; their XMP comes from Pillow."""
    head = data[:MOST]
    if b"tmap" in head or b"jhgm" in head:
        out.notes["the HDR gain map is left out"] = None
    out.part(head[32:])


# ---------------------------------------------------------------- what an output can hold


def fitting(beside: Beside, name: str) -> Beside:
    """As much of it as a format can hold."""
    xmp, iptc, texts = beside.xmp, beside.iptc, beside.texts
    if name not in HOLDS_XMP or name == "JPEG" and xmp and len(xmp) > SEGMENT - len(XMP_HEAD):
        xmp = None
    if name not in HOLDS_IPTC or name == "JPEG" and iptc and len(iptc) > SEGMENT - 40:
        iptc = None
    if name == "JPEG":
        texts = tuple((k, v) for k, v in texts if k == COMMENT and len(v.encode()) <= SEGMENT)
    elif name != "PNG":
        texts = ()
    dpi = None if name == "PPM" else beside.dpi
    return beside._replace(xmp=xmp, iptc=iptc, texts=texts, dpi=dpi)


def lost(beside: Beside, name: str) -> list[str]:
    """A sentence for each thing that a format cannot hold."""
    held = fitting(beside, name)
    words = [
        f"{name} cannot hold this {what}: it is dropped"
        for what, old, new in (
            ("XMP", beside.xmp, held.xmp),
            ("IPTC", beside.iptc, held.iptc),
        )
        if old and not new
    ]
    keys = list(dict.fromkeys(key for key, text in beside.texts if (key, text) not in held.texts))
    if keys:
        names = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
        words.append(f"{name} cannot hold these texts: {names}; they are dropped")
    return words


def png_parts(beside: Beside) -> Iterator[bytes]:
    """Chunks to stand after the header of a PNG."""
    if beside.dpi:
        across, down = (round(n / INCH) for n in beside.dpi)
        yield png_chunk(b"pHYs", struct.pack(">IIB", across, down, 1))
    if beside.xmp:
        yield png_chunk(b"iTXt", XMP_KEY.encode(), b"\0\0\0\0\0", beside.xmp)
    if beside.iptc:
        block = _resources(beside.iptc)
        lines = "\n".join(re.findall(".{1,72}", block.hex()))
        text = f"\niptc\n{len(block):8}\n{lines}\n".encode()
        yield png_chunk(b"zTXt", b"Raw profile type iptc\0\0", zlib.compress(text))
    for key, text in beside.texts:
        key = key.encode("latin-1", "replace")[:79].strip() or b"Comment"
        try:
            yield png_chunk(b"tEXt", key, b"\0", text.encode("latin-1"))
        except UnicodeEncodeError:
            yield png_chunk(b"iTXt", key, b"\0\0\0\0\0", text.encode())


def jpeg_options(beside: Beside) -> dict[str, object]:
    """What Pillow takes to write it."""
    options, extra = {}, b""
    if beside.xmp:
        extra += _segment(0xE1, XMP_HEAD + beside.xmp)
    if beside.iptc:
        extra += _segment(0xED, IRB_HEAD + _resources(beside.iptc))
    for _, text in beside.texts:
        extra += _segment(0xFE, text.encode())
    if extra:
        options["extra"] = extra
    if beside.dpi:
        options["dpi"] = tuple(min(65_535, max(1, round(n))) for n in beside.dpi)
    return options


def _segment(code: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


def _resources(iptc: bytes) -> bytes:
    """IPTC as the one image resource of Photoshop's."""
    return b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + bytes(len(iptc) % 2)
