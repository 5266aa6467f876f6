"""The structure of a TIFF (TIFF 6.0, BigTIFF, and EXIF, which borrows it), and deep samples.

    directory -> entries -> layout: how many strips or tiles, of which size, where -> samples

No piece may lie outside the file, unpack to more than its own share of the picture, or be one more
than the picture's size asks for. Pillow would cut 16 bits and floats to 8 bits: they are read here.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Sequence
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
PLAIN, JPEG = 1, 7  # compressions
PACKED = (8, 32946)  # those that we unpack ourselves: both kinds of Deflate


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
    after = (
        struct.unpack_from(order + word, data, end)[0]
        if end + struct.calcsize(order + word) <= len(data)
        else 0
    )
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
        rows.append(
            Entry(
                tag, kind, count, place if size > inline else start + (i + 1) * step - inline, size
            )
        )
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
            places += [
                int.from_bytes(block[r.at : r.at + 4], order)
                for r in rows
                if r.tag in (EXIF_IFD, GPS_IFD, INTEROP_IFD)
            ]
    return True


def pages(data: bytes) -> int:
    """Pages of a TIFF, counted up to MOST_PAGES: directories may lead round in a circle."""
    seen, at = set(), 0
    with contextlib.suppress(struct.error, OverflowError):
        while len(seen) < MOST_PAGES:
            start, _, after, *_ = directory(data, at)
            if start in seen:
                break
            seen.add(start)
            if not (at := after):
                break
    return len(seen)


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
        """Whether `samples` can unpack it."""
        plain = self.compression in (*PACKED, PLAIN) and not self.reversed
        return plain and self.predictor in ((1, 2) if self.dtype.kind == "u" else (1, 3))

    def cost(self, scans: float) -> tuple[float, float]:
        """Bytes and nanoseconds a pixel; scans: of a JPEG inside a piece, on average."""
        area = self.width * self.height
        raw = self.area * max(self.bits, 8 * self.channels) / 8
        if self.deep:
            memory = (raw + 3 * min(self.share, raw)) / area
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


def samples(data: bytes, file: Layout) -> np.ndarray:
    """H×W×channels in the machine's byte order, floats as float32.

    Raises OverflowError for a piece that unpacks to more than its share, EOFError for less.
    """
    out = np.empty(
        (file.height, file.width, file.channels),
        np.float32 if file.dtype.kind == "f" else file.dtype.newbyteorder("="),
    )
    high, wide = file.piece
    channels = 1 if file.planes else file.channels
    across, down = -(-file.width // wide), -(-file.height // high)
    for i, (start, end) in enumerate(file.places):
        plane, place = divmod(i, across * down)
        y, x = place // across * high, place % across * wide
        rows, columns = min(high, file.height - y), min(wide, file.width - x)
        stored = high if file.tiled else rows  # the last strip may be short, a tile never is
        raw = memoryview(data)[start:end]
        if file.compression in PACKED:
            raw = zlib.decompressobj().decompress(raw, file.share + 1)
            if len(raw) > file.share:
                raise OverflowError("too large: a piece unpacks to more than its header says")
        if len(raw) < stored * wide * channels * file.dtype.itemsize:
            raise EOFError("truncated: a piece unpacks to less than its header says")
        block = _block(raw, file, stored, wide, channels)[:rows, :columns]
        with np.errstate(
            over="ignore"
        ):  # a float64 beyond float32 becomes infinite, and that is refused later
            out[y : y + rows, x : x + columns, plane : plane + channels] = block
    return out


def _block(raw: bytes, file: Layout, rows: int, columns: int, channels: int) -> np.ndarray:
    """rows×columns×channels of a piece, its predictor undone (TIFF 6.0, 14; Technical Note 3)."""
    if file.predictor == 3:
        size = file.dtype.itemsize
        planes = np.frombuffer(raw, np.uint8, rows * columns * channels * size).reshape(
            rows, columns * size, channels
        )
        planes = np.cumsum(planes, axis=1, dtype=np.uint8).reshape(rows, size, columns * channels)
        return planes.transpose(0, 2, 1).copy().view(f">f{size}").reshape(rows, columns, channels)
    block = np.frombuffer(raw, file.dtype, rows * columns * channels).reshape(
        rows, columns, channels
    )
    return (
        np.cumsum(block, axis=1, dtype=file.dtype.newbyteorder("="))
        if file.predictor == 2
        else block
    )


def pixels_only(data: bytes) -> bytes:
    """The same file with a directory of the tags that pixels depend on: no turn, no profile."""
    start, n, _, entry, inline = directory(data)
    order, step, big = entry[0], struct.calcsize(entry), inline == 8
    kept = [
        data[at : at + step]
        for at in range(start, start + n * step, step)
        if struct.unpack_from(order + "H", data, at)[0] in STRUCTURE
    ]
    short, word = ("Q", "Q") if big else ("H", "I")
    at, head = len(data) + len(data) % 2, 8 if big else 4
    return b"".join(
        (
            data[:head],
            struct.pack(order + word, at),
            data[head + struct.calcsize(word) :],
            bytes(len(data) % 2),
            struct.pack(order + short, len(kept)),
            *kept,
            bytes(inline),
        )
    )
