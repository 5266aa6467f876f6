"""The structure of a TIFF (TIFF 6.0, BigTIFF, and EXIF, which borrows it), and deep samples.

    directory -> entries -> layout: how many strips or tiles, of which size, where -> samples

No piece may lie outside the file, unpack to more than its own share of the picture, or be one more
than the picture's size asks for. Pillow would cut 16 bits and floats to 8 bits: they are read here.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

ORIENTATION, ICC_TAG = 0x0112, 34675
EXIF_IFD, GPS_IFD, INTEROP_IFD = (0x8769, 0x8825, 0xA005)
SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)  # bytes of a value, by its type
WHOLE_NUMBERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8"}
STRUCTURE = {  # what pixels depend on
    *(*range(256, 260), 262, 266, 273, *range(277, 280), 284, 317, *range(322, 326), 338, 339),
}
MOST_ENTRIES, MOST_PAGES = 4096, 10_000
BAND = 4 << 20  # bytes that libtiff unpacks at once, or one piece
PLAIN, JPEG = 1, 7  # compressions
PACKED = (8, 32946)  # those that we unpack ourselves: both kinds of Deflate
LIBTIFF = {5, 32773, 34925, 50000}  # LZW, PackBits, LZMA, Zstandard: bytes in, bytes out
DNG_VERSION = 50706
RAW_COLOURS = {32803, 34892}  # a colour filter array; linear raw
RAW_TAGS = {33421, 33422, 50752, 50648}  # CFA of TIFF/EP; slices and CFA of Canon's CR2
PAGE_TAGS = [254, 255, 256, 262, 330, DNG_VERSION, *RAW_TAGS]


def directory(data: bytes, at: int = 0) -> tuple[int, int, int, str, int]:
    """Of a directory, the first unless `at` says: where its entries begin, how many, where the next
    one is, how an entry is packed, and how many bytes of a value it holds itself.
    """
    order, big = "<" if data[:1] == b"I" else ">", 43 in data[2:4]
    word, short, entry, inline = ("Q", "Q", "HHQQ", 8) if big else ("I", "H", "HHII", 4)
    at = at or struct.unpack_from(order + word, data, 8 if big else 4)[0]
    (n,) = struct.unpack_from(order + short, data, at)
    start = at + struct.calcsize(short)
    end = start + n * struct.calcsize(order + entry)
    after = 0
    if end + struct.calcsize(order + word) <= len(data):
        (after,) = struct.unpack_from(order + word, data, end)
    return start, n, after, order + entry, inline


class Entry(NamedTuple):
    tag: int
    kind: int
    count: int
    at: int  # where its value lies in the file
    size: int  # bytes of its value


def entries(data: bytes, at: int = 0) -> list[Entry]:
    """The entries of a directory, whose values may lie outside the file.

    EOFError where the entries themselves do.
    """
    start, n, _, entry, inline = directory(data, at)
    step = struct.calcsize(entry)
    if n > MOST_ENTRIES:
        raise EOFError(f"a directory of {n} entries, most likely truncated")
    if start + n * step > len(data):
        raise EOFError("truncated: a directory is longer than the file")
    rows = []
    for i in range(n):
        tag, kind, count, place = struct.unpack_from(entry, data, start + i * step)
        size = count * SIZES[kind % len(SIZES)]
        place = place if size > inline else start + (i + 1) * step - inline
        rows.append(Entry(tag, kind, count, place, size))
    return rows


def complete(data: bytes) -> bool:
    """Whether all that the first directory points at lies in the file."""
    try:
        return all(row.at + row.size <= len(data) for row in entries(data))
    except (
        struct.error,
        IndexError,
        OverflowError,
        EOFError,
    ):  # outside the file, or outside any file
        return False


def sane_exif(block: bytes) -> bool:
    """Whether the values of an EXIF block, or of a TIFF file, are no longer than it all in all.

    One that points at the same bytes a thousand times would be copied a thousand times.
    """
    block = block.removeprefix(b"Exif\0\0")
    total, places, seen = 0, [0], set()
    with contextlib.suppress(
        struct.error, IndexError, OverflowError
    ):  # unreadable: that is for the reader to say
        while places:
            place = places.pop()
            if place in seen:
                continue
            seen.add(place)
            try:
                rows = entries(block, place)
            except EOFError:
                return False
            total += sum(min(row.size, len(block)) for row in rows if row.size > 8)
            if total > len(block) + 4096 or len(seen) > 8:
                return False
            order = "little" if block[:1] == b"I" else "big"
            inner = [r.at for r in rows if r.tag in (EXIF_IFD, GPS_IFD, INTEROP_IFD)]
            places += [int.from_bytes(block[at : at + 4], order) for at in inner]
    return True


class Book(NamedTuple):
    """The pictures of a TIFF: where the directory of each full page is.

    raw: what says that the file holds a sensor's samples, no picture yet.
    """

    pages: list[int]
    raw: bool


def book(data: bytes) -> Book:
    """Pages of a TIFF, at most MOST_PAGES: directories may lead round in a circle.

    A page that calls itself a reduced copy or a mask (NewSubfileType, or SubfileType 2) gives way
    to the full picture among its sub-directories, or goes; if all do, the first one stays.
    """
    pages, raw, digital, seen, at = [], False, False, set(), 0
    with contextlib.suppress(struct.error, OverflowError, TypeError):
        while len(seen) < MOST_PAGES:
            start, _, after, *_ = directory(data, at)
            if start in seen:
                break
            seen.add(start)
            facts = _facts(data, at)
            family = {at: facts} | {sub: _facts(data, sub) for sub in facts.get(330, ())}
            raw |= any(_raw(page) for page in family.values())
            digital |= DNG_VERSION in facts
            pages += [at for at, page in family.items() if 256 in page and not _reduced(page)][:1]
            if not (at := after):
                break
    return Book(pages or [0], raw or digital and not pages)


def _reduced(facts: dict[int, list[int]]) -> bool:
    return bool(facts.get(254, [0])[0] & 5) or facts.get(255) == [2]


def _raw(facts: dict[int, list[int]]) -> bool:
    return facts.get(262, [0])[0] in RAW_COLOURS or any(tag in facts for tag in RAW_TAGS)


def _facts(data: bytes, at: int) -> dict[int, list[int]]:
    """What `book` asks of a directory: the first whole numbers of a few tags, {} if it is cut."""
    try:
        start, n, _, entry, inline = directory(data, at)
    except (struct.error, OverflowError):
        return {}
    step, facts = struct.calcsize(entry), {}
    if n > MOST_ENTRIES or start + n * step > len(data):
        return facts
    tags = np.ndarray(n, entry[0] + "u2", data, start, step)
    for i in np.flatnonzero(np.isin(tags, PAGE_TAGS))[:16]:
        tag, kind, count, place = struct.unpack_from(entry, data, start + int(i) * step)
        size = SIZES[kind % len(SIZES)]
        place = place if size * count > inline else start + (int(i) + 1) * step - inline
        most = min(count, 16, max(0, len(data) - place) // max(1, size))
        if kind in WHOLE_NUMBERS and most:
            values = np.frombuffer(data, entry[0] + WHOLE_NUMBERS[kind], most, place)
            facts.setdefault(tag, values.tolist())
        else:
            facts.setdefault(tag, [0])
    return facts


def opened_at(data: bytes, at: int) -> bytes:
    """The same file, whose first directory is the one there; 0 is the first as it is."""
    if not at:
        return data
    order, big = "<" if data[:1] == b"I" else ">", 43 in data[2:4]
    head, word = (8, "Q") if big else (4, "I")
    place = struct.pack(order + word, at)
    return b"".join((data[:head], place, memoryview(data)[head + len(place) :]))


@dataclass(frozen=True)
class Layout:
    """How the first picture of a TIFF lies in its file."""

    width: int
    height: int
    channels: int
    dtype: Any = None  # np.dtype as stored; None: not 8 or 16 bits or floats, so for Pillow
    bits: int = 0  # of a pixel
    colour: int = 0  # photometric interpretation
    compression: int = 0
    planes: bool = False  # channel after channel, not pixel after pixel
    predictor: int = 0
    reversed: bool = False  # bits in a byte
    extras: tuple[int, ...] = ()
    piece: tuple[int, int] = (1, 1)  # height and width of a strip or tile
    tiled: bool = False
    places: Sequence[tuple[int, int]] = ()  # start and end of each piece
    turn: int | None = None
    icc: bytes | None = None

    @property
    def deep(self) -> bool:
        return self.dtype is not None and self.dtype.itemsize > 1

    @property
    def ours(self) -> bool:
        """Whether we unpack it ourselves, and not libtiff."""
        return self.compression in (*PACKED, PLAIN) and not self.reversed

    @property
    def readable(self) -> bool:
        """Whether `samples` can make samples of it."""
        known = self.compression in {*PACKED, *LIBTIFF, PLAIN}
        return known and self.predictor in ((1, 2) if self.dtype.kind == "u" else (1, 2, 3))

    def cost(self, scans: float) -> tuple[float, float]:
        """Bytes and nanoseconds a pixel; scans: of a JPEG inside a piece, on average."""
        area = self.width * self.height
        raw = self.area * max(self.bits, 8 * self.channels) / 8
        if self.deep:
            memory = (raw + 3 * min(self.share, raw)) / area
            if not self.ours:  # a band as libtiff's bytes, twice, and a piece of it
                memory = (raw + 2 * BAND + 3 * min(self.share, raw)) / area
            memory = max(memory, (self.channels + 3) * min(self.dtype.itemsize, 4) + 4)
        else:
            memory = max(8 + min(self.share, raw) / area, 11)
        work = 40 * self.area * max(1, self.channels / 4) / area + 15_000 * len(self.places) / area
        return memory, work + {6: 50, JPEG: 6 * scans}.get(self.compression, 0) + 100 * (
            self.colour in (5, 8)
        )

    @property
    def share(self) -> int:
        """Bytes that one piece unpacks to."""
        height, width = self.piece
        bits = width * self.bits // (self.channels if self.planes else 1)
        return height * -(-bits // 8)

    @property
    def area(self) -> int:
        """Pixels of all pieces of a plane; those of tiles reach beyond the picture."""
        height, width = self.piece
        return -(-self.height // height) * height * -(-self.width // width) * width

    def payload(self, data: bytes) -> list[memoryview]:
        """The bytes of all pieces, each once, however many pieces share it."""
        view, end, parts = memoryview(data), 0, []
        for start, stop in sorted(self.places):
            if stop > end:
                parts.append(view[max(start, end) : stop])
                end = stop
        return parts


class Tags:
    """The first directory by tag. Raises ValueError where what pixels depend on is there twice."""

    def __init__(self, data: bytes) -> None:
        self.data, self.rows = data, {}
        self.order = "<" if data[:1] == b"I" else ">"
        for row in entries(data):
            if row.tag in self.rows and row.tag in STRUCTURE:
                raise ValueError(f"tag {row.tag} is there twice")
            self.rows.setdefault(row.tag, row)

    def __contains__(self, tag: int) -> bool:
        return tag in self.rows

    def all(self, tag: int, default: int | None = None) -> list[int]:
        if tag not in self.rows:
            return [] if default is None else [default]
        row = self.rows[tag]
        if row.kind not in WHOLE_NUMBERS or not row.count:
            raise ValueError(f"tag {tag} holds no whole number")
        kind = self.order + WHOLE_NUMBERS[row.kind]
        return np.frombuffer(self.data, kind, row.count, row.at).tolist()

    def one(self, tag: int, default: int | None = None) -> int:
        return self.all(tag, default)[0]


def layout(data: bytes) -> Layout:
    """Read the first directory.

    Raises ValueError where it contradicts itself, EOFError where a piece is not in the file.
    """
    tags = Tags(data)
    if 256 not in tags or 257 not in tags:
        raise ValueError("it says no width or height")
    width, height = tags.one(256), tags.one(257)
    channels = tags.one(277, 1)
    if not width or not height:
        return Layout(width, height, channels)
    bits = tags.all(258, 1)
    depth = sum(bits) if len(bits) > 1 else bits[0] * channels
    planes = channels > 1 and tags.one(284, 1) == 2
    piece = _piece(tags, width, height)
    number = -(-height // piece[0]) * -(-width // piece[1]) * (channels if planes else 1)
    icc = tags.rows.get(ICC_TAG)
    return Layout(
        width,
        height,
        channels,
        dtype=_dtype(tags, bits),
        bits=depth,
        colour=tags.one(262, 1),
        compression=tags.one(259, 1),
        planes=planes,
        predictor=tags.one(317, 1),
        reversed=tags.one(266, 1) == 2,
        extras=tuple(tags.all(338)),
        piece=piece,
        tiled=322 in tags,
        places=_places(tags, number, (width * depth + 7) // 8 * height),
        turn=tags.one(ORIENTATION, 1),
        icc=data[icc.at : icc.at + icc.size] if icc else None,
    )


def _dtype(tags: Tags, bits: list[int]) -> np.dtype | None:
    formats = tags.all(339, 1)
    if len({*bits}) > 1 or len({*formats}) > 1:
        return None
    kinds = {(1, 8): "u1", (1, 16): "u2", (3, 16): "f2", (3, 32): "f4", (3, 64): "f8"}
    kind = kinds.get((formats[0], bits[0]))
    return np.dtype(tags.order + kind) if kind else None


def _piece(tags: Tags, width: int, height: int) -> tuple[int, int]:
    """Height and width of a strip or tile."""
    if 322 not in tags:
        return min(tags.one(278, height) or height, height), width
    rows, columns = tags.one(323), tags.one(322)
    if not rows or not columns or rows % 16 or columns % 16:
        why = "their sides must be multiples of 16"
        raise ValueError(f"tiles of {columns}×{rows} pixels; {why}")
    return rows, columns


def _places(tags: Tags, number: int, size: int) -> list[tuple[int, int]]:
    """Start and end of each of `number` pieces; size: bytes of all of them, unpacked."""
    tiled, compression = 322 in tags, tags.one(259, 1)
    offsets = tags.all(324 if tiled and 324 in tags else 273)
    counts = tags.all(325 if tiled and 325 in tags else 279)
    if len(offsets) > number:
        raise ValueError(f"{len(offsets)} pieces, its size asks for {number}")
    if not counts and compression == PLAIN and len(offsets) == number == 1:
        counts = [min(size, len(tags.data) - offsets[0])]  # some old programs say none
    if len(offsets) < number and compression != 6 or len(counts) < len(offsets):
        pieces = min(len(offsets), len(counts))
        raise EOFError(f"truncated: {pieces} pieces, its size asks for {number}")
    places = [(at, at + n) for at, n in zip(offsets, counts)]
    if any(end > len(tags.data) for _, end in places):
        raise EOFError("truncated: a piece ends outside the file")
    return places


def samples(data: bytes, file: Layout, unpack: Callable[[bytes], np.ndarray]) -> np.ndarray:
    """H×W×channels in the machine's byte order, floats as float32.

    unpack: a TIFF of grey bytes -> its bytes, H×W, for what we do not unpack ourselves. Raises
    OverflowError for a piece that unpacks to more than its share, EOFError for less.
    """
    kind = np.float32 if file.dtype.kind == "f" else file.dtype.newbyteorder("=")
    out = np.empty((file.height, file.width, file.channels), kind)
    high, wide = file.piece
    channels = 1 if file.planes else file.channels
    across, down = -(-file.width // wide), -(-file.height // high)
    row = wide * channels * file.dtype.itemsize
    band = across * max(1, BAND // max(1, across * high * row))  # pieces that libtiff gets at once
    plain, top = None, 0
    for i, (start, end) in enumerate(file.places):
        plane, place = divmod(i, across * down)
        y, x = place // across * high, place % across * wide
        rows, columns = min(high, file.height - y), min(wide, file.width - x)
        stored = high if file.tiled else rows  # the last strip may be short, a tile never is
        if file.ours:
            raw = _share(memoryview(data)[start:end], file)
        else:
            if not place % band:
                pieces = file.places[i : i + min(band, across * down - place)]
                height = len(pieces) // across * high
                height = height if file.tiled else min(height, file.height - y)
                plain, top = unpack(_as_bytes(data, file, pieces, row, across, height)), y
            left = x // wide * row
            assert plain is not None, "the first piece begins a band"
            raw = plain[y - top : y - top + stored, left : left + row].tobytes()
        if len(raw) < stored * row:
            raise EOFError("truncated: a piece unpacks to less than its header says")
        block = _block(raw, file, stored, wide, channels)[:rows, :columns]
        with np.errstate(over="ignore"):  # a float64 too large for float32 is infinite: refused
            out[y : y + rows, x : x + columns, plane : plane + channels] = block
    return out


def _share(raw: memoryview, file: Layout) -> bytes | memoryview:
    """A piece, unpacked."""
    if file.compression == PLAIN:
        return raw
    plain = zlib.decompressobj().decompress(raw, file.share + 1)
    if len(plain) > file.share:
        raise OverflowError("too large: a piece unpacks to more than its header says")
    return plain


def _as_bytes(
    data: bytes,
    file: Layout,
    pieces: Sequence[tuple[int, int]],
    row: int,
    across: int,
    height: int,
) -> bytes:
    """Pieces of a plane as a TIFF of grey bytes, `row` of them for each row of a piece.

    Packers of bytes know no depth and no channels; so whatever lies in them goes one way.
    """
    high = min(file.piece[0], height)
    lengths = [end - start for start, end in pieces]
    places = [8, *(8 + int(n) for n in np.cumsum(lengths[:-1]))]
    body = b"".join(memoryview(data)[start:end] for start, end in pieces)
    facts = {256: [across * row], 257: [height], 258: [8], 259: [file.compression], 262: [1]}
    facts |= {266: [2 if file.reversed else 1], 277: [1]}
    if file.tiled:
        facts |= {322: [row], 323: [high], 324: places, 325: lengths}
    else:
        facts |= {273: places, 278: [high], 279: lengths}
    at = 8 + len(body)
    tail, after = [struct.pack("<H", len(facts))], at + 2 + 12 * len(facts) + 4
    values = []
    for tag, numbers in sorted(facts.items()):
        packed = np.asarray(numbers, "<u4").tobytes()
        tail.append(struct.pack("<HHI", tag, 4, len(numbers)))
        tail.append(packed if len(packed) == 4 else struct.pack("<I", after))
        if len(packed) > 4:
            values.append(packed)
            after += len(packed)
    return b"".join((struct.pack("<2sHI", b"II", 42, at), body, *tail, bytes(4), *values))


def _block(raw: bytes, file: Layout, rows: int, columns: int, channels: int) -> np.ndarray:
    """rows×columns×channels of a piece, its predictor undone (TIFF 6.0, 14; Technical Note 3)."""
    size, shape = file.dtype.itemsize, (rows, columns, channels)
    count = rows * columns * channels
    if file.predictor == 3:
        planes = np.frombuffer(raw, np.uint8, count * size)
        planes = planes.reshape(rows, columns * size, channels)
        planes = np.cumsum(planes, axis=1, dtype=np.uint8).reshape(rows, size, columns * channels)
        return planes.transpose(0, 2, 1).copy().view(f">f{size}").reshape(shape)
    if file.predictor == 2:  # of floats too, the bits are what was subtracted
        whole = np.frombuffer(raw, f"{file.dtype.byteorder}u{size}", count).reshape(shape)
        whole = np.cumsum(whole, axis=1, dtype=f"=u{size}")
        return whole.view(file.dtype.newbyteorder("="))
    return np.frombuffer(raw, file.dtype, count).reshape(shape)
