"""What a picture file will cost, told from its structure before a decoder sees a byte of it.

A decoder believes lengths, counts and sizes that a file states. `survey` walks the file first,
holds each of them against the bytes that are there, and hands on a file without what nobody needs
(comments, further frames, empty chunks). `afford` is the one rule, for every decoder:

    pixels  <=  16 million, or 256 for each byte of payload
    memory  <=  272 MiB, or 272 bytes for each byte of payload (all copies that live at once)
    work    <=  1.5 s, or 1.5 s for each MiB of payload (pixels x nanoseconds, scans counted)

So a file of at most 1 MiB costs at most 300 MiB and 2 s, whatever it holds. *Payload* are the bytes
that become pixels (IDAT, scans, strips, the first frame), each counted once; packed payload is
packed again, so that repetition counts for next to nothing. 16 million pixels of one colour and 8
bits can always be read; more only where `max_pixels` is given, or the file has more to say.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from . import vp8l
from .files import ImageError
from .tiff import sane_exif

MAX_PIXELS = 200_000_000
PLENTY, PACKED = 16_000_000, 256  # pixels that are always allowed; pixels for a byte of payload
MEMORY = 272 << 20  # bytes that are always allowed, and for each MiB of payload
WORK = 1.5e9  # nanoseconds, likewise
MOST_SCANS, MOST_SEGMENTS, MOST_BOXES = 200, 5000, 4096  # of a JPEG; of an AVIF
MOST_TEXT = 64 << 20  # bytes of all texts in a PNG, unpacked
MOST_PLAIN = 8 << 20  # bytes of a PPM in digits or a BMP in runs, decoded slowly


class Survey(NamedTuple):
    """What a decoder gets, and what is known about it."""

    data: bytes | bytearray
    payload: list[memoryview]  # the bytes that become pixels
    packed: bool = True  # False: the payload is the samples themselves
    frames: int = 1
    size: tuple[int, int] | None = None  # width, height, where a decoder makes room unasked
    memory: float = 0  # bytes a pixel that decoding takes beside the picture itself
    work: float = 0.0  # nanoseconds a pixel


def refuse(who: str, why: str) -> ImageError:
    return ImageError("E_TOO_LARGE", f"{who} {why}")


def limit(who: str, width: int, height: int, max_pixels: int | None) -> None:
    """Refuse a size of no or too many pixels."""
    most = max_pixels or MAX_PIXELS
    if width * height > most:
        why = f"has {width}×{height} pixels, the limit is {most}; shrink it or raise max_pixels"
        raise refuse(who, why)
    if not width or not height:
        raise ImageError("E_FORMAT", f"{who} has no pixels ({width}×{height})")


def afford(
    who: str,
    width: int,
    height: int,
    max_pixels: int | None,
    memory: float,
    work: float,
    payload: list[memoryview],
    packed: bool = True,
) -> None:
    """The rule above. memory, work: bytes and nanoseconds for a pixel.

    `max_pixels` allows its pixels whatever they unpack from.
    """
    limit(who, width, height, max_pixels)
    pixels, most = width * height, max_pixels or 0
    needs = [
        0 if pixels <= max(PLENTY, most) else pixels / PACKED,
        0 if pixels * memory <= max(MEMORY, 64 * most) else pixels * memory / MEMORY * 2**20,
        0 if pixels * work <= max(WORK, 1000 * most) else pixels * work / WORK * 2**20,
    ]
    need = max(needs)
    if need and (sum(map(len, payload)) < need or packed and not _holds(payload, need)):
        why = "pixels from hardly any bytes, as bombs do; shrink it or give max_pixels"
        raise refuse(who, f"unpacks {width}×{height} {why}")


def _holds(payload: list[memoryview], need: float) -> bool:
    """Whether payload holds that many bytes that are no repetition."""
    packer, size = zlib.compressobj(1), 0
    for part in payload:
        for at in range(0, len(part), 1 << 16):
            size += len(packer.compress(part[at : at + (1 << 16)]))
            if size >= need:
                return True
    return size + len(packer.flush()) >= need


def survey(data: bytes, name: str, who: str) -> Survey:
    """Walk a file.

    Raises ImageError for what is too much, EOFError and struct.error for what is cut, ValueError
    for what is wrong.
    """
    walks = {"PNG": _png, "JPEG": _jpeg, "GIF": _gif, "WEBP": _webp, "AVIF": _avif}
    return (walks | {"BMP": _bmp, "PPM": _ppm})[name](data, who)


# ---------------------------------------------------------------- PNG

PNG_TEXTS = (  # may hold the turn
    b"XML:com.adobe.xmp\0",
    b"Raw profile type exif\0",
    b"Raw profile type APP1\0",
)
PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf", *PNG_TEXTS}
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def png_chunk(kind: bytes, *parts: bytes | memoryview) -> bytes:
    body = kind + b"".join(parts)
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the data of each chunk up to IEND."""
    at = 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            raise EOFError("truncated: a chunk is longer than the file")
        yield kind, at + 8, at + 8 + length
        if kind == b"IEND":
            return
        at += 12 + length


