"""How many groups of prefix codes a lossless WebP holds (RFC 9649, sections 3.5 to 3.8): its
decoder makes tables for each.

A group takes three bytes of the file and 6 KiB of memory, whatever the picture's size; only the
stream itself tells how many there are.
"""

from __future__ import annotations

ORDER = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
MOST_SMALL = 400_000  # pixels of the small pictures beside it; encoders take some ten thousand
FEW = 3000  # groups that need not be counted

Code = tuple[list[tuple[int, int]], int]  # (symbol, bits) by the next bits, and a mask for them


class Stream:
    """Bits of a VP8L stream; past its end are zeros."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = self.small = 0

    def take(self, bits: int) -> int:
        start = self.at >> 3
        value = int.from_bytes(self.data[start : start + 5], "little") >> (self.at & 7)
        self.at += bits
        return value & (1 << bits) - 1

    def symbol(self, code: Code) -> int:
        table, mask = code
        start = self.at >> 3
        window = int.from_bytes(self.data[start : start + 3], "little") >> (self.at & 7)
        value, bits = table[window & mask]
        self.at += bits
        return value

    def prefix_code(self, alphabet: int) -> Code:
        if self.take(1):  # one or two symbols
            two = self.take(1)
            symbols = [self.take(8 if self.take(1) else 1)]
            symbols += [self.take(8)] if two else []
            return [(symbol, two) for symbol in symbols], two
        lengths = [0] * len(ORDER)
        for place in ORDER[: 4 + self.take(4)]:
            lengths[place] = self.take(3)
        code = prefix_table(lengths)
        most = 2 + self.take(2 + 2 * self.take(3)) if self.take(1) else alphabet
        lengths, last = [], 8
        while len(lengths) < alphabet and most:
            most -= 1
            value = self.symbol(code)
            if value < 16:
                lengths.append(value)
                last = value or last
            elif value == 16:
                lengths += [last] * (3 + self.take(2))
            else:
                lengths += [0] * (3 + self.take(3) if value == 17 else 11 + self.take(7))
        return prefix_table(lengths)

    def number(self, symbol: int) -> int:
        """A length or distance."""
        if symbol < 4:
            return symbol + 1
        extra = symbol - 2 >> 1
        return (2 + (symbol & 1) << extra) + self.take(extra) + 1

    def small_picture(self, width: int, height: int) -> set[int]:
        """Red and green of its pixels.

        Repetitions and the colour cache bring none that were not there.
        """
        pixels, at = width * height, 0
        seen = set()
        self.small += pixels
        if self.small > MOST_SMALL:
            raise ValueError("too large: the small pictures beside the picture")
        cache = 1 << self.take(4) if self.take(1) else 0
        green, red, blue, alpha, distance = (
            self.prefix_code(size) for size in (280 + cache, 256, 256, 256, 40)
        )
        while at < pixels:
            value = self.symbol(green)
            if value < 256:
                seen.add(self.symbol(red) << 8 | value)
                self.symbol(blue)
                self.symbol(alpha)
                at += 1
            elif value < 280:
                at += self.number(value - 256)
                self.number(self.symbol(distance))
            else:
                at += 1
        return seen


def prefix_table(lengths: list[int]) -> Code:
    """A canonical prefix code, its bits reversed: the next bits -> (symbol, how many of them are
    its own).
    """
    used = sorted((length, symbol) for symbol, length in enumerate(lengths) if length)
    if len(used) == 1:
        return [(used[0][1], 0)], 0
    longest = used[-1][0] if used else 0
    if longest > 15 or sum(1 << longest - length for length, _ in used) != 1 << longest:
        raise ValueError("a prefix code is not complete")
    table, code = [(0, 0)] * (1 << longest), 0
    for length, symbol in used:
        first = int(f"{code >> longest - length:0{length}b}"[::-1], 2)
        table[first :: 1 << length] = [(symbol, length)] * (1 << longest - length)
        code += 1 << longest - length
    return table, (1 << longest) - 1


def groups(data: bytes, width: int, height: int) -> int:
    """Groups of the stream of a width×height picture, after its five bytes of header.

    ValueError for what no decoder takes.
    """
    if min(-(-width // 4) * -(-height // 4), len(data) // 2) < FEW:
        return FEW
    stream, kinds = Stream(data), set()
    while stream.take(1):
        kind = stream.take(2)
        if kind in kinds:
            raise ValueError("a transform is there twice")
        kinds.add(kind)
        if kind < 2:
            side = 1 << stream.take(3) + 2
            stream.small_picture(-(-width // side), -(-height // side))
        elif kind == 3:
            colours = stream.take(8) + 1
            stream.small_picture(colours, 1)
            packed = 8 if colours <= 2 else 4 if colours <= 4 else 2 if colours <= 16 else 1
            width = -(-width // packed)
    if stream.take(1):  # a colour cache
        stream.take(4)
    if not stream.take(1):
        return 1
    side = 1 << stream.take(3) + 2
    return len(stream.small_picture(-(-width // side), -(-height // side)))
