"""Small picture files that ask for much: BOMBS[format][name]() makes at most 1 MiB."""

import functools
import io
import itertools
import struct
import zlib

import numpy as np
from PIL import Image

MIB = 1 << 20
TIGHT = functools.partial(zlib.compress, level=9)


def saved(im: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    im.save(buffer, kind, **options)
    return buffer.getvalue()


def flat(width: int, height: int, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (width, height))


def noise(size: int) -> bytes:
    return np.random.default_rng(0).bytes(size)


@functools.cache
def raw_zeros(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(size)) + packer.flush(zlib.Z_FULL_FLUSH)


def zeros(size: int) -> bytes:
    """As many zeros, deflated: one block again and again (RFC 1950 and 1951)."""
    blocks = raw_zeros(MIB) * (size // MIB) + raw_zeros(size % MIB)
    return b"\x78\x9c" + blocks + b"\3\0" + struct.pack(">HH", size % 65521, 1)


def overlapping(order: str, entries: int, size: int) -> bytes:
    """An EXIF block each of whose entries points at the same `size` bytes at its start."""
    pack = functools.partial(struct.pack, order + "HHII")
    rows = b"".join(pack(0x9000 + i, 7, size, 0) for i in range(entries))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, entries)
    return head + rows + bytes(4)


def padded(block: bytes, size: int) -> bytes:
    return block + bytes(max(0, size - len(block)))


EXIF = padded(overlapping("<", 4000, 900_000), 900_000)

# ---- PNG -----------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, kind, *chunks: bytes, interlaced: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def flat_png(width, height, bits, kind, *more: bytes, interlaced: int = 0) -> bytes:
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    sizes = [(height, width)]
    if interlaced:
        steps = (
            (0, 0, 8, 8),
            (0, 4, 8, 8),
            (4, 0, 8, 4),
            (0, 2, 4, 4),
            (2, 0, 4, 2),
            (0, 1, 2, 2),
            (1, 0, 2, 1),
        )
        sizes = [(-(-(height - y) // dy), -(-(width - x) // dx)) for y, x, dy, dx in steps]
    size = sum(rows * (1 + (columns * channels * bits + 7) // 8) for rows, columns in sizes)
    return png(width, height, bits, kind, *more, chunk(b"IDAT", zeros(size)), interlaced=interlaced)


DOT = chunk(b"IDAT", TIGHT(bytes(72)))


def long_chunk(bits: int, kind: int) -> bytes:
    whole = png(1, 1, bits, kind, chunk(b"IDAT", TIGHT(bytes(9))))
    at = whole.index(b"IDAT") - 4
    return whole[:at] + struct.pack(">I", 0xFFFFFFF0) + whole[at + 4 :]


def animated_png(frames: int) -> bytes:
    control = lambda n: chunk(b"fcTL", struct.pack(">IIIIIHHBB", n, 1, 1, 0, 0, 1, 1, 0, 0))
    more = b"".join(control(i) + chunk(b"fdAT", struct.pack(">I", i)) for i in range(frames))
    return png(8, 8, 8, 0, chunk(b"acTL", struct.pack(">II", frames, 0)), DOT, more)


PNG = {
    "a chunk of 4 GB, 16 bits": lambda: long_chunk(16, 6),
    "a chunk of 4 GB, 8 bits": lambda: long_chunk(8, 2),
    "50 MP of 16 bits, zeros after it": lambda: flat_png(10000, 5000, 16, 6) + bytes(200_000),
    "50 MP, comments": lambda: flat_png(
        10000, 5000, 8, 2, chunk(b"tEXt", b"Comment\0" + bytes(300_000))
    ),
    "50 MP, noise after the data": lambda: png(
        10000, 5000, 8, 2, chunk(b"IDAT", zeros(30001 * 5000) + noise(700_000))
    ),
    "33 MP, noise after the data": lambda: png(
        8250, 4000, 8, 2, chunk(b"IDAT", zeros(24751 * 4000) + noise(700_000))
    ),
    "15 MP of 16 bits": lambda: flat_png(5000, 3000, 16, 6),
    "16 MP of 16 bits, grey and alpha": lambda: flat_png(4000, 4000, 16, 4),
    "15 MP interlaced": lambda: flat_png(5000, 3000, 16, 6, interlaced=1),
    "16 MP interlaced": lambda: flat_png(4000, 4000, 8, 6, interlaced=1),
    "16 MP of a clear palette": lambda: flat_png(
        4000, 4000, 1, 3, chunk(b"PLTE", bytes(6)), chunk(b"tRNS", bytes(2))
    ),
    "16 MP of a bit with a key": lambda: flat_png(4000, 4000, 1, 0, chunk(b"tRNS", bytes(2))),
    "16 MP of 16 bits with a key": lambda: flat_png(4000, 4000, 16, 2, chunk(b"tRNS", bytes(6))),
    "80,000 empty chunks of data": lambda: png(8, 8, 8, 0, chunk(b"IDAT", b"") * 80_000, DOT),
    "80,000 chunks of data, 50 MP": lambda: png(
        10000, 5000, 8, 2, chunk(b"IDAT", b"") * 60_000, chunk(b"IDAT", zeros(30001 * 5000))
    ),
    "60,000 texts": lambda: png(8, 8, 8, 0, chunk(b"tEXt", b"a\0b") * 60_000, DOT),
    "700 texts of a MB": lambda: png(
        8, 8, 8, 0, chunk(b"zTXt", b"a\0\0" + zeros(MIB - 9)) * 700, DOT
    ),
    "a profile of 512 MB": lambda: png(
        8, 8, 8, 0, chunk(b"iCCP", b"x\0\0" + zeros(512 * MIB)), DOT
    ),
    "EXIF of 512 MB": lambda: png(
        8, 8, 8, 0, chunk(b"zTXt", b"Raw profile type exif\0\0" + zeros(512 * MIB)), DOT
    ),
    "XMP of 512 MB": lambda: png(
        8, 8, 8, 0, chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zeros(512 * MIB)), DOT
    ),
    "overlapping EXIF": lambda: png(8, 8, 8, 0, chunk(b"eXIf", EXIF), DOT),
    "900 MB of data for 64 pixels": lambda: png(8, 8, 8, 0, chunk(b"IDAT", zeros(900 * MIB))),
    "900 MB of 16-bit data for 64 pixels": lambda: png(
        8, 8, 16, 6, chunk(b"IDAT", zeros(900 * MIB))
    ),
    "10,000 frames": lambda: animated_png(10_000),
}

# ---- JPEG ----------------------------------------------------------------------------------------


def segment(code: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(data) + 2) + data


def progressive(width: int, height: int, scans: int, padding: int = 0) -> bytes:
    """Grey, each further scan one coefficient of nothing, in runs as long as they can be."""
    tables = segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC4, b"\0\1\1" + bytes(14) + b"\0\1")
    tables += segment(0xC4, b"\x10\1\1" + bytes(14) + b"\xe0\0")
    frame = segment(0xC2, struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0))
    blocks, bits = -(-width // 8) * -(-height // 8), ""
    scan = lambda band, high, low, data: (
        segment(0xDA, bytes([1, 1, 0, band, band, high << 4 | low])) + data
    )
    first = scan(0, 0, 1, bytes(-(-blocks // 8)))
    while blocks >= 16384:
        run = min(blocks, 32767)
        bits, blocks = bits + "0" + format(run - 16384, "014b"), blocks - run
    bits += "10" * blocks
    bits += "1" * (-len(bits) % 8)
    rest = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    steps = itertools.islice(
        ((band, low) for low in (3, 2, 1, 0) for band in range(1, 64)), scans - 1
    )
    more = b"".join(scan(band, 0 if low == 3 else low + 1, low, rest) for band, low in steps)
    return (
        b"\xff\xd8"
        + tables
        + frame
        + first
        + more
        + segment(0xFE, bytes(60_000)) * (padding // 60_000)
        + b"\xff\xd9"
    )


def with_segments(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def resized_jpeg(
    width: int, height: int, code: int | None = None, data: bytes = b"", **options
) -> bytes:
    """A JPEG whose header says another size, another coding, and whose scan is other data."""
    whole = bytearray(saved(flat(16, 16, options.pop("mode", "RGB")), "JPEG", **options))
    at = next(i for i in range(len(whole)) if whole[i] == 0xFF and whole[i + 1] in (0xC0, 0xC2))
    whole[at + 1] = code or whole[at + 1]
    whole[at + 5 : at + 9] = struct.pack(">HH", height, width)
    start = whole.index(b"\xff\xda")
    start += 2 + int.from_bytes(whole[start + 2 : start + 4], "big")
    return bytes(whole[:start]) + data.replace(b"\xff", b"") + b"\xff\xd9"


def exif_segments() -> list[bytes]:
    return [
        segment(0xE1, b"Exif\0\0" + EXIF[at : at + 60_000]) for at in range(0, len(EXIF), 60_000)
    ]


SMALL = saved(flat(16, 16), "JPEG")
JPEG = {
    "190 scans of 50 MP": lambda: progressive(10000, 5000, 190, 300_000),
    "190 scans of 198 MP": lambda: progressive(60000, 3300, 190, 0),
    "200 scans of 16 MP": lambda: progressive(4000, 4000, 200),
    "80 scans of 15 MP": lambda: progressive(5000, 3000, 80),
    "30 scans of 33 MP": lambda: progressive(11000, 3000, 30, 600_000),
    "40 MP": lambda: saved(flat(8000, 5000), "JPEG", subsampling=0, optimize=True),
    "40 MP progressive": lambda: saved(flat(8000, 5000), "JPEG", subsampling=0, progressive=True),
    "28 MP progressive": lambda: saved(flat(7000, 4000), "JPEG", subsampling=0, progressive=True),
    "14 MP CMYK": lambda: saved(flat(3750, 3750, "CMYK"), "JPEG"),
    "16 MP CMYK progressive": lambda: saved(flat(4000, 4000, "CMYK"), "JPEG", progressive=True),
    "240,000 empty segments": lambda: with_segments(SMALL, segment(0xEC, b"") * 240_000),
    "100,000 comments": lambda: with_segments(SMALL, segment(0xFE, b"no") * 100_000),
    "50,000 tables": lambda: with_segments(SMALL, segment(0xDD, b"\0\0") * 50_000),
    "a MB between the segments": lambda: with_segments(SMALL, bytes(MIB - 2000)),
    "overlapping EXIF": lambda: with_segments(SMALL, *exif_segments()),
    "overlapping index of pictures": lambda: with_segments(
        SMALL, segment(0xE2, b"MPF\0" + padded(overlapping(">", 4000, 60_000), 60_000))
    ),
    "a segment longer than the file": lambda: with_segments(SMALL, b"\xff\xe1\xff\xff"),
    "arithmetic, 15 MP": lambda: resized_jpeg(5000, 3000, 0xC9, noise(900_000)),
    "arithmetic, nothing, 40 MP": lambda: resized_jpeg(8000, 5000, 0xC9, bytes(900_000)),
    "lossless, 15 MP": lambda: resized_jpeg(5000, 3000, 0xC3, noise(900_000)),
    "no data, 40 MP": lambda: resized_jpeg(8000, 5000),
    "no data, 190 MP": lambda: resized_jpeg(64000, 2968, mode="L", data=bytes(900_000)),
    "the same scan 150 times, 16 MP": lambda: (
        (lambda d: d[:-2] + d[d.rindex(b"\xff\xda") : -2] * 150 + d[-2:])(
            saved(flat(4000, 4000, "L"), "JPEG", progressive=True)
        )[: MIB - 2]
        + b"\xff\xd9"
    ),
}

# ---- GIF -----------------------------------------------------------------------------------------


def gif(width: int, height: int, frame: bytes, head: bytes = b"") -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + bytes(6)
        + head
        + frame
        + b";"
    )


def image(width: int, height: int, data: bytes, flags: int = 0) -> bytes:
    return b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, flags) + data


def in_blocks(data: bytes, size: int) -> bytes:
    return (
        b"".join(
            bytes([len(data[i : i + size])]) + data[i : i + size] for i in range(0, len(data), size)
        )
        + b"\0"
    )


def flat_gif(width: int, height: int, flags: int = 0, head: bytes = b"", block: int = 255) -> bytes:
    whole = saved(flat(width, height, "P"), "GIF")
    at = whole.index(b"\x2c" + bytes(4) + struct.pack("<HH", width, height)) + 10
    data, at = b"", at + 1
    size = whole[at - 1 : at]
    while whole[at]:
        data, at = data + whole[at + 1 : at + 1 + whole[at]], at + whole[at] + 1
    return gif(width, height, image(width, height, size + in_blocks(data, block), flags), head)


PIXEL = b"\x02\x02\x44\x01\x00"
CLEAR = b"\x21\xf9\4\1\0\0\0\0"
GIF = {
    "70,000 frames": lambda: gif(4, 4, image(1, 1, PIXEL) * 65_000),
    "400,000 blocks of a comment": lambda: gif(
        1, 1, image(1, 1, PIXEL), b"\x21\xfe" + b"\1a" * 400_000 + b"\0"
    ),
    "150,000 comments": lambda: gif(1, 1, image(1, 1, PIXEL), b"\x21\xfe\1a\0" * 150_000),
    "130,000 controls": lambda: gif(1, 1, image(1, 1, PIXEL), CLEAR * 130_000),
    "100,000 applications": lambda: gif(1, 1, image(1, 1, PIXEL), b"\x21\xff\1a\0" * 100_000),
    "a comment without end": lambda: gif(1, 1, b"\x21\xfe" + b"\1a" * 400_000),
    "16 MP": lambda: flat_gif(4000, 4000),
    "16 MP interlaced": lambda: flat_gif(4000, 4000, 0x40),
    "16 MP, clear": lambda: flat_gif(4000, 4000, 0, CLEAR),
    "16 MP in small blocks": lambda: flat_gif(4000, 4000, block=1),
    "60 MP": lambda: flat_gif(10000, 6000),
    "4 GP of screen": lambda: gif(65535, 65535, image(1, 1, PIXEL)),
    "4 GP of frame": lambda: gif(1, 1, image(65535, 65535, PIXEL)),
    "60 MP, padded": lambda: flat_gif(
        10000, 6000, head=b"\x21\xfe" + in_blocks(bytes(600_000), 255)
    ),
    "60 MP, padded between": lambda: (
        flat_gif(10000, 6000)[:-1] + image(1, 1, b"\2" + in_blocks(bytes(600_000), 255)) + b";"
    ),
    "a MB of nothing": lambda: gif(1, 1, bytes(MIB - 100)),
    "codes that clear": lambda: gif(
        4000, 4000, image(4000, 4000, b"\2" + in_blocks(b"\x24\x49\x92" * 300_000, 255))
    ),
}

# ---- WebP ----------------------------------------------------------------------------------------


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(k + struct.pack("<I", len(d)) + d + bytes(len(d) % 2) for k, d in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webp(width: int, height: int, mode: str = "RGB", **options) -> bytes:
    options = {"lossless": True, "quality": 0, "method": 0} | options
    return saved(flat(width, height, mode), "WEBP", **options)


def of_webp(data: bytes) -> tuple[bytes, bytes]:
    return data[12:16], data[20 : 20 + int.from_bytes(data[16:20], "little")]


def extended(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    return b"VP8X", bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (
        height - 1
    ).to_bytes(3, "little")


def frame(width: int, height: int, inner: bytes) -> tuple[bytes, bytes]:
    return b"ANMF", bytes(6) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(
        3, "little"
    ) + bytes(4) + inner


def animated_webp(width: int, height: int, frames: int) -> bytes:
    inner = webp(1, 1)[12:]
    return riff(extended(width, height, 2), (b"ANIM", bytes(6)), *[frame(1, 1, inner)] * frames)


def prefix_groups(side: int) -> bytes:
    """VP8L (RFC 9649, 3.7) with a group of prefix codes for each block of 4×4 pixels: side × side
    blocks.
    """
    bits = []

    def put(value: int, size: int) -> None:
        bits.extend(value >> i & 1 for i in range(size))

    for value, size in (
        (0x2F, 8),
        (4 * side - 1, 14),
        (4 * side - 1, 14),
        (0, 4),
        (0, 2),
        (1, 1),
        (0, 3),
        (0, 1),
    ):
        put(value, size)
    for _ in range(2):  # green and red: 256 codes of 8 bits
        put(0, 1), put(8, 4), put(1 << 33, 36), put(1, 1), put(3, 3), put(254, 8)
    for _ in range(3):  # blue, alpha, distance: one code of no bits
        put(1, 4)
    mirror = [int(f"{i:08b}"[::-1], 2) for i in range(256)]
    for i in range(side * side):
        put(mirror[i & 255] | mirror[i >> 8] << 8, 16)
    bits += [1, 0, 0, 0] * (side * side * 5)
    return riff(
        (b"VP8L", np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes() + bytes(16))
    )


WEBP = {
    "16 MP": lambda: webp(4000, 4000),
    "16 MP with alpha": lambda: webp(4000, 4000, "RGBA"),
    "16 MP, lossy": lambda: webp(4000, 4000, lossless=False),
    "16 MP, lossy with alpha": lambda: webp(4000, 4000, "RGBA", lossless=False),
    "64 MP": lambda: webp(8000, 8000),
    "64 MP, padded after": lambda: webp(8000, 8000) + bytes(900_000),
    "64 MP, padded in a chunk": lambda: riff(
        extended(8000, 8000), of_webp(webp(8000, 8000)), (b"junk", bytes(900_000))
    ),
    "64 MP, padded with noise": lambda: riff(
        (b"VP8L", of_webp(webp(8000, 8000))[1] + noise(900_000))
    ),
    "15 MP, noise": lambda: riff((b"VP8L", of_webp(webp(5000, 3000))[1][:5] + noise(900_000))),
    "268 MP": lambda: riff((b"VP8L", b"\x2f" + struct.pack("<I", 16382 | 16382 << 14) + bytes(99))),
    "a canvas of 64 MP": lambda: riff(extended(8000, 8000), of_webp(webp(8, 8))),
    "a small canvas": lambda: riff(extended(8, 8), of_webp(webp(8000, 8000))),
    "18,000 frames": lambda: animated_webp(8, 8, 18_000),
    "two frames on 64 MP": lambda: animated_webp(8000, 8000, 2),
    "two frames on 16 MP": lambda: animated_webp(4000, 4000, 2),
    "100,000 chunks": lambda: riff(
        extended(8, 8), of_webp(webp(8, 8)), *[(b"junk", b"")] * 100_000
    ),
    "overlapping EXIF": lambda: riff(extended(8, 8, 8), of_webp(webp(8, 8)), (b"EXIF", EXIF)),
    "a large profile": lambda: riff(
        extended(8, 8, 32), (b"ICCP", bytes(900_000)), of_webp(webp(8, 8))
    ),
    "a chunk longer than the file": lambda: (
        riff(extended(8, 8), of_webp(webp(8, 8)))[:-8] + b"\xff\xff\xff\x7f" + bytes(4)
    ),
    "65,536 groups of codes": lambda: prefix_groups(256),
}

# ---- TIFF ----------------------------------------------------------------------------------------

PIECES = {273, 324}


def tiff(
    width: int,
    height: int,
    stream: bytes | list[bytes],
    number: int,
    *,
    bits: int = 8,
    channels: int = 1,
    more: dict | None = None,
    tile: int = 0,
    rows: int = 0,
    compression: int = 8,
    colour: int = 1,
    after: bytes = b"",
    entries: tuple = (),
) -> bytes:
    """A TIFF whose `number` pieces are all the same stream, or the streams one after the other in
    turn.
    """
    streams = [stream] if isinstance(stream, bytes) else stream
    tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * channels),
        259: (3, [compression]),
        262: (3, [colour]),
        277: (3, [channels]),
    }
    tags |= (
        {322: (4, [tile]), 323: (4, [tile])} if tile else {278: (4, [rows or -(-height // number)])}
    )
    starts = np.cumsum([0] + [len(s) for s in streams[:-1]]).tolist()
    turns = [i % len(streams) for i in range(number)]
    tags |= {
        324 if tile else 273: (4, [starts[i] for i in turns]),
        325 if tile else 279: (4, [len(streams[i]) for i in turns]),
    }
    tags |= more or {}
    size = {1: 1, 3: 2, 4: 4, 7: 1}
    at = 8 + 2 + 12 * (len(tags) + len(entries)) + 4
    lengths = {tag: size[kind] * len(values) for tag, (kind, values) in tags.items()}
    first = at + sum(n + n % 2 for n in lengths.values() if n > 4)
    body, rest = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        values = [first + v for v in values] if tag in PIECES else values
        packed = np.array(values, f"<u{size[kind]}").tobytes()
        if len(packed) > 4:
            body, place = (
                body + struct.pack("<HHII", tag, kind, len(values), at + len(rest)),
                packed + bytes(len(packed) % 2),
            )
            rest += place
        else:
            body += struct.pack("<HHI", tag, kind, len(values)) + padded(packed, 4)
    body += b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(tags) + len(entries))
        + body
        + bytes(4)
        + rest
        + b"".join(streams)
        + after
    )


def by_pillow(width: int, height: int, compression: str, mode: str = "RGB", **options) -> bytes:
    return saved(flat(width, height, mode), "TIFF", compression=compression, **options)


def by_opencv(width: int, height: int, channels: int, compression: int) -> bytes:
    import cv2

    return cv2.imencode(
        ".tif",
        np.zeros((height, width, channels), np.uint16),
        [cv2.IMWRITE_TIFF_COMPRESSION, compression],
    )[1].tobytes()


def directories(number: int, size: int = 0) -> bytes:
    data = bytearray(by_pillow(8, 8, "raw"))
    (at,) = struct.unpack_from("<I", data, 4)
    (n,) = struct.unpack_from("<H", data, at)
    data += bytes(len(data) % 2)
    first = len(data)
    struct.pack_into("<I", data, at + 2 + 12 * n, first)
    return bytes(data) + b"".join(
        struct.pack("<HHHIII", 1, 256, 4, 1, 8, first + 18 * (i + 1)) for i in range(number)
    )


def jpeg_strips(width: int, rows: int, number: int) -> bytes:
    return tiff(
        width, rows * number, progressive(width, rows, 60), number, compression=7, rows=rows
    )


FLOATS = {339: (3, [3])}
TIFF = {
    "100 strips that unpack to 16 MB": lambda: tiff(1, 100, zeros(16 * MIB), 100, bits=16),
    "1000 strips that unpack to 16 MB": lambda: tiff(1000, 1000, zeros(16 * MIB), 1000, bits=16),
    "60,000 strips of 4 rows that unpack to 16 MB": lambda: tiff(
        1, 60_000, zeros(MIB), 60_000, bits=16
    ),
    "more strips than rows": lambda: tiff(10, 10, zeros(20), 60_000, bits=16, rows=1),
    "25 MP of floats, one shared row": lambda: tiff(
        5000,
        5000,
        bytes(5000 * 24),
        5000,
        bits=64,
        channels=3,
        colour=2,
        compression=1,
        more={339: (3, [3] * 3)},
        after=bytes(99_999),
    ),
    "15 MP of floats, one shared row": lambda: tiff(
        5000, 3000, bytes(5000 * 8), 3000, bits=64, compression=1, more=FLOATS
    ),
    "15 MP of floats, one strip": lambda: tiff(
        5000, 3000, zeros(5000 * 3000 * 4), 1, bits=32, more=FLOATS | {317: (3, [3])}
    ),
    "12 MP of double floats, one strip": lambda: tiff(
        4000, 3000, zeros(4000 * 3000 * 8), 1, bits=64, more=FLOATS | {317: (3, [3])}
    ),
    "10 MP, multiplied with alpha": lambda: tiff(
        5000,
        2000,
        zeros(5000 * 2000 * 8),
        1,
        bits=16,
        channels=4,
        colour=2,
        more={338: (3, [1]), 317: (3, [2])},
    ),
    "16 MP of 16 bits and white": lambda: tiff(
        4000, 4000, zeros(4000 * 4000 * 2), 1, bits=16, colour=0, more={317: (3, [2])}
    ),
    "a tile of 4 GP": lambda: tiff(1, 1, zeros(16 * MIB), 1, tile=65520),
    "a tile of 4 GP, 16 bits": lambda: tiff(1, 1, zeros(16 * MIB), 1, tile=65520, bits=16),
    "a tile of 4 GP, LZW": lambda: tiff(1, 1, bytes(1000), 1, tile=65520, compression=5),
    "a tile of 4 GP, plain": lambda: tiff(1, 1, bytes(1000), 1, tile=65520, compression=1),
    "60,000 tiles": lambda: tiff(16 * 240, 16 * 250, zeros(512), 60_000, tile=16, bits=16),
    "60,000 plain tiles": lambda: tiff(
        16 * 240, 16 * 250, bytes(256), 60_000, tile=16, compression=1
    ),
    "65,000 plain strips": lambda: tiff(10, 65_000, bytes(10), 65_000, compression=1),
    "a strip that unpacks to 900 MB": lambda: tiff(8, 8, zeros(900 * MIB), 1),
    "a tile that unpacks to 900 MB": lambda: tiff(8, 8, zeros(900 * MIB), 1, tile=16),
    "16 MP, LZW": lambda: by_pillow(4000, 4000, "tiff_lzw"),
    "60 MP, LZW": lambda: by_pillow(10000, 6000, "tiff_lzw", "L"),
    "16 MP, packbits": lambda: by_pillow(4000, 4000, "packbits", "L"),
    "16 MP of fax": lambda: by_pillow(4000, 4000, "group4", "1"),
    "150 MP of fax": lambda: by_pillow(15000, 10000, "group4", "1"),
    "16 MP, LZMA": lambda: by_pillow(4000, 4000, "lzma"),
    "16 MP, Zstandard": lambda: by_pillow(4000, 4000, "zstd"),
    "16 MP of RGBA": lambda: by_pillow(4000, 4000, "tiff_adobe_deflate", "RGBA"),
    "14 MP of CMYK": lambda: by_pillow(3750, 3750, "tiff_adobe_deflate", "CMYK"),
    "14 MP of Lab": lambda: by_pillow(3750, 3750, "tiff_adobe_deflate", "LAB"),
    "16 MP as JPEG": lambda: by_pillow(4000, 4000, "jpeg", "L"),
    "12 MP, 16 bits, LZW": lambda: by_opencv(4000, 3000, 3, 5),
    "16 MP, 16 bits, LZW": lambda: by_opencv(4100, 4000, 3, 5),
    "60 scans in each strip": lambda: jpeg_strips(4000, 400, 10),
    "150 scans in a shared strip": lambda: tiff(
        4000, 4000, progressive(4000, 40, 150), 100, compression=7, rows=40
    ),
    "4000 tags of a MB": lambda: tiff(
        8,
        8,
        bytes(64),
        1,
        compression=1,
        entries=[(0x9000 + i, 7, 900_000, 0) for i in range(4000)],
        after=bytes(800_000),
    ),
    "60,000 tags": lambda: tiff(
        8, 8, bytes(64), 1, compression=1, entries=[(0x9000, 3, 1, 0)] * 60_000
    ),
    "50,000 directories": lambda: directories(50_000),
    "400 samples in a pixel": lambda: tiff(2000, 2000, zeros(MIB), 1, channels=400, bits=16),
    "tags that are there twice": lambda: tiff(
        8, 8, zeros(64), 1, entries=[(256, 4, 1, 60_000), (257, 4, 1, 60_000)]
    ),
}

# ---- BMP -----------------------------------------------------------------------------------------


def bmp(
    width: int, height: int, body: bytes, bits: int = 8, compression: int = 1, colours: int = 0
) -> bytes:
    start = 54 + 4 * (2**bits if bits < 9 else 0)
    head = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start)
    head += struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, colours, 0
    )
    return padded(head, start) + body


END = b"\0\1"
BMP = {
    "runs of one": lambda: bmp(4000, 120, (b"\1\7" * 4000 + b"\0\0") * 120 + END),
    "runs of none": lambda: bmp(64, 64, b"\0\2\0\0" * 250_000 + END),
    "16 MP of long runs": lambda: bmp(4000, 4000, b"\xff\7" * 62_800 + END),
    "15 MP of long runs": lambda: bmp(5000, 3000, b"\xff\7" * 58_900 + END),
    "15 MP of runs of 4 bits": lambda: bmp(5000, 3000, b"\xff\x77" * 58_900 + END, 4, 2),
    "12 MP of runs of 4 bits": lambda: bmp(
        4000, 3000, (b"\xff\x77" * 15 + b"\xaf\x77\0\0") * 3000 + END, 4, 2
    ),
    "16 MP of runs of 4 bits": lambda: bmp(4000, 4000, b"\xff\x77" * 62_800 + END, 4, 2),
    "ends of lines": lambda: bmp(5000, 3000, b"\1\7\0\0" * 3000 + END),
    "steps": lambda: bmp(5000, 3000, b"\0\2\xff\xff" * 200_000 + END),
    "steps over 60 MP": lambda: bmp(10000, 6000, b"\0\2\xff\xff" * 200_000 + END),
    "single samples": lambda: bmp(1000, 1000, b"\0\3\7\7\7\0" * 170_000 + END),
    "190 MP of nothing": lambda: bmp(19000, 10000, bytes(900_000), 24, 0),
    "60 MP of steps, padded": lambda: bmp(10000, 6000, b"\0\2\xff\xff" * 10 + END + bytes(900_000)),
    "9 MP of long runs": lambda: bmp(3570, 2500, (b"\xff\7" * 14 + b"\0\0") * 2500 + END),
    "7 MP of bits": lambda: bmp(3500, 2000, bytes(440 * 2000), 1, 0),
    "2 G rows": lambda: bmp(1, -(2**31), bytes(99), 24, 0),
    "4 G colours": lambda: bmp(8, 8, bytes(900_000), 8, 0, 2**32 - 1),
    "15 MP of nothing, 32 bits": lambda: bmp(5000, 3000, bytes(900_000), 32, 0),
}

# ---- PPM -----------------------------------------------------------------------------------------

PPM = {
    "digits": lambda: b"P3 400 400 255\n" + b"1 " * 480_000,
    "short digits": lambda: b"P2 1000 500 1\n" + b"1 " * 500_000,
    "long digits": lambda: b"P3 100 100 65535\n" + b"0" * 900_000,
    "bits as digits": lambda: b"P1 1000 1000\n" + b"1" * 1_000_000,
    "16 MP of missing digits": lambda: b"P1 4000 4000\n" + b"1" * 1_000_000,
    "a long comment": lambda: b"P6 #" + b"x" * MIB_LESS + b"\n 1 1 255\n123",
    "many comments": lambda: b"P3 300 300 255\n" + b"1#x\n" * 250_000,
    "comments in the header": lambda: b"P6\n" + b"#\n" * 500_000 + b"1 1 255\n123",
    "zeros in the header": lambda: b"P6 " + b"0" * 1_000_000 + b"1 1 255\n123",
    "spaces": lambda: b"P6" + b" " * 1_000_000 + b"1 1 255\n123",
    "up to 100": lambda: b"P6 500 600 100\n" + bytes(900_000),
    "up to 100, grey": lambda: b"P5 1000 900 100\n" + bytes(900_000),
    "up to 1000, grey": lambda: b"P5 500 900 1000\n" + bytes(900_000),
    "8 MP of bits": lambda: b"P4 4000 2000\n" + bytes(1_000_000),
    "floats": lambda: b"Pf 500 500 -1.0\n" + bytes(1_000_000),
    "190 MP of nothing": lambda: b"P6 19000 10000 255\n" + bytes(900_000),
    "190 MP of nothing, up to 100": lambda: b"P6 19000 10000 100\n" + bytes(900_000),
    "190 MP of floats": lambda: b"Pf 19000 10000 -1.0\n" + bytes(900_000),
    "190 MP of missing digits": lambda: b"P2 19000 10000 255\n" + b"1 " * 400_000,
}
MIB_LESS = MIB - 100

# ---- AVIF ----------------------------------------------------------------------------------------


@functools.cache
def avif(width: int, height: int, mode: str = "RGB", **options) -> bytes:
    return saved(flat(width, height, mode), "AVIF", **({"speed": 10} | options))


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(data), kind) + data


def _places(data: bytes) -> tuple[int, int, int]:
    """Of a file by Pillow with one item: where its `iloc` says length and offset, and its `mdat`
    begins.
    """
    at = data.index(b"iloc") + 4
    assert data[at : at + 8] == b"\0\0\0\0\x44\0\0\1", (
        "version 0, offsets and lengths of 4 bytes, one item"
    )
    return at + 14, at + 18, data.index(b"mdat") + 4


def with_item(data: bytes, item: bytes) -> bytes:
    """The same AVIF with other data for its one item."""
    offset, length, start = _places(data)
    data = bytearray(data[:start] + item)
    struct.pack_into(">II", data, offset, start, len(item))
    struct.pack_into(">I", data, start - 8, 8 + len(item))
    return bytes(data)


def item_of(data: bytes) -> bytes:
    offset, _, _ = _places(data)
    start, size = struct.unpack_from(">II", data, offset)
    return data[start : start + size]


def repeated(width: int, height: int, times: int) -> bytes:
    data = avif(width, height)
    return with_item(data, item_of(data) * times)


def said_smaller(width: int, height: int) -> bytes:
    """AV1 data that are larger than the `ispe` box says."""
    data = bytearray(avif(width, height))
    at = data.index(b"ispe") + 8
    struct.pack_into(">II", data, at, 64, 64)
    return bytes(data)


def shared_items(number: int, size: int) -> bytes:
    rows = b"".join(struct.pack(">HHHII", i + 1, 0, 1, 0, size) for i in range(number))
    iloc = box(b"iloc", b"\0\0\0\0\x44\0" + struct.pack(">H", number) + rows)
    return (
        box(b"ftyp", b"avif\0\0\0\0avifmif1")
        + box(b"meta", bytes(4) + iloc)
        + box(b"mdat", bytes(size))
    )


def boxed(data: bytes, more: bytes) -> bytes:
    return data + more


def series(width: int, height: int, frames: int) -> bytes:
    pictures = [Image.new("RGB", (width, height), (i % 256, 0, 0)) for i in range(frames)]
    return saved(pictures[0], "AVIF", save_all=True, append_images=pictures[1:], speed=10)


def overlapping_avif() -> bytes:
    tags = Image.Exif()
    tags[0x9000] = bytes(900_000)
    data = avif(8, 8, exif=tags.tobytes())
    at = data.index(b"MM\0*") if b"MM\0*" in data else data.index(b"II*\0")
    return data[:at] + EXIF + data[at + len(EXIF) :]


AVIF = {
    "15 MP": lambda: avif(5000, 3000),
    "15 MP with alpha": lambda: avif(5000, 3000, "RGBA"),
    "15 MP, 4:4:4": lambda: avif(5000, 3000, subsampling="4:4:4"),
    "33 MP": lambda: avif(8250, 4000),
    "33 MP, padded": lambda: avif(8250, 4000) + box(b"free", bytes(900_000)),
    "33 MP, padded in the item": lambda: with_item(
        avif(8250, 4000), item_of(avif(8250, 4000)) + b"\x7a\xff\xff\x0f" + bytes(262_143)
    ),
    "200 frames of 4 MP": lambda: repeated(2000, 2000, 200),
    "3000 frames of 1 MP": lambda: repeated(1000, 1000, 3000),
    "16 MP called small": lambda: said_smaller(4000, 4000),
    "33 MP called small": lambda: said_smaller(8250, 4000),
    "a series": lambda: series(64, 64, 300),
    "a large series": lambda: series(2000, 1500, 5),
    "60,000 items that share": lambda: shared_items(60_000, 100_000),
    "100,000 boxes": lambda: boxed(avif(8, 8), box(b"free", b"") * 100_000),
    "100,000 boxes in a box": lambda: boxed(avif(8, 8), box(b"moov", box(b"trak", b"") * 100_000)),
    "overlapping EXIF": overlapping_avif,
    "a box longer than the file": lambda: avif(8, 8)[:-4] + b"\xff\xff\xff\xff",
    "a large profile": lambda: avif(8, 8, icc_profile=bytes(900_000)),
}

BOMBS = {
    "JPEG": JPEG,
    "PNG": PNG,
    "WEBP": WEBP,
    "TIFF": TIFF,
    "BMP": BMP,
    "GIF": GIF,
    "PPM": PPM,
    "AVIF": AVIF,
}
