"""Claims about doing no harm: known faults are estimated, clean pictures are left, pale and dark
faces keep their edges, and the chain is as good as its parts."""

import cv2
import numpy as np
import pytest
import skimage.data

from mtrestore import degrade, image, metrics
from mtrestore.degrade import fault
from mtrestore.face import faces_from
from mtrestore.pipeline import Restorer, identity

BOX = (181, 60, 267, 178)


@pytest.fixture(scope="module")
def photo():
    return skimage.data.astronaut().astype(np.float32) / 255


@pytest.fixture(scope="module")
def shipped():
    return Restorer(device="cpu", keep_steps=False)


def worn(photo, op, **parameters):
    return degrade.apply(photo, degrade.Recipe(({"op": op, **parameters},)))


def samples(photo):
    return image.as_samples(photo, np.uint8)


def edges(photo, rows=slice(60, 178), columns=slice(181, 267)):
    grey = np.float64(photo).mean(-1)[rows, columns]
    return float((cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 0.7), cv2.CV_64F) ** 2).mean())


@pytest.mark.parametrize("sigma", [5, 15, 30])
@pytest.mark.parametrize("grey", [False, True])
def test_the_noise_is_what_was_added(photo, sigma, grey):
    dull = 0.2 + 0.6 * (photo.mean(-1, keepdims=True).repeat(3, -1) if grey else photo)
    noise = np.random.default_rng(0).normal(0, sigma / 255, dull.shape[:2] + (1 if grey else 3,))
    assert 255 * fault.noise(np.float32(dull + noise)) == pytest.approx(sigma, rel=0.2)


def test_a_clean_photo_has_no_fault(photo):
    clean = fault.estimate(photo)
    assert 255 * clean.noise < 1.5 and clean.jpeg < 1.1 and 0 < clean.blur < 0.85
    assert clean.contrast > 0.8
    assert fault.restoring(clean, clean) == fault.sharpening(clean) == 0


def test_stronger_compression_shows_more(photo):
    levels = [fault.estimate(worn(photo, "jpeg", quality=q)).jpeg for q in (90, 50, 20)]
    assert fault.estimate(photo).jpeg < levels[0] < levels[1] < levels[2]
    assert levels[0] < fault.JPEG[1] < levels[2]


def test_a_wider_blur_measures_wider(photo):
    widths = [
        fault.estimate(worn(photo, "gaussian_blur", sigma=s)).blur for s in (1.0, 1.5, 2.0, 3.0)
    ]
    assert fault.estimate(photo).blur < widths[0] and widths == sorted(widths)
    assert widths[1] == pytest.approx(1.5, abs=0.4)


@pytest.mark.parametrize("contrast, lift", [(0.05, 0.9), (0.1, 0.02), (1.0, 0.0)])
def test_a_normal_range_and_back_changes_nothing(photo, contrast, lift):
    pale = np.float32(lift + contrast * photo)
    tone = fault.Tone.of(pale)
    low, high = np.quantile(fault.luma(tone(pale)), [0.02, 0.98])
    assert high - low >= fault.NORMAL - 1e-3
    assert np.array_equal(tone.back(pale, tone(pale), tone(pale)), np.clip(pale, 0, 1))
    brighter = tone.back(pale, tone(pale), tone(pale) + 0.1)
    assert np.allclose(brighter - pale, 0.1 / tone.gain, atol=1e-6)


def test_stripes_come_back_and_noise_does_not():
    """A net that flattens all: its loss is put back where it is detail, left out where noise."""
    noise = np.random.default_rng(0).normal(0, 5 / 255, (96, 192, 3))
    truth = np.full((96, 192, 3), 0.5, np.float32)
    truth[:, :80] += np.float32(0.15) * np.sign(np.sin(np.arange(80) * 1.5))[None, :, None]
    poor = np.float32(truth + noise)
    flat = np.full_like(poor, 0.5)
    back = fault.given_back(poor, flat, fault.Fault(noise=5 / 255))
    assert (
        metrics.psnr(back[:, :64], truth[:, :64]) > 30 > metrics.psnr(flat[:, :64], truth[:, :64])
    )
    assert np.array_equal(back[:, 112:], flat[:, 112:])


def test_what_was_sharpened_is_not_taken_back(photo):
    sharp = np.float32(photo + 0.5 * (photo - cv2.GaussianBlur(photo, (0, 0), 1.5)))
    assert np.array_equal(fault.given_back(photo, sharp, fault.Fault(noise=1 / 255)), sharp)


@pytest.mark.parametrize("contrast", [0.05, 0.1, 0.15, 0.2, 0.4])
@pytest.mark.parametrize("lift", [0.0, 1.0])
def test_a_pale_or_dark_face_keeps_its_edges(shipped, photo, contrast, lift):
    pale = samples(contrast * photo + lift * (0.95 - contrast) + 0.02)
    result = shipped(pale, faces_from([BOX]))
    assert [f.status for f in result.faces] == ["restored"]
    assert (
        0.9 < edges(result.image) / edges(image.as_photo(pale)) < 1.25
    )  # of 12 levels 1.22, else 1.1


@pytest.mark.parametrize("face", [True, False])
def test_a_clean_photo_comes_back_as_it_was(shipped, photo, face):
    result = shipped(samples(photo), faces_from([BOX] if face else []))
    assert metrics.psnr(result.image, photo) > 45
    assert result.fault.noise < 1.5 / 255


@pytest.mark.parametrize(
    "op, parameters",
    [
        ("gaussian_noise", {"sigma": 10.0, "seed": 1}),
        ("jpeg", {"quality": 30}),
        ("gaussian_blur", {"sigma": 1.5}),
    ],
)
def test_a_worn_photo_never_comes_back_worse(shipped, photo, op, parameters):
    poor = samples(worn(photo, op, **parameters))
    result = shipped(poor, faces_from([BOX]))
    gain = metrics.psnr(result.image, photo) - metrics.psnr(image.as_photo(poor), photo)
    assert gain > 0.3


@pytest.mark.parametrize("sigma", [3.0, 10.0, 25.0])
def test_the_chain_is_not_below_its_parts(photo, sigma):
    poor = samples(worn(photo, "gaussian_noise", sigma=sigma, seed=2))
    parts = {"restorer": {"sharpener": identity}, "sharpener": {"photo_strength": 0}, "all": {}}
    gains = {
        name: metrics.psnr(Restorer(device="cpu", faces=False, **own)(poor).image, photo)
        for name, own in parts.items()
    }
    assert gains["all"] > max(gains.values()) - 0.1
    assert gains["all"] > metrics.psnr(image.as_photo(poor), photo) + 0.5


def test_a_clean_photo_twice_as_large_is_not_below_bicubic(photo):
    small = samples(image.resize(photo, (256, 256)))
    result = Restorer(device="cpu", scale=2, faces=False)(small)
    bicubic = np.clip(cv2.resize(image.as_photo(small), (512, 512), interpolation=2), 0, 1)
    assert metrics.ssim(result.image, photo) > metrics.ssim(bicubic, photo)


def test_a_hopeless_face_is_called_soft(shipped, photo):
    blurred = samples(cv2.GaussianBlur(photo, (0, 0), 12))
    assert [f.status for f in shipped(blurred, faces_from([BOX])).faces] == ["soft"]


def test_nets_that_are_given_are_used_as_they_are(photo):
    pale = samples(0.1 * photo + 0.4)
    dark = Restorer(device="cpu", faces=False, sharpener=identity, restorer=lambda x: x * 0 + 0.25)(
        pale
    )
    assert abs(float(dark.image.mean()) - 0.25) < 0.01
