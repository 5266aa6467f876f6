"""What the shipped whole-photo branch does to pictures that have nothing wrong, and to one that
has.
"""

import numpy as np
import pytest

from mtrestore import degrade, image, metrics
from mtrestore.pipeline import Restorer, identity, sampled


@pytest.fixture(scope="module")
def branch():
    return Restorer(device="cpu", faces=False, sharpener=identity, working_size=256)


@pytest.mark.parametrize("sharp", [False, True])
@pytest.mark.parametrize("level", [0, 13, 128, 255])
def test_flat_stays_flat(level, sharp):
    photo = np.full((700, 900, 3), level, np.uint8)
    restorer = Restorer(
        device="cpu", faces=False, sharpener=None if sharp else identity, working_size=256
    )
    out = restorer(photo).samples.astype(int)
    assert np.abs(out - level).max() <= 1


@pytest.mark.parametrize("size", [(700, 900), (300, 2100)])
def test_a_ramp_has_no_seams(branch, size):
    """Across every border of tiles, strips and bands the slope stays that of the ramp."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    photo = np.repeat((0.15 + 0.5 * x / size[1] + 0.2 * y / size[0])[..., None], 3, 2)
    out = branch(photo).image[16:-16, 16:-16]
    assert (
        np.abs(np.diff(out, 2, axis=0)).max() < 1 / 255
        and np.abs(np.diff(out, 2, axis=1)).max() < 1 / 255
    )


def test_a_clean_photo_comes_through(branch, astronaut):
    assert metrics.psnr(branch(astronaut).image, astronaut) > 38


@pytest.mark.parametrize("sigma", [15.0, 25.0])
def test_noise_goes_and_the_refiner_is_worth_a_decibel(branch, astronaut, sigma):
    from mtrestore.nets import GuidedFilter

    noisy = degrade.apply(
        astronaut, degrade.Recipe(({"op": "gaussian_noise", "sigma": sigma, "seed": 1},))
    )
    alone = max(
        metrics.psnr(
            Restorer(
                device="cpu",
                faces=False,
                sharpener=identity,
                working_size=256,
                upsampler=GuidedFilter(1, eps),
            )(noisy).image,
            astronaut,
        )
        for eps in (1e-4, 1e-3, 1e-2)
    )
    assert metrics.psnr(branch(noisy).image, astronaut) > alone + 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 5, 3), (40, 30, 3), (3000, 700, 3)])
def test_the_sample_for_the_noise_level_is_of_pairs_of_rows(shape):
    samples = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape).astype(np.float32)
    found = sampled(samples, most=2**15)
    assert (
        found.shape[1:] == shape[1:]
        and len(found) <= len(samples)
        and len(found) * shape[1] <= max(2**15, 2 * shape[1])
    )
    if len(found) < len(samples):
        assert np.array_equal(found[1::2] - found[::2], np.full_like(found[::2], 3 * shape[1])), (
            "a row and the one below it"
        )
        assert found[-1, -1, -1] == samples[-1, -1, -1]


def test_sixteen_bits_come_through_the_whole_flow(branch, astronaut):
    out = branch(image.as_samples(image.resize(astronaut, (800, 800)), np.uint16)).samples
    assert out.dtype == np.uint16 and len(np.unique(out)) > 10_000
