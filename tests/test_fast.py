"""The fused pass against the torch modules that it stands in for."""

import numpy as np
import pytest
import skimage.data
import torch

from mtrestore import image, pipeline
from mtrestore.fast import upsampler as fast
from mtrestore.nets import GuidedUpsampler
from mtrestore.pipeline import Restorer, identity

if fast.njit is None:
    pytest.skip(
        "numba is not installed: the full-size stages run in torch", allow_module_level=True
    )


def net(refine=True, width=4, blocks=2, seed=0):
    """A net whose every weight matters."""
    torch.manual_seed(seed)
    made = GuidedUpsampler(1, 1e-3, 8, width, blocks, refine).eval()
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim:
                p.normal_(0, 0.15)
    return made


def both(made, photo, small=(20, 30)):
    """(fused, torch) on samples, as photos."""
    g = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        state = made.solve(
            *(torch.rand(1, 3, *small, generator=g) for _ in range(2)), torch.tensor([0.03]), 3.0
        )
        want = image.to_photo(made.apply_rows(state, image.to_tensor(photo), len(photo), 0))
        got = fast.upsample(made, photo, state)
    assert got.dtype == photo.dtype and got.shape == photo.shape
    return image.as_photo(got), want


@pytest.mark.parametrize(
    "dtype, level", [(np.float32, 0), (np.uint16, 0.5 / 65535), (np.uint8, 0.5 / 255)]
)
@pytest.mark.parametrize("made", [net(), net(refine=False)], ids=["refiner", "filter alone"])
def test_equals_torch(made, dtype, level):
    photo = image.as_samples(
        np.random.default_rng(0).random((301, 557, 3), np.float32), dtype
    )  # more than one tile each way
    got, want = both(made, photo)
    assert want.std() > 0.05
    assert np.abs(got - want).max() < level + 1e-4


@pytest.mark.parametrize(
    "made", [net(), net(width=8, blocks=3), net(blocks=1)], ids=["4x2", "8x3", "4x1"]
)
def test_every_size_and_depth(made):
    for size in [(1, 1), (1, 40), (40, 1), (5, 3), (257, 501), (600, 20)]:
        got, want = both(
            made, np.random.default_rng(2).random((*size, 3), np.float32), small=(7, 4)
        )
        assert np.abs(got - want).max() < 1e-4, size


def test_threads_change_no_bit():
    photo = np.random.default_rng(3).integers(0, 256, (600, 700, 3), np.uint8)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(both(net(), photo)[0])
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*results)


def test_other_nets_are_left_to_torch():
    assert fast.fits(net()) and fast.fits(net(refine=False)) and fast.fits(net(width=8, blocks=3))
    assert not any(
        fast.fits(x)
        for x in (
            identity,
            torch.nn.Identity(),
            GuidedUpsampler(width=6),
            GuidedUpsampler(concat=False),
            GuidedUpsampler(blocks=0),
        )
    )


def test_the_pipeline_agrees_with_and_without_it(monkeypatch):
    photo = image.as_samples(
        image.resize(image.read(skimage.data.astronaut()), (640, 900)), np.uint8
    )
    results = []
    for pixels in (1, 2**40):
        monkeypatch.setattr(pipeline, "FUSED", pixels)
        results.append(
            Restorer(device="cpu", faces=False, sharpener=identity, working_size=320)(
                photo
            ).samples.astype(int)
        )
    assert np.abs(results[0] - results[1]).max() <= 1
    assert np.mean(results[0] != results[1]) < 1e-3
    monkeypatch.setattr(fast, "njit", None)  # as if numba were missing
    monkeypatch.setattr(pipeline, "FUSED", 1)
    assert np.array_equal(
        Restorer(device="cpu", faces=False, sharpener=identity, working_size=320)(photo).samples,
        results[1],
    )
