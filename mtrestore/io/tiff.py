"""The structure of a TIFF (TIFF 6.0, BigTIFF, and EXIF, which borrows it), and deep samples.

    directory -> entries -> layout: how many strips or tiles, of which size, where -> samples

No piece may lie outside the file, unpack to more than its own share of the picture, or be one more
than the picture's size asks for. Pillow would cut 16 bits and floats to 8 bits: they are read here.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from typing import NamedTuple

import numpy as np

ORIENTATION, EXIF_IFD, GPS_IFD, INTEROP_IFD, ICC_TAG = 0x0112, 0x8769, 0x8825, 0xA005, 34675
SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)  # bytes of a value, by its type
WHOLE_NUMBERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8"}
STRUCTURE = {
    *range(256, 260),
    262,
    266,
    273,
    *range(277, 280),
    284,
    317,
    *range(322, 326),
    338,
    339,
}  # what pixels depend on
MOST_ENTRIES, MOST_PAGES = 4096, 10_000
PACKED, PLAIN = (
    (8, 32946),
    1,
)  # compressions that we unpack ourselves: both kinds of Deflate, and none


def directory(data: bytes, at: int = 0) -> tuple[int, int, int, str, int]:
    """Of a directory, the first unless `at` says: where its entries begin, how many, where the next one is, how an entry is packed,
    and how many bytes of a value it holds itself."""
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
    """The entries of a directory, whose values may lie outside the file; EOFError where the entries themselves do."""
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


class Layout(NamedTuple):
    """How the first picture of a TIFF lies in its file."""

    width: int
    height: int
    channels: int
    dtype: (
        np.dtype | None
    )  # of a sample as stored; None: not 8 or 16 bits or floats, and so for Pillow
    bits: int  # of a pixel
    colour: int  # photometric interpretation
    compression: int
    planes: bool  # channel after channel, not pixel after pixel
    predictor: int
    reversed: bool  # bits in a byte
    extras: tuple[int, ...]
    piece: tuple[int, int]  # height and width of a strip or tile
    tiled: bool
    places: list[tuple[int, int]]  # start and end of each piece
    turn: int | None
    icc: bytes | None

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


def layout(data: bytes) -> Layout:
    """Read the first directory. Raises ValueError where it contradicts itself, EOFError where a piece is not in the file."""
    rows = {}
    for row in entries(data):
        if row.tag in rows and row.tag in STRUCTURE:
            raise ValueError(f"tag {row.tag} is there twice")
        rows.setdefault(row.tag, row)
    order = "<" if data[:1] == b"I" else ">"

    def values(tag: int, default: int | None = None) -> list[int]:
        if tag not in rows:
            return [] if default is None else [default]
        row = rows[tag]
        if row.kind not in WHOLE_NUMBERS or not row.count:
            raise ValueError(f"tag {tag} holds no whole number")
        return np.frombuffer(data, order + WHOLE_NUMBERS[row.kind], row.count, row.at).tolist()

    if 256 not in rows or 257 not in rows:
        raise ValueError("it says no width or height")
    width, height, channels = values(256)[0], values(257)[0], values(277, 1)[0]
    if not width or not height:
        return Layout(
            width,
            height,
            channels,
            None,
            0,
            0,
            0,
            False,
            0,
            False,
            (),
            (1, 1),
            False,
            [],
            None,
            None,
        )
    bits, compression = values(258, 1), values(259, 1)[0]
    depth = sum(bits) if len(bits) > 1 else bits[0] * channels
    kinds = {(1, 8): "u1", (1, 16): "u2", (3, 16): "f2", (3, 32): "f4", (3, 64): "f8"}
    known = (
        kinds.get((values(339, 1)[0], bits[0]))
        if len({*bits}) == len({*values(339, 1)}) == 1
        else None
    )
    planes = channels > 1 and values(284, 1)[0] == 2
    tiled = 322 in rows
    piece = (
        (values(323)[0], values(322)[0])
        if tiled
        else (min(values(278, height)[0] or height, height), width)
    )
    if not all(piece) or tiled and (piece[0] % 16 or piece[1] % 16):
        raise ValueError(
            f"tiles of {piece[1]}×{piece[0]} pixels; their sides must be multiples of 16"
        )
    offsets = values(324 if tiled and 324 in rows else 273)
    counts = values(325 if tiled and 325 in rows else 279)
    number = -(-height // piece[0]) * -(-width // piece[1]) * (channels if planes else 1)
    if len(offsets) > number:
        raise ValueError(f"{len(offsets)} pieces, its size asks for {number}")
    if not counts and compression == PLAIN and len(offsets) == number and number == 1:
        counts = [
            min((width * depth + 7) // 8 * height, len(data) - offsets[0])
        ]  # some old programs say none
    if len(offsets) < number and compression != 6 or len(counts) < len(offsets):
        raise EOFError(
            f"truncated: {min(len(offsets), len(counts))} pieces, its size asks for {number}"
        )
    places = [(at, at + n) for at, n in zip(offsets, counts)]
    if any(end > len(data) for _, end in places):
        raise EOFError("truncated: a piece ends outside the file")
    icc = rows.get(ICC_TAG)
    return Layout(
        width,
        height,
        channels,
        np.dtype(order + known) if known else None,
        depth,
        values(262, 1)[0],
        compression,
        planes,
        values(317, 1)[0],
        values(266, 1)[0] == 2,
        tuple(values(338)),
        piece,
        tiled,
        places,
        values(ORIENTATION, 1)[0],
        data[icc.at : icc.at + icc.size] if icc else None,
    )


def samples(data: bytes, plan: Layout) -> np.ndarray:
    """H×W×channels in the machine's byte order, floats as float32.

    Raises OverflowError for a piece that unpacks to more than its share, EOFError for less.
    """
    out = np.empty(
        (plan.height, plan.width, plan.channels),
        np.float32 if plan.dtype.kind == "f" else plan.dtype.newbyteorder("="),
    )
    high, wide = plan.piece
    channels = 1 if plan.planes else plan.channels
    across, down = -(-plan.width // wide), -(-plan.height // high)
    for i, (start, end) in enumerate(plan.places):
        plane, place = divmod(i, across * down)
        y, x = place // across * high, place % across * wide
        rows, columns = min(high, plan.height - y), min(wide, plan.width - x)
        stored = high if plan.tiled else rows  # the last strip may be short, a tile never is
        raw = memoryview(data)[start:end]
        if plan.compression in PACKED:
            raw = zlib.decompressobj().decompress(raw, plan.share + 1)
            if len(raw) > plan.share:
                raise OverflowError("too large: a piece unpacks to more than its header says")
        if len(raw) < stored * wide * channels * plan.dtype.itemsize:
            raise EOFError("truncated: a piece unpacks to less than its header says")
        block = _block(raw, plan, stored, wide, channels)[:rows, :columns]
        with np.errstate(
            over="ignore"
        ):  # a float64 beyond float32 becomes infinite, and that is refused later
            out[y : y + rows, x : x + columns, plane : plane + channels] = block
    return out


def _block(raw: bytes, plan: Layout, rows: int, columns: int, channels: int) -> np.ndarray:
    """rows×columns×channels of a piece, its predictor undone (TIFF 6.0, 14; Technical Note 3)."""
    if plan.predictor == 3:
        size = plan.dtype.itemsize
        planes = np.frombuffer(raw, np.uint8, rows * columns * channels * size).reshape(
            rows, columns * size, channels
        )
        planes = np.cumsum(planes, axis=1, dtype=np.uint8).reshape(rows, size, columns * channels)
        return planes.transpose(0, 2, 1).copy().view(f">f{size}").reshape(rows, columns, channels)
    block = np.frombuffer(raw, plan.dtype, rows * columns * channels).reshape(
        rows, columns, channels
    )
    return (
        np.cumsum(block, axis=1, dtype=plan.dtype.newbyteorder("="))
        if plan.predictor == 2
        else block
    )


def pixels_only(data: bytes) -> bytes:
    """The same file with a directory of the tags alone that pixels depend on: no turn, no profile."""
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