def _text_size(kind: bytes, body: bytes) -> int:
    """Bytes that a text unpacks to, as far as the limit of them all."""
    try:
        body = body.split(b"\0", 1)[1]
        if kind == b"iTXt":
            packed, body = body[0], body[2:].split(b"\0", 2)[2]
        if kind == b"tEXt" or kind == b"iTXt" and not packed:
            return len(body)
        body = body if kind == b"iTXt" else body[1:]
        return len(zlib.decompressobj().decompress(body, MOST_TEXT + 1))
    except (IndexError, zlib.error):  # no text: nobody will read it
        return 0


def _png(data: bytes, who: str) -> Survey:
    """The first picture of a PNG alone, its IDAT in one chunk, and once each chunk that matters."""
    view, kept, payload = memoryview(data), {}, []
    words, frames, control = 0, 0, False
    for kind, start, end in png_chunks(data):
        key = kind
        if kind in (b"iTXt", b"zTXt", b"tEXt"):
            words += _text_size(kind, data[start:end])
            if words > MOST_TEXT:
                raise refuse(who, f"holds texts that unpack to more than {MOST_TEXT} bytes")
            key = next((text for text in PNG_TEXTS if data.startswith(text, start)), None)
        elif kind == b"fcTL" and not payload:  # the picture itself is the first frame
            control = True
        elif kind == b"acTL" and not frames:
            (frames,) = struct.unpack_from(">I", data, start)
        if key not in PNG_KEPT and kind != b"IDAT":
            continue
        if zlib.crc32(view[start - 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ValueError(f"the checksum of {kind.decode()} is wrong")
        if kind != b"IDAT":
            kept.setdefault(key, png_chunk(kind, view[start:end]))
        elif end > start:
            payload.append(view[start:end])
    if b"IHDR" not in kept or not payload:
        raise ValueError("it has no header or no data")
    width, height, bits, colour = struct.unpack_from(">IIBB", kept[b"IHDR"], 8)
    if colour == 0 and bits < 8 and len(kept.get(b"tRNS", b"")) == 14:
        # Pillow has made 8 bits of the samples when it compares them with the key
        (key,) = struct.unpack_from(">H", kept[b"tRNS"], 8)
        most = 2**bits - 1
        kept[b"tRNS"] = png_chunk(b"tRNS", struct.pack(">H", (key & most) * 255 // most))
    body = b"".join(payload)
    plain = b"".join((data[:8], *kept.values(), png_chunk(b"IDAT", body), png_chunk(b"IEND")))
    deep = bits == 16 and colour in (2, 4, 6)
    frames = frames + (frames > 0 and not control) or 1
    memory, work = (8, 40) if deep else (1, 30)
    return Survey(plain, [memoryview(body)], True, frames, (width, height), memory, work)


def _png_rows(width: int, height: int, bits: int, interlaced: int) -> list[tuple[int, int]]:
    """(rows, bytes of a row with its filter) of each pass (PNG specification, 8.1)."""
    passes = ["0011"]
    if interlaced:
        passes = ["0088", "0488", "4084", "0244", "2042", "0122", "1021"]  # y, x, steps of both
    sizes = []
    for y, x, down, across in (map(int, digits) for digits in passes):
        rows, columns = -((y - height) // down), -((x - width) // across)
        if rows > 0 and columns > 0:
            sizes.append((rows, 1 + (columns * bits + 7) // 8))
    return sizes


def _whole_rows(body: bytes, sizes: list[tuple[int, int]]) -> bytes:
    """The deflated rows alone, if they are what the header says: libpng complains on stderr."""
    size = sum(rows * stride for rows, stride in sizes)
    unpacker = zlib.decompressobj()
    plain = unpacker.decompress(body, size + 1)
    if len(plain) > size:
        raise OverflowError("too large: its data unpack to more than its header says")
    if len(plain) < size or not unpacker.eof:
        raise EOFError("truncated: its data unpack to less than its header says")
    at = 0
    for rows, stride in sizes:
        if max(plain[at : at + rows * stride : stride]) > 4:
            raise ValueError("a row has an unknown filter")
        at += rows * stride
    return body[: len(body) - len(unpacker.unused_data)]


def png_pixels(data: bytes | bytearray) -> bytes:
    """A surveyed PNG without all that is not pixels: OpenCV's reader need not know more."""
    chunks = {kind: data[start:end] for kind, start, end in png_chunks(data)}
    width, height, bits, colour, *methods = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    packing, filters, interlaced = methods
    if packing or filters or interlaced > 1:
        raise ValueError("its header names an unknown method")
    rows = _png_rows(width, height, bits * PNG_CHANNELS[colour], interlaced)
    parts = {b"IHDR": chunks[b"IHDR"]}
    if b"tRNS" in chunks and colour == 2:
        parts[b"tRNS"] = chunks[b"tRNS"]
    parts |= {b"IDAT": _whole_rows(chunks[b"IDAT"], rows), b"IEND": b""}
    return bytes(data[:8]) + b"".join(png_chunk(kind, body) for kind, body in parts.items())


# ---------------------------------------------------------------- JPEG

MARKER, SCAN_END = re.compile(rb"\xff+([^\x00\xff])"), re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def jpeg_scans(
    data: bytes, who: str
) -> tuple[list[tuple[int, int]], list[tuple[int, int, int]], list[tuple[int, int]]]:
    """Frame headers (marker, place), scans (start, end of their data, components), APPn and
    comments (place, end).
    """
    frames, scans, apps = [], [], []
    at, segments = 2, 0
    while (mark := MARKER.search(data, at)) and mark[1] != b"\xd9":
        code, at = mark[1][0], mark.end()
        if code == 0x01 or 0xD0 <= code <= 0xD8:  # no length follows
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if length < 2 or at + length > len(data):
            raise EOFError("truncated: a segment is longer than the file")
        segments += 1
        if code in SOF:
            frames.append((code, at))
        elif 0xE0 <= code <= 0xEF or code == 0xFE:
            apps.append((at - 1, at + length))
        elif code == 0xDA:
            end = SCAN_END.search(data, at + length)
            stop = end.start() if end else len(data)
            scans.append((at + length, stop, data[at + 2] if length > 2 else 0))
            length = stop - at
        at += length
        if len(scans) > MOST_SCANS or segments - len(scans) > MOST_SEGMENTS:
            most = f"{MOST_SCANS} scans or {MOST_SEGMENTS} segments"
            raise refuse(who, f"is a JPEG in more than {most}; save it again")
    return frames, scans, apps


def _share_of_parts(data: bytes | bytearray, at: int, parts: int) -> float:
    """Samples for each pixel of a JPEG: 1.5 in 4:2:0. at: where its sampling factors begin."""
    factors = [divmod(data[at + 3 * i + 1], 16) for i in range(parts)]
    most = max(h for h, _ in factors) * max(v for _, v in factors)
    return sum(h * v for h, v in factors) / most if most else parts


def _jpeg(data: bytes, who: str) -> Survey:
    frames, scans, apps = jpeg_scans(data, who)
    if len(frames) != 1 or not scans:
        raise EOFError(f"truncated: it has {len(frames)} frame headers and {len(scans)} scans")
    code, at = frames[0]
    height, width, parts = struct.unpack_from(">HHB", data, at + 3)
    exif = [(start, end) for start, end in apps if data.startswith(b"Exif\0\0", start + 3)]
    doubtful = [] if sane_exif(b"".join(data[start + 9 : end] for start, end in exif)) else exif
    pages = [(start, end) for start, end in apps if data.startswith(b"MPF\0", start + 3)]
    doubtful += [(start, end) for start, end in pages if not sane_exif(data[start + 7 : end])]
    if doubtful:  # called APP12, which nobody reads
        data = bytearray(data)
        for start, _ in doubtful:
            data[start] = 0xEC
    each = 10 if code > 0xC7 else 1.5  # arithmetic coding is slow
    work = 5 * parts + each * sum(n for _, _, n in scans)
    payload = [memoryview(data)[start:end] for start, end, _ in scans]
    memory = 8 * (parts == 4)
    if len(scans) > 1:  # coefficients of two bytes live until the last scan
        memory += 2 * _share_of_parts(data, at + 8, parts)
    work += 80 * (parts == 4)
    return Survey(data, payload, size=(width, height), memory=memory, work=work)


# ---------------------------------------------------------------- GIF


def _blocks(data: bytes, at: int) -> int:
    """Where the sub-blocks that begin at `at` end."""
    while size := data[at]:
        at += size + 1
    return at + 1


def gif_blocks(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind (0x2C: a frame, 0x21..: an extension of that label), start and end of what follows."""
    at = 13 + _table(data[10])
    while at < len(data) and data[at] != 0x3B:
        kind, start = data[at], at + 1
        if kind == 0x21:
            kind, start = 0x2100 | data[at + 1], at + 2
            at = _blocks(data, start)
        elif kind == 0x2C:
            at = _blocks(data, start + 10 + _table(data[at + 9]))
        else:
            at = start
        yield kind, start, at


def _table(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif(data: bytes, who: str) -> Survey:
    """The first frame of a GIF alone."""
    control, first, frames = b"", b"", 0
    try:
        head = data[: 13 + _table(data[10])]
        for kind, start, end in gif_blocks(data):
            if kind == 0x21F9 and not frames:
                control = data[start - 2 : end]
            elif kind == 0x2C:
                frames += 1
                first = first or memoryview(data)[start - 1 : end]
    except IndexError:
        raise EOFError("truncated: a block is longer than the file") from None
    if not first:
        raise ValueError("it has no frame")
    plain = b"".join((head, control[:8], first, b";"))
    payload = [first[10 + _table(first[9]) :]]
    return Survey(plain, payload, frames=frames, memory=1, work=30)


# ---------------------------------------------------------------- WebP


def riff_chunks(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while at + 8 <= end:
        kind, size = struct.unpack_from("<4sI", data, at)
        if at + 8 + size > end:
            raise EOFError("truncated: a chunk is longer than the file")
        yield kind, at + 8, at + 8 + size
        at += 8 + size + size % 2


def _webp_size(data: bytes, kind: bytes, start: int, end: int) -> tuple[int, int]:
    if kind == b"VP8X":
        width, height = data[start + 4 : start + 7], data[start + 7 : start + 10]
        return 1 + int.from_bytes(width, "little"), 1 + int.from_bytes(height, "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[start + 1 : start + 5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, start + 6)
    return width & 0x3FFF, height & 0x3FFF


def _webp(data: bytes, who: str) -> Survey:
    """A still picture, or the first frame of several."""
    view, payload, frames, codes = memoryview(data), [], 0, 0
    wide, high = 0, 0
    chunks = list(riff_chunks(data, 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))))
    for kind, start, end in chunks:
        frames += kind == b"ANMF"
        if kind == b"ANMF" and frames == 1:
            chunks += riff_chunks(data, start + 16, end)
        if kind in (b"VP8X", b"VP8 ", b"VP8L"):
            width, height = _webp_size(data, kind, start, end)
            wide, high = max(wide, width), max(high, height)
        if kind in (b"VP8 ", b"VP8L", b"ALPH"):
            payload.append(view[start:end])
        if kind == b"VP8L":
            codes += vp8l.groups(data[start + 5 : end], width, height)
        elif kind == b"ALPH" and data[start] & 3 == 1:  # as large as the canvas, or smaller
            codes += vp8l.groups(data[start + 1 : end], wide, high)
    memory = 17 + 6200 * max(0, codes - vp8l.FEW) / max(1, wide * high)
    return Survey(data, payload, frames=frames or 1, size=(wide, high), memory=memory, work=60)


# ---------------------------------------------------------------- BMP, PPM


def _bmp(data: bytes, who: str) -> Survey:
    at, header = struct.unpack_from("<II", data, 10)
    runs = header >= 40 and struct.unpack_from("<I", data, 30)[0] in (1, 2)
    if runs and len(data) > MOST_PLAIN:
        limits = f"has {len(data)} bytes of runs, the limit is {MOST_PLAIN}"
        raise refuse(who, f"{limits}; save it as a plain BMP or PNG")
    payload = [memoryview(data)[min(at, len(data)) :]]
    return Survey(data, payload, packed=runs, memory=3, work=150 if runs else 20)


def _ppm(data: bytes, who: str) -> Survey:
    if data[:2] in (b"P1", b"P2", b"P3") and len(data) > MOST_PLAIN:
        limits = f"has {len(data)} bytes of digits, the limit is {MOST_PLAIN}"
        raise refuse(who, f"{limits}; save it as a binary PPM or PNG")
    return Survey(data, [memoryview(data)], packed=False, memory=4, work=20)


# ---------------------------------------------------------------- AVIF


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box."""
    boxes = 0
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        head, boxes = 8, boxes + 1
        if boxes > MOST_BOXES:
            raise ValueError(f"it has more than {MOST_BOXES} boxes beside each other")
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        size = size or end - at
        if size < head or at + size > end:
            raise EOFError("truncated: a box is longer than the file")
        yield kind, at + head, at + size
        at += size


def _field(data: bytes, at: int, size: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + size], "big"), at + size


def _items(data: bytes, at: int, end: int, store: int) -> list[list[tuple[int, int]]]:
    """Of an `iloc` box: for each item the places of its bytes, which no two items may share."""
    version, items, total = data[at], [], 0
    sizes = [half for byte in data[at + 4 : at + 6] for half in (byte >> 4, byte & 15)]
    sizes[3] = sizes[3] if version else 0
    wide = 4 if version == 2 else 2
    n, at = _field(data, at + 6, wide)
    for _ in range(n):
        at += wide
        method, at = _field(data, at, 2 if version else 0)
        base, at = _field(data, at + 2, sizes[2])
        count, at = _field(data, at, 2)
        places = []
        for _ in range(count):
            at += sizes[3]
            offset, at = _field(data, at, sizes[0])
            length, at = _field(data, at, sizes[1])
            start = base + offset + (store if method & 15 == 1 else 0)
            places.append((start, start + length if length else len(data)))
            total += places[-1][1] - start
            if at > end or places[-1][1] > len(data):
                raise EOFError("truncated: an item is longer than the file")
            if total > len(data) + 4096:
                raise ValueError("its items share the same bytes")
        items.append(places)
    return items


def _obus(data: bytes) -> tuple[int, int, int]:
    """(frames, width, height) of AV1 units (AV1 specification, 5.3 and 5.5); not AV1: no frames."""
    at, frames, width, height = 0, 0, 0, 0
    while at < len(data) and not data[at] & 128:
        head = data[at]
        at += 2 if head & 4 else 1
        size = len(data) - at
        if head & 2:
            ends = (n for n in range(1, 9) if not data[at + n - 1 : at + n] >= b"\x80")
            digits = data[at : at + next(ends, 0)]
            size = sum((digit & 127) << 7 * i for i, digit in enumerate(digits))
            at += max(1, len(digits))
        kind = head >> 3 & 15
        frames += kind in (3, 6)
        if kind == 1:
            w, h = _sequence(data[at : at + min(size, 64)])
            width, height = max(width, w), max(height, h)
        at += size
    return frames, width, height


def _sequence(data: bytes) -> tuple[int, int]:
    """Largest width and height that an AV1 sequence header allows."""
    bits, at = "".join(f"{byte:08b}" for byte in data) + "0" * 512, 3  # past its end are zeros

    def take(n: int) -> int:
        nonlocal at
        at += n
        return int(bits[at - n : at], 2) if n else 0

    take(1)  # a still picture
    if take(1):  # a reduced header
        take(5)
    else:
        model = delay = 0
        if take(1):  # timing
            take(64)
            if take(1):  # equal picture interval: a number in Golomb's code
                zeros = len(bits[at:]) - len(bits[at:].lstrip("0"))
                take(2 * zeros + 1)
            model = take(1)
            if model:
                delay = take(5) + 1
                take(42)
        display = take(1)
        for _ in range(take(5) + 1):
            take(12)
            if take(5) > 7:
                take(1)
            if model and take(1):
                take(2 * delay + 1)
            if display and take(1):
                take(4)
    wide, high = take(4) + 1, take(4) + 1
    return take(wide) + 1, take(high) + 1


def boxes_within(data: bytes, at: int, end: int, *path: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each box that lies at a path of kinds."""
    for kind, start, stop in _boxes(data, at, end):
        if kind == path[0] and len(path) == 1:
            yield start, stop
        elif kind == path[0]:
            yield from boxes_within(data, start + 4 if kind == b"meta" else start, stop, *path[1:])


def largest_item(data: bytes) -> tuple[int, int]:
    """The largest width and height that any item of a HEIF file (AVIF, HEIC) states."""
    places = boxes_within(data, 0, len(data), b"meta", b"iprp", b"ipco", b"ispe")
    sizes = [struct.unpack_from(">II", data, at + 4) for at, _ in places]
    return max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))


def _avif(data: bytes, who: str) -> Survey:
    """The primary item of an AVIF.

    Of a sequence, too, it is the first frame, and the others are hidden.
    """
    data, end, frames = bytearray(data), len(data), 1
    for start, _ in boxes_within(data, 0, end, b"ftyp"):
        if data[start : start + 4] == b"avis":
            data[start : start + 4] = b"avif"
    table = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsz")
    for start, _ in boxes_within(data, 0, end, *table):
        frames = max(frames, struct.unpack_from(">I", data, start + 8)[0])
    for start, _ in list(boxes_within(data, 0, end, b"moov")):
        at = data.rfind(b"moov", max(0, start - 12), start)
        data[at : at + 4] = b"free"
    store = next((start for start, _ in boxes_within(data, 0, end, b"meta", b"idat")), 0)
    size = largest_item(data)
    payload, largest, work = [], 1, 0
    for start, stop in boxes_within(data, 0, end, b"meta", b"iloc"):
        for places in _items(data, start, stop, store):
            item = b"".join(data[a:b] for a, b in places)
            block = item[4 + int.from_bytes(item[:4], "big") :]
            if block[:2] in (b"II", b"MM") and not sane_exif(block):  # it would be read at once
                raise ValueError("its EXIF points at the same bytes again and again")
            shown, width, height = _obus(item)
            largest = max(largest, width * height)
            work += shown * width * height
            payload.append(memoryview(item))
    area = max(1, size[0] * size[1])
    memory, work = 17 * max(1, -(-largest // area)), 30 * max(1, work / area)
    return Survey(data, payload, True, frames, size, memory, work)
