"""The guided filter and the refiner over a full-size picture in one pass, compiled by numba.

It computes what `nets.GuidedUpsampler` computes. A tile of columns is walked from top to bottom. A
row goes in as samples, is filtered, and passes through every layer of the refiner as soon as the
row below it is there; only the last few rows of each layer are kept, so all of it stays in the
processor's cache and the picture is read once and written once. The torch module is the reference:
both agree to less than one level in 8 bits (tests/test_fast.py). Tiles do not depend on the number
of threads, so the result does not either.

The first use on a machine compiles for some seconds; the compiled code is then kept beside this
file or in the user's cache folder.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from ..image import top_of
from ..nets import GuidedUpsampler
from ..nets.guided import State

try:
    from numba import njit
except ImportError:  # no numba for this Python: the pipeline falls back to torch in strips
    njit = None

ROWS = 256  # of a tile
COLUMNS = 1012
PAD = 16  # floats at both ends of a row, for the taps and to keep rows aligned
SLOPE = np.float32(0.2)  # of nets.blocks.act


def fits(net: object) -> bool:
    """Whether `upsample` can stand in for this net."""
    if njit is None or not isinstance(net, GuidedUpsampler):
        return False
    if net.filter.log_eps.device.type != "cpu":
        return False
    refiner = net.refiner
    first: Any = net.filter.map[0]
    if first.out_channels % 4:
        return False
    return refiner is None or (
        refiner.concat and 0 < refiner.config["blocks"] < 7 and refiner.config["width"] % 4 == 0
    )


def upsample(net: GuidedUpsampler, photo: np.ndarray, state: State) -> np.ndarray:
    """The large picture H×W×3 (uint8, uint16, or float32 in 0..1) restored, in its own type.

    `state` is what `net.solve` gave for one picture.
    """
    a, b = (np.ascontiguousarray(x[0].detach().numpy(), np.float32) for x in state[:2])
    h, w = photo.shape[:2]
    top = top_of(photo.dtype)
    out, parts = np.empty((h, 3 * w), photo.dtype), weights_of(net, state[2])
    flat = np.ascontiguousarray(photo).reshape(h, 3 * w)
    tiles = [
        (y, min(y + ROWS, h), x, min(x + COLUMNS, w))
        for y in range(0, h, ROWS)
        for x in range(0, w, COLUMNS)
    ]
    scale, half = np.float32(top), np.float32(0.5 if top > 1 else 0)
    same = [flat, out, a, b, *parts, scale, half]
    with ThreadPoolExecutor(torch.get_num_threads(), "tile") as pool:
        for _ in pool.map(lambda tile: walk(*[*same, *tile]), tiles):
            pass
    return out.reshape(photo.shape)


def weights_of(net: GuidedUpsampler, mood: torch.Tensor | None) -> list[Any]:
    """Weight and bias of the guidance map's two layers, and of the refiner's layers.

    These are its first, its middle ones stacked, and its last, which gets a fourth output. The mood
    goes into the first bias and the last layer; the share of the photo to keep comes last. A filter
    without refiner has none of its layers.
    """

    def arrays(*convs: Any) -> tuple[np.ndarray, ...]:
        return tuple(
            np.stack([getattr(c, name).detach().float().numpy() for c in convs])
            for name in ("weight", "bias")
        )

    enter, leave = net.filter.map[0], net.filter.map[2]
    parts = [*(x[0] for x in arrays(enter)), *(x[0] for x in arrays(leave))]
    parts[0], parts[2] = parts[0][..., 0, 0], parts[2][..., 0, 0]
    layers = net.refiner.modules() if net.refiner else ()
    convs = [m for m in layers if isinstance(m, torch.nn.Conv2d)]
    if convs:
        last = [np.concatenate([x[0], np.zeros_like(x[0, :1])]) for x in arrays(convs[-1])]
        parts += [*(x[0] for x in arrays(convs[0])), *arrays(*convs[1:-1]), *last]
    else:
        shapes = ((0, 6, 3, 3), 0, (0, 4, 4, 3, 3), (0, 4), (4, 4, 3, 3), 4)
        parts += [np.zeros(shape, np.float32) for shape in shapes]
    keep = np.float32(0)
    if convs and mood is not None:
        *shift, keep, gain = mood[0].detach().numpy().astype(np.float32)
        parts[5] = parts[5] + np.array(shift, np.float32)
        parts[8], parts[9] = parts[8] * (1 + gain), parts[9] * (1 + gain)
    return [*map(np.ascontiguousarray, parts), keep]


def compiled(function):
    """`function` compiled, without the lock; NaNs stay NaNs, additions may be reordered."""
    if njit is None:
        return function
    options = {"nogil": True, "error_model": "numpy"}
    options["fastmath"] = {"contract", "reassoc", "nsz", "arcp"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to keep the compiled code in
        return njit(**options)(function)


@compiled
def aligned(count):
    """So many zeros, from a multiple of 64 bytes: rows that begin there are written faster."""
    raw = np.zeros(count + 16, np.float32)
    skip = -(raw.ctypes.data // 4) % 16
    return raw[skip : skip + count]


@compiled
def taps(out, o, row, c, weight, k):
    """Add channel c of a row, seen through three taps, to channels o..o + 3 of an output row.

    All but the PAD columns at its ends. Twelve weights, four sums and three samples fit into the
    registers.
    """
    a0, a1, a2 = weight[o, c, k, 0], weight[o, c, k, 1], weight[o, c, k, 2]
    b0, b1, b2 = weight[o + 1, c, k, 0], weight[o + 1, c, k, 1], weight[o + 1, c, k, 2]
    c0, c1, c2 = weight[o + 2, c, k, 0], weight[o + 2, c, k, 1], weight[o + 2, c, k, 2]
    d0, d1, d2 = weight[o + 3, c, k, 0], weight[o + 3, c, k, 1], weight[o + 3, c, k, 2]
    for x in range(out.shape[1] - 2 * PAD):
        p, q, r = row[c, x + PAD - 1], row[c, x + PAD], row[c, x + PAD + 1]
        out[o, x + PAD] += a0 * p + a1 * q + a2 * r
        out[o + 1, x + PAD] += b0 * p + b1 * q + b2 * r
        out[o + 2, x + PAD] += c0 * p + c1 * q + c2 * r
        out[o + 3, x + PAD] += d0 * p + d1 * q + d2 * r


@compiled
def convolve(out, above, here, below, weight, bias):
    """One row of a 3×3 convolution: out O×m from three rows C×m."""
    for o in range(len(out)):
        start = bias[o]
        for x in range(out.shape[1]):
            out[o, x] = start
    for o in range(0, len(out), 4):
        for c in range(weight.shape[1]):
            taps(out, o, above, c, weight, 0)
            taps(out, o, here, c, weight, 1)
            taps(out, o, below, c, weight, 2)


@compiled
def leaky(rows):
    for c in range(len(rows)):
        for x in range(rows.shape[1]):
            rows[c, x] = max(rows[c, x], SLOPE * rows[c, x])


@compiled
def mapped(row, guide, enter, bias, leave, j):
    """Add to guide 3×m what hidden channels j..j + 3 of the guidance map make of row 3×m."""
    a0, a1, a2, a3 = enter[j, 0], enter[j, 1], enter[j, 2], bias[j]
    b0, b1, b2, b3 = enter[j + 1, 0], enter[j + 1, 1], enter[j + 1, 2], bias[j + 1]
    c0, c1, c2, c3 = enter[j + 2, 0], enter[j + 2, 1], enter[j + 2, 2], bias[j + 2]
    d0, d1, d2, d3 = enter[j + 3, 0], enter[j + 3, 1], enter[j + 3, 2], bias[j + 3]
    r0, r1, r2, r3 = leave[0, j], leave[0, j + 1], leave[0, j + 2], leave[0, j + 3]
    g0, g1, g2, g3 = leave[1, j], leave[1, j + 1], leave[1, j + 2], leave[1, j + 3]
    h0, h1, h2, h3 = leave[2, j], leave[2, j + 1], leave[2, j + 2], leave[2, j + 3]
    for x in range(row.shape[1]):
        p, q, s = row[0, x], row[1, x], row[2, x]
        t, u = a0 * p + a1 * q + a2 * s + a3, b0 * p + b1 * q + b2 * s + b3
        v, w = c0 * p + c1 * q + c2 * s + c3, d0 * p + d1 * q + d2 * s + d3
        t, u, v, w = max(t, SLOPE * t), max(u, SLOPE * u), max(v, SLOPE * v), max(w, SLOPE * w)
        guide[0, x] += r0 * t + r1 * u + r2 * v + r3 * w
        guide[1, x] += g0 * t + g1 * u + g2 * v + g3 * w
        guide[2, x] += h0 * t + h1 * u + h2 * v + h3 * w


@compiled
def guided(row, guide, filtered, lower, upper, t, w1, b1, w2, b2):
    """OH0 = A·(x + map(x)) + b of a row: row and filtered 3×m, guide 3×m for scratch.

    lower and upper, 6×m: A and b of the small rows around it.
    """
    m = row.shape[1]
    for c in range(3):
        bias = b2[c]
        for x in range(m):
            guide[c, x] = row[c, x] + bias
    for j in range(0, len(w1), 4):
        mapped(row, guide, w1, b1, w2, j)
    for c in range(3):
        for x in range(m):
            a, b = lower[c, x], lower[c + 3, x]
            filtered[c, x] = (
                (a + t * (upper[c, x] - a)) * guide[c, x] + b + t * (upper[c + 3, x] - b)
            )


@compiled
def finished(row, result, keep):
    """Add the refiner's result and the photo's share to the filtered part of a row 6×m."""
    for c in range(3):
        for x in range(row.shape[1]):
            row[c, x] += result[c, x] + keep * (row[c + 3, x] - row[c, x])


@compiled
def unpack(samples, r, g, b, line, scale):
    """A row of interleaved samples -> three rows; as one line first: 4 times faster."""
    for x in range(len(samples)):
        line[x] = np.float32(samples[x]) * scale
    for x in range(len(r)):
        r[x], g[x], b[x] = line[3 * x], line[3 * x + 1], line[3 * x + 2]


@compiled
def pack(samples, r, g, b, line, top, half):
    zero, one = np.float32(0), np.float32(1)
    for x in range(len(r)):
        line[3 * x], line[3 * x + 1], line[3 * x + 2] = r[x], g[x], b[x]
    for x in range(len(samples)):
        samples[x] = min(max(line[x], zero), one) * top + half


@compiled
def widen(out, row, near, far, share):
    """A small row brought to full width: between row[near] and row[far]."""
    for x in range(len(near)):
        out[x] = row[near[x]] + share[x] * (row[far[x]] - row[near[x]])


@compiled
def walk(
    photo,
    out,
    a,
    b,
    w1,
    b1,
    w2,
    b2,
    first,
    first_bias,
    middle,
    middle_bias,
    last,
    last_bias,
    keep,
    top,
    half,
    y0,
    y1,
    x0,
    x1,
):
    """The tile y0..y1 × x0..x1 of `out`, H×3W like `photo`.

    Rows are kept in rings, 16 of the input and 4 of each layer; a ring's column 0 is the picture's
    x0 − halo − PAD.
    """
    height, width = len(photo), photo.shape[1] // 3
    h, w = a.shape[1:]
    layers = len(middle) + 1 if len(first) else 0
    halo = layers + 1 if layers else 0
    m, left = 2 * PAD + -(-(x1 - x0 + 2 * halo) // 16) * 16, x0 - halo - PAD
    begin = max(PAD, -left)  # the columns that lie in the picture
    end = min(x1 - left + halo, width - left)
    rows = aligned(16 * 6 * m).reshape((16, 6, m))  # filtered, then the photo's own
    ring = aligned(layers * 4 * len(first) * m).reshape((layers, 4, len(first), m))
    scratch, result = aligned(3 * m).reshape((3, m)), aligned(4 * m).reshape((4, m))
    wide, line, held = aligned(2 * 6 * m).reshape((2, 6, m)), aligned(3 * m), np.full(2, -1)
    near = np.zeros(end - begin, np.uint32)
    far = np.zeros(end - begin, np.uint32)
    share = aligned(end - begin)
    for x in range(end - begin):
        place = min(max((left + begin + x + 0.5) * w / width - 0.5, 0.0), w - 1.0)
        near[x], far[x], share[x] = int(place), min(int(place) + 1, w - 1), place - int(place)
    scale = np.float32(1) / top
    for y in range(y0 - halo, y1 + halo):
        slot = rows[y & 15]
        if y < 0 or y >= height:
            slot[:] = 0
        else:
            samples = photo[y, 3 * (left + begin) : 3 * (left + end)]
            inside = slot[3:, begin:end]
            unpack(samples, inside[0], inside[1], inside[2], line, scale)
            place = min(max((y + 0.5) * h / height - 0.5, 0.0), h - 1.0)
            low = int(place)
            for source in (low, min(low + 1, h - 1)):  # brought to full width once for many rows
                if held[source & 1] != source:
                    held[source & 1] = source
                    for c in range(3):
                        widen(wide[source & 1, c, begin:end], a[c, source], near, far, share)
                        widen(wide[source & 1, c + 3, begin:end], b[c, source], near, far, share)
            lower, upper = wide[low & 1], wide[min(low + 1, h - 1) & 1]
            t = np.float32(place - low)
            guided(slot[3:], scratch, slot, lower, upper, t, w1, b1, w2, b2)
            slot[:3, :begin] = 0
            slot[:3, end:] = 0
        for n in range(layers):
            r = y - 1 - n
            into = ring[n, r & 3]
            if r < 0 or r >= height:
                into[:] = 0
            elif r > y0 - halo + n:  # the rows before are not needed
                if n == 0:
                    convolve(
                        into,
                        rows[(r - 1) & 15],
                        rows[r & 15],
                        rows[(r + 1) & 15],
                        first,
                        first_bias,
                    )
                else:
                    before = ring[n - 1]
                    convolve(
                        into,
                        before[(r - 1) & 3],
                        before[r & 3],
                        before[(r + 1) & 3],
                        middle[n - 1],
                        middle_bias[n - 1],
                    )
                if n > 0 and n % 2 == 0:  # the end of a residual block
                    into += ring[n - 2, r & 3]
                if n % 2 or n == 0 or n == layers - 1:
                    leaky(into)
                into[:, :begin] = 0
                into[:, end:] = 0
        r = y - halo
        if r < y0:
            continue
        if layers:
            before = ring[layers - 1]
            convolve(
                result, before[(r - 1) & 3], before[r & 3], before[(r + 1) & 3], last, last_bias
            )
            finished(rows[r & 15], result, keep)
        inner = rows[r & 15, :3, x0 - left : x1 - left]
        pack(out[r, 3 * x0 : 3 * x1], inner[0], inner[1], inner[2], line, top, half)


def warm() -> None:
    """Compile for 8-bit pictures now, not at the first restoration: ten seconds, once a machine."""
    if njit is not None:
        zeros = torch.zeros(1, 3, 8, 8)
        upsample(GuidedUpsampler(), np.zeros((32, 32, 3), np.uint8), (zeros, zeros, None))
