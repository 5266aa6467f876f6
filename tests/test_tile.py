"""Claims about tiles: whatever the sizes, a local operation cannot tell that it saw tiles."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairwise import pairwise

from mtrestore import image
from mtrestore.tile import strips, tiled, tiled_samples


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), np.float32)


def box_blur(radius: int):
    """A blur that sees `radius` pixels, with a border rule of its own as nets have one."""
    return lambda tile: cv2.blur(
        tile, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REPLICATE
    ).reshape(tile.shape)


def repeat(tile: np.ndarray, scale: int) -> np.ndarray:
    return tile.repeat(scale, 0).repeat(scale, 1)


@pytest.mark.parametrize("multiple, scale", [(1, 1), (8, 1), (1, 2), (16, 3)])
def test_identity_gives_the_picture_back(multiple, scale):
    for shape in [(1, 1), (1, 90), (77, 1), (2, 3), (31, 33), (32, 32), (33, 65), (100, 47)]:
        p = photo(*shape)
        out = tiled(
            lambda t: repeat(t, scale), p, tile=32, overlap=6, multiple=multiple, scale=scale
        )
        np.testing.assert_array_equal(out, repeat(p, scale))


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 7), st.integers(0, 25))
@settings(max_examples=60, deadline=None)
def test_a_local_operation_equals_the_whole_picture(height, width, overlap, more):
    p, blur = photo(height, width), box_blur(overlap)
    np.testing.assert_allclose(
        tiled(blur, p, tile=2 * overlap + 1 + more, overlap=overlap), blur(p), atol=1e-5
    )


def test_too_little_context_does_not():
    """The claim above is about the context: with one pixel less it fails."""
    p, blur = (
        photo(76, 76),
        box_blur(6),
    )  # 76 = 32 + 2 x 22: the tiles overlap no more than they must
    assert np.abs(tiled(blur, p, tile=32, overlap=5) - blur(p)).max() > 1e-3


def test_a_local_operation_that_enlarges():
    p = photo(61, 83)

    def sharpen(t):
        return cv2.resize(
            box_blur(3)(t), None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR
        )  # sees 3 + 1 pixels

    np.testing.assert_allclose(
        tiled(sharpen, p, tile=32, overlap=5, scale=2), sharpen(p), atol=1e-5
    )


def test_a_strided_operation_keeps_its_phase():
    """Means over 4 x 4 cells: tiles start at multiples of 4, and the rest is reflected."""
    p = photo(70, 58)

    def cells(t):
        h, w = t.shape[:2]
        return repeat(t.reshape(h // 4, 4, w // 4, 4, 3).mean((1, 3)), 4)

    whole = cells(np.pad(p, [(0, 2), (0, 2), (0, 0)], mode="reflect"))[:70, :58]
    np.testing.assert_allclose(tiled(cells, p, tile=24, overlap=5, multiple=4), whole, atol=1e-6)


@given(
    st.integers(1, 200),
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(0, 9),
    st.integers(0, 30),
)
@settings(max_examples=80, deadline=None)
def test_what_fn_is_given(length, multiple, minimum, overlap, more):
    seen = []

    def fn(t):
        seen.append(t.shape[:2])
        return t

    p = photo(length, 3)
    tile = 2 * overlap + multiple + more
    np.testing.assert_array_equal(tiled(fn, p, tile, overlap, multiple, minimum=minimum), p)
    assert len(set(seen)) == 1, "all tiles are equally large"
    assert all(n % multiple == 0 and n >= minimum for n in seen[0])
    assert seen[0][0] < max(tile, minimum, 1) + multiple


@pytest.mark.parametrize("side, calls", [(64, 1), (65, 4), (112, 4), (113, 9)])
def test_no_more_tiles_than_needed(side, calls):
    seen = []
    tiled(lambda t: seen.append(1) or t, photo(side, side), tile=64, overlap=8)
    assert len(seen) == calls


def test_each_pixel_comes_from_one_tile():
    """Tiles numbered by call: the output is a patchwork of evenly large rectangles."""
    count = iter(range(100))
    out = tiled(lambda t: np.full_like(t, next(count)), photo(100, 100), tile=48, overlap=8)
    numbers, areas = np.unique(out[..., 0], return_counts=True)
    assert len(numbers) == 9 and areas.sum() == 100 * 100 and areas.max() < 3 * areas.min()
    for n in numbers:
        y, x = np.nonzero(out[..., 0] == n)
        assert len(y) == (np.ptp(y) + 1) * (np.ptp(x) + 1)


def test_other_channels_and_grey_pictures():
    p = photo(50, 40)
    assert tiled(lambda t: t[..., :1], p, tile=20, overlap=2).shape == (50, 40, 1)
    np.testing.assert_array_equal(tiled(lambda t: t, p[..., 0], tile=20, overlap=2), p[..., 0])


def test_the_picture_is_never_written():
    p = photo(50, 40)
    before = p.copy()

    def greedy(t):
        t *= 0
        return t

    for tile in (20, 64):
        assert not tiled(greedy, p, tile=tile, overlap=2).any()
    np.testing.assert_array_equal(p, before)


def test_progress_counts_every_tile():
    seen = []
    tiled(
        lambda t: t,
        photo(100, 60),
        tile=40,
        overlap=4,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i + 1, len(seen)) for i in range(len(seen))] and len(seen) == 6


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"tile": 64, "overlap": 32}, "use tile=65"),
        ({"tile": 70, "overlap": 32, "multiple": 16}, "use tile=80"),
        ({"tile": 0}, "positive"),
        ({"overlap": -1}, "positive"),
        ({"scale": 2}, "2 times as large"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiled(lambda t: t, photo(80, 80), **arguments)


def test_an_empty_picture_is_refused():
    with pytest.raises(ValueError, match="not empty"):
        tiled(lambda t: t, np.zeros((0, 5, 3), np.float32))


@given(st.integers(0, 60), st.integers(1, 70), st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_strips_cover_the_height_once(height, rows, halo):
    parts = list(strips(height, rows, halo))
    assert [y for a, b, _, _ in parts for y in range(a, b)] == list(range(height))
    for a, b, outer_a, outer_b in parts:
        assert b - a <= rows and outer_a == max(0, a - halo) and outer_b == min(height, b + halo)


def test_strips_with_enough_halo_equal_the_whole_picture():
    p, blur = photo(50, 20), box_blur(3)
    out = np.empty_like(p)
    for y0, y1, top, bottom in strips(50, 16, 3):
        out[y0:y1] = blur(p[top:bottom])[y0 - top : y1 - top]
    np.testing.assert_allclose(out, blur(p), atol=1e-6)
    with pytest.raises(ValueError, match="at least one row"):
        list(strips(5, 0))


@pytest.mark.parametrize(
    "dtype, tile, scale",
    pairwise([np.uint8, np.uint16, np.float32], [(100, 100), (16, 90), (7, 9), (1, 1)], [1, 2]),
)
def test_tiles_of_samples_equal_the_whole(dtype, tile, scale):
    """A box blur that enlarges: each pixel is the mean of the 3 x 3 around it, cut at the edges."""
    samples = image.as_samples(photo(31, 45), dtype)
    corners = []

    def blur(x, y0=None, x0=None):
        corners.append((y0, x0))
        y = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return y.repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    out = tiled_samples(blur, samples, tile, 1, scale)
    first = [
        (max(y - 1, 0), max(x - 1, 0)) for y in range(0, 31, tile[0]) for x in range(0, 45, tile[1])
    ]
    assert corners == first
    whole = blur(torch.from_numpy(image.as_photo(samples)).permute(2, 0, 1)[None])
    expected = image.as_samples(whole[0].permute(1, 2, 0).numpy(), dtype)
    assert out.dtype == dtype and out.shape == (31 * scale, 45 * scale, 3)
    assert np.abs(out.astype(float) - expected.astype(float)).max() <= (
        1e-6 if dtype is np.float32 else 1
    )
    assert np.mean(out != expected) < 0.01 or dtype is np.float32


def test_tiles_of_samples_without_context_show_it():
    samples = photo(20, 20)

    def blur(x, *_):
        return torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    enough, none = (tiled_samples(blur, samples, (8, 8), reach) for reach in (1, 0))
    assert np.abs(enough - none).max() > 0.01
