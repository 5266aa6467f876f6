"""What augmentation promises: one draw for all pictures of a sample, a gradient that passes, each
kind doing what its name says.
"""

import pytest
import torch

from mtrestore.training.augment import KINDS, augment


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def drawn(pictures: list[torch.Tensor], *kinds: str, seed: int = 0) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return augment(pictures, kinds)


@pytest.mark.parametrize(
    "kinds", [(), *((k,) for k in KINDS), KINDS], ids=lambda k: "+".join(k) or "none"
)
def test_shape_and_kind_stay_and_all_is_finite(kinds):
    x = noise(3, 3, 32, 64)
    (y,) = drawn([x], *kinds)
    assert y.shape == x.shape and y.dtype == x.dtype and torch.isfinite(y).all()
    assert torch.equal(y, x) == (kinds == ())


@pytest.mark.parametrize("kinds", [*((k,) for k in KINDS), KINDS], ids=lambda k: "+".join(k))
def test_every_entry_of_the_list_gets_the_same_draw_and_every_sample_its_own(kinds):
    x = noise(1, 3, 32, 32).repeat(4, 1, 1, 1)
    one, two = drawn([x, x.clone()], *kinds)
    assert torch.equal(one, two)
    assert all(not torch.equal(one[0], one[i]) for i in range(1, 4))
    assert not torch.equal(one, drawn([x], *kinds, seed=1)[0])


def test_a_draw_can_be_repeated():
    x = noise(2, 3, 32, 32)
    assert torch.equal(*(drawn([x], *KINDS)[0] for _ in range(2)))


@pytest.mark.parametrize("kinds", [*((k,) for k in KINDS), KINDS], ids=lambda k: "+".join(k))
def test_a_gradient_reaches_the_picture(kinds):
    x = noise(2, 3, 32, 32).requires_grad_()
    drawn([x], *kinds)[0].square().sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad != 0).float().mean() > 0.4


def test_colour_is_one_affine_change_of_each_sample():
    x = noise(2, 3, 16, 16)
    (y,) = drawn([x], "colour")
    for before, after in zip(x, y, strict=True):
        columns = torch.cat([before.flatten(1), torch.ones(1, 256)]).T.double()  # R, G, B, 1
        fitted = columns @ torch.linalg.lstsq(columns, after.flatten(1).T.double()).solution
        assert (fitted - after.flatten(1).T).abs().max() < 1e-5
        assert (after.mean() - before.mean()).abs() < 0.26, "brightness by a quarter at most"


def test_a_shift_moves_the_content_and_mirrors_it_at_the_border():
    x, moves = noise(8, 3, 32, 32), set()
    (y,) = drawn([x], "shift")
    wide = torch.nn.functional.pad(x, (4, 4, 4, 4), mode="reflect")
    for i in range(8):
        places = [
            (r, c)
            for r in range(9)
            for c in range(9)
            if torch.equal(y[i], wide[i, :, r : r + 32, c : c + 32])
        ]
        assert len(places) == 1, "an eighth of the side at most"
        moves |= set(places)
    assert len(moves) > 4


@pytest.mark.parametrize("size", [(32, 32), (32, 64)])
def test_a_cutout_is_a_grey_rectangle_of_half_the_sides(size):
    h, w = size
    (y,) = drawn([torch.zeros(64, 3, h, w)], "cutout")
    assert (
        set(y.unique().tolist()) == {0.0, 0.5}
        and torch.equal(y[:, 0], y[:, 1])
        and torch.equal(y[:, 0], y[:, 2])
    )
    heights, widths = (y[:, 0].amax(axis).bool().sum(1) for axis in (2, 1))
    assert torch.equal((y[:, 0] > 0).sum((1, 2)), heights * widths), "one rectangle"
    assert heights.max() == h // 2 and widths.max() == w // 2, "whole where it lies inside"
    assert heights.min() >= h // 4 - 1 and widths.min() >= w // 4 - 1, (
        "at least a quarter is seen at a border"
    )
