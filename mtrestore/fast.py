"""The guided filter and the refiner over a full-size picture in one pass: what `nets.GuidedUpsampler` computes, compiled by numba.

A tile of columns is walked from top to bottom. A row goes in as samples, is filtered, and passes through every layer of the refiner as
soon as the row below it is there; only the last few rows of each layer are kept, so all of it stays in the processor's cache and the
picture is read once and written once. The torch module is the reference: both agree to less than one level in 8 bits
(tests/test_fast.py). Tiles do not depend on the number of threads, so the result does not either.

The first use on a machine compiles for some seconds; the compiled code is then kept beside this file or in the user's cache folder.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from .nets import GuidedUpsampler
from .nets.guided import State

try:
    from numba import njit
except ImportError:  # no numba for this Python: the pipeline falls back to torch in strips
    njit = None

ROWS, COLUMNS, PAD = 256, 500, 16  # of a tile; floats at both ends of a row, for the taps and to keep rows aligned
SLOPE = np.float32(0.2)  # of nets.blocks.act


def fits(net: object) -> bool:
    """Whether `upsample` can stand in for this net."""
    if njit is None or not isinstance(net, GuidedUpsampler) or net.filter.log_eps.device.type != "cpu":
        return False
    refiner = net.refiner
    return refiner is None or (refiner.concat and 0 < refiner.config["blocks"] < 7 and refiner.config["width"] % 4 == 0)


def upsample(net: GuidedUpsampler, photo: np.ndarray, state: State) -> np.ndarray:
    """The large picture H×W×3 (uint8, uint16, or float32 in 0..1) restored, in its own type; `state` is what `net.solve` gave for one picture."""
    a, b = (np.ascontiguousarray(x[0].detach().numpy(), np.float32) for x in state[:2])
    h, w = photo.shape[:2]
    top = {"u1": 255, "u2": 65535}.get(photo.dtype.str[1:], 1)
    out, parts = np.empty((h, 3 * w), photo.dtype), weights_of(net, state[2])
    flat = np.ascontiguousarray(photo).reshape(h, 3 * w)
    tiles = [(y, min(y + ROWS, h), x, min(x + COLUMNS, w)) for y in range(0, h, ROWS) for x in range(0, w, COLUMNS)]
    scale, half = np.float32(top), np.float32(0.5 if top > 1 else 0)
    with ThreadPoolExecutor(torch.get_num_threads(), "tile") as pool:
        for _ in pool.map(lambda tile: walk(flat, out, a, b, *parts, scale, half, *tile), tiles):
            pass
    return out.reshape(photo.shape)


def weights_of(net: GuidedUpsampler, mood: torch.Tensor | None) -> list[Any]:
    """Weight and bias of the guidance map's two layers, and of the refiner's first, its middle ones stacked, and its last, which gets a fourth output.

    The mood goes into the first bias and the last layer; the share of the photo to keep comes last. A filter without refiner has none of its layers.
    """

    def arrays(*convs: torch.nn.Conv2d) -> tuple[np.ndarray, np.ndarray]:
        return tuple(np.stack([getattr(c, name).detach().float().numpy() for c in convs]) for name in ("weight", "bias"))

    enter, leave = net.filter.map[0], net.filter.map[2]
    parts = [*(x[0] for x in arrays(enter)), *(x[0] for x in arrays(leave))]
    parts[0], parts[2] = parts[0][..., 0, 0], parts[2][..., 0, 0]
    convs = [m for m in net.refiner.modules() if isinstance(m, torch.nn.Conv2d)] if net.refiner else []
    if convs:
        last = [np.concatenate([x[0], np.zeros((1, *x.shape[2:]), np.float32)]) for x in arrays(convs[-1])]
        parts += [*(x[0] for x in arrays(convs[0])), *arrays(*convs[1:-1]), *last]
    else:
        parts += [np.zeros(shape, np.float32) for shape in ((0, 6, 3, 3), 0, (0, 4, 4, 3, 3), (0, 4), (4, 4, 3, 3), 4)]
    keep = np.float32(0)
    if convs and mood is not None:
        *shift, keep, gain = mood[0].detach().numpy().astype(np.float32)
        parts[5] = parts[5] + np.array(shift, np.float32)
        parts[8], parts[9] = parts[8] * (1 + gain), parts[9] * (1 + gain)
    return [*map(np.ascontiguousarray, parts), keep]


def compiled(function):  # noqa: ANN001, ANN201
    """`function` compiled without the interpreter's lock; NaNs stay NaNs, additions may be reordered."""
    if njit is None:
        return function
    options = {"nogil": True, "fastmath": {"contract", "reassoc", "nsz", "arcp"}, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to keep the compiled code in
        return njit(**options)(function)


@compiled
def aligned(count):  # noqa: ANN001, ANN201
    """So many zeros from an address that is a multiple of 64: rows that begin there are half as dear to write."""
    raw = np.zeros(count + 16, np.float32)
    skip = -(raw.ctypes.data // 4) % 16
    return raw[skip : skip + count]


@compiled
def taps(d0, d1, d2, d3, s, w):  # noqa: ANN001, ANN201
    """Add one input row, seen through three taps, to four output rows, all but the PAD columns at their ends.

    Twelve weights, four sums and three samples fit into the registers.
    """
    a0, a1, a2 = w[0, 0], w[0, 1], w[0, 2]
    b0, b1, b2 = w[1, 0], w[1, 1], w[1, 2]
    c0, c1, c2 = w[2, 0], w[2, 1], w[2, 2]
    e0, e1, e2 = w[3, 0], w[3, 1], w[3, 2]
    s, d0, d1, d2, d3 = s[PAD - 1 :], d0[PAD:], d1[PAD:], d2[PAD:], d3[PAD:]
    for x in range(len(d0) - PAD):
        p, q, r = s[x], s[x + 1], s[x + 2]
        d0[x] += a0 * p + a1 * q + a2 * r
        d1[x] += b0 * p + b1 * q + b2 * r
        d2[x] += c0 * p + c1 * q + c2 * r
        d3[x] += e0 * p + e1 * q + e2 * r


@compiled
def convolve(out, above, here, below, weight, bias):  # noqa: ANN001, ANN201
    """One row of a 3×3 convolution: out O×m from three rows C×m."""
    for o in range(0, len(out), 4):
        for k in range(4):
            out[o + k, :] = bias[o + k]
        for c in range(len(here)):
            taps(out[o], out[o + 1], out[o + 2], out[o + 3], above[c], weight[o : o + 4, c, 0])
            taps(out[o], out[o + 1], out[o + 2], out[o + 3], here[c], weight[o : o + 4, c, 1])
            taps(out[o], out[o + 1], out[o + 2], out[o + 3], below[c], weight[o : o + 4, c, 2])


@compiled
def leaky(row):  # noqa: ANN001, ANN201
    for x in range(len(row)):
        row[x] = max(row[x], SLOPE * row[x])


@compiled
def mapped(r, g, b, to_r, to_g, to_b, from_r, from_g, from_b, bias, w_r, w_g, w_b):  # noqa: ANN001, ANN201
    """Add what one hidden channel of the guidance map gives."""
    for x in range(len(r)):
        v = from_r * r[x] + from_g * g[x] + from_b * b[x] + bias
        v = max(v, SLOPE * v)
        to_r[x] += w_r * v
        to_g[x] += w_g * v
        to_b[x] += w_b * v


@compiled
def linear(out, guide, a0, a1, b0, b1, t):  # noqa: ANN001, ANN201
    """out = A·guide + b, with A and b between two rows."""
    for x in range(len(out)):
        out[x] = (a0[x] + t * (a1[x] - a0[x])) * guide[x] + b0[x] + t * (b1[x] - b0[x])


@compiled
def unpack(samples, r, g, b, line, scale):  # noqa: ANN001, ANN201
    """A row of interleaved samples -> three rows; converted as one line first, which is four times faster than in threes."""
    for x in range(len(samples)):
        line[x] = np.float32(samples[x]) * scale
    for x in range(len(r)):
        r[x], g[x], b[x] = line[3 * x], line[3 * x + 1], line[3 * x + 2]


@compiled
def pack(samples, r, g, b, line, top, half):  # noqa: ANN001, ANN201
    zero, one = np.float32(0), np.float32(1)
    for x in range(len(r)):
        line[3 * x], line[3 * x + 1], line[3 * x + 2] = r[x], g[x], b[x]
    for x in range(len(samples)):
        samples[x] = min(max(line[x], zero), one) * top + half


@compiled
def guided(row, guide, filtered, lower, upper, t, w1, b1, w2, b2):  # noqa: ANN001, ANN201
    """OH0 = A·(x + map(x)) + b of a row: row and filtered 3×m, guide 3×m for scratch, lower and upper 6×m: A and b of the small rows around it."""
    for c in range(3):
        guide[c, :] = row[c] + b2[c]
    for j in range(len(w1)):
        mapped(row[0], row[1], row[2], guide[0], guide[1], guide[2], w1[j, 0], w1[j, 1], w1[j, 2], b1[j], w2[0, j], w2[1, j], w2[2, j])
    for c in range(3):
        linear(filtered[c], guide[c], lower[c], upper[c], lower[c + 3], upper[c + 3], t)


@compiled
def walk(photo, out, a, b, w1, b1, w2, b2, first, first_bias, middle, middle_bias, last, last_bias, keep, top, half, y0, y1, x0, x1):  # noqa: ANN001, ANN201
    """The tile y0..y1 × x0..x1 of `out`, H×3W like `photo`.

    Rows are kept in rings, 16 of the input and 4 of each layer; a ring's column 0 is the picture's x0 − halo − PAD.
    """
    height, width = len(photo), photo.shape[1] // 3
    h, w = a.shape[1:]
    layers = len(middle) + 1 if len(first) else 0
    halo = layers + 1 if layers else 0
    m, left = 2 * PAD + -(-(x1 - x0 + 2 * halo) // 16) * 16, x0 - halo - PAD
    begin, end = max(PAD, -left), min(x1 - left + halo, width - left)  # the columns that lie in the picture
    rows = aligned(16 * 6 * m).reshape((16, 6, m))  # filtered, then the photo's own
    ring = aligned(layers * 4 * len(first) * m).reshape((layers, 4, len(first), m))
    scratch, result = aligned(3 * m).reshape((3, m)), aligned(4 * m).reshape((4, m))
    wide, line, held = aligned(2 * 6 * m).reshape((2, 6, m)), aligned(3 * m), np.full(2, -1)
    scale = np.float32(1) / top
    for y in range(y0 - halo, y1 + halo):
        slot = rows[y & 15]
        if y < 0 or y >= height:
            slot[:] = 0
        else:
            unpack(photo[y, 3 * (left + begin) : 3 * (left + end)], slot[3, begin:end], slot[4, begin:end], slot[5, begin:end], line, scale)
            place = min(max((y + 0.5) * h / height - 0.5, 0.0), h - 1.0)
            low = int(place)
            for source in (low, min(low + 1, h - 1)):  # small rows around it, brought to full width once for many rows
                if held[source & 1] != source:
                    held[source & 1] = source
                    for x in range(begin, end):
                        at = min(max((left + x + 0.5) * w / width - 0.5, 0.0), w - 1.0)
                        i = int(at)
                        t = np.float32(at - i)
                        j = min(i + 1, w - 1)
                        for c in range(3):
                            wide[source & 1, c, x] = a[c, source, i] + t * (a[c, source, j] - a[c, source, i])
                            wide[source & 1, c + 3, x] = b[c, source, i] + t * (b[c, source, j] - b[c, source, i])
            guided(slot[3:], scratch, slot, wide[low & 1], wide[min(low + 1, h - 1) & 1], np.float32(place - low), w1, b1, w2, b2)
            slot[:3, :begin] = 0
            slot[:3, end:] = 0
        for n in range(layers):
            r = y - 1 - n
            into = ring[n, r & 3]
            if r < 0 or r >= height:
                into[:] = 0
            elif r > y0 - halo + n:  # the rows before are not needed
                if n == 0:
                    convolve(into, rows[(r - 1) & 15], rows[r & 15], rows[(r + 1) & 15], first, first_bias)
                else:
                    before = ring[n - 1]
                    convolve(into, before[(r - 1) & 3], before[r & 3], before[(r + 1) & 3], middle[n - 1], middle_bias[n - 1])
                if n > 0 and n % 2 == 0:  # the end of a residual block
                    into += ring[n - 2, r & 3]
                if n % 2 or n == 0 or n == layers - 1:
                    for o in range(len(into)):
                        leaky(into[o])
                into[:, :begin] = 0
                into[:, end:] = 0
        r = y - halo
        if r < y0:
            continue
        if layers:
            before = ring[layers - 1]
            convolve(result, before[(r - 1) & 3], before[r & 3], before[(r + 1) & 3], last, last_bias)
            for c in range(3):
                rows[r & 15, c] += result[c] + keep * (rows[r & 15, c + 3] - rows[r & 15, c])
        inner = rows[r & 15, :3, x0 - left : x1 - left]
        pack(out[r, 3 * x0 : 3 * x1], inner[0], inner[1], inner[2], line, top, half)


def warm() -> None:
    """Compile for 8-bit pictures now, so that the first restoration does not wait for it: some ten seconds, once on a machine."""
    if njit is not None:
        upsample(GuidedUpsampler(), np.zeros((32, 32, 3), np.uint8), (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), None))
