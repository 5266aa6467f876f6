"""What the numbers mean: each is held against a computation by hand, in loops over windows where
there are windows.
"""

import math

import cv2
import numpy as np
import pytest

from mtrestore import metrics


def picture(h: int, w: int, seed: int = 0) -> np.ndarray:
    """A smooth random photo, H×W×3."""
    small = np.random.default_rng(seed).random((4, 4, 3)).astype(np.float32)
    return np.clip(cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC), 0, 1)


def noisy(photo: np.ndarray, sigma: float) -> np.ndarray:
    return np.clip(photo + np.random.default_rng(1).normal(0, sigma, photo.shape), 0, 1).astype(
        np.float32
    )


def ssim_parts(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(SSIM, its contrast and structure alone), means over all 11×11 Gaussian windows inside two
    grey pictures, one after the other.
    """
    g = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    g = np.outer(g, g) / g.sum() ** 2
    full, contrast = [], []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mx, my = (g * x).sum(), (g * y).sum()
            cs = (2 * (g * (x - mx) * (y - my)).sum() + 0.0009) / (
                (g * (x - mx) ** 2).sum() + (g * (y - my) ** 2).sum() + 0.0009
            )
            contrast.append(cs)
            full.append(cs * (2 * mx * my + 0.0001) / (mx**2 + my**2 + 0.0001))
    return float(np.mean(full)), float(np.mean(contrast))


@pytest.mark.parametrize("off", [0.1, 0.01])
def test_psnr_of_a_constant_error(off):
    truth = np.full((5, 7, 3), 0.5, np.float32)
    assert metrics.psnr(truth + np.float32(off), truth) == pytest.approx(
        -20 * math.log10(off), abs=1e-4
    )


def test_psnr_by_hand():
    truth, photo = picture(20, 30), noisy(picture(20, 30), 0.05)
    assert metrics.psnr(photo, truth) == pytest.approx(
        10 * math.log10(1 / np.mean((np.float64(photo) - truth) ** 2))
    )


def test_psnr_of_equal_pictures_is_infinite():
    assert metrics.psnr(picture(9, 9), picture(9, 9)) == math.inf


def test_ssim_by_hand():
    truth, photo = picture(16, 19), noisy(picture(16, 19), 0.1)
    by_hand = np.mean(
        [ssim_parts(np.float64(photo[..., c]), np.float64(truth[..., c]))[0] for c in range(3)]
    )
    assert metrics.ssim(photo, truth) == pytest.approx(by_hand, abs=1e-5)


def test_similarity_of_equal_pictures_is_one():
    assert metrics.ssim(picture(64, 48), picture(64, 48)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("measure", [metrics.psnr, metrics.ssim])
def test_more_noise_is_worse(measure):
    truth = picture(176, 180)
    values = [measure(noisy(truth, sigma), truth) for sigma in (0.01, 0.03, 0.1, 0.3)]
    assert values == sorted(values, reverse=True) and values[-1] > 0


@pytest.mark.parametrize("measure", [metrics.psnr, metrics.ssim])
def test_order_does_not_matter(measure):
    a, b = picture(40, 44), noisy(picture(40, 44), 0.1)
    assert measure(a, b) == pytest.approx(measure(b, a))


def test_sharpness_is_one_for_the_truth_less_when_blurred_more_when_noisy():
    truth = picture(64, 64)
    assert metrics.sharpness(truth, truth) == 1
    assert (
        metrics.sharpness(cv2.GaussianBlur(truth, (0, 0), 2), truth)
        < 0.9
        < 1.5
        < metrics.sharpness(noisy(truth, 0.02), truth)
    )


def test_sharpness_grows_with_the_square_of_contrast():
    truth = picture(32, 32) * 0.5
    assert metrics.sharpness(2 * truth, truth) == pytest.approx(4, rel=1e-5)


def test_sharpness_beside_a_flat_truth_is_a_number():
    assert metrics.sharpness(np.zeros((8, 8, 3), np.float32), np.ones((8, 8, 3), np.float32)) == 0


def test_consistency_of_equal_pictures_is_infinite():
    assert metrics.consistency(picture(40, 33), picture(40, 33)) == math.inf


def test_consistency_forgives_detail_and_not_colour():
    given = np.full((64, 64, 3), 0.5, np.float32)
    checked = given + 0.2 * (np.indices((64, 64)).sum(0) % 2 - 0.5)[..., None].astype(np.float32)
    tinted = given + np.float32([0.1, 0, 0])
    assert (
        metrics.psnr(checked, given) == pytest.approx(20, abs=1e-3)
        and metrics.consistency(checked, given) > 100
    )
    assert metrics.consistency(tinted, given) == pytest.approx(10 * math.log10(3 / 0.01), abs=1e-3)


def test_consistency_compares_pictures_of_two_sizes():
    given = picture(32, 48)
    assert metrics.consistency(given.repeat(2, 0).repeat(2, 1), given) > 100


@pytest.mark.parametrize("size", [(1, 1), (3, 20)])
def test_consistency_of_tiny_pictures_is_a_number(size):
    assert metrics.consistency(picture(*size), picture(*size) * 0.9) > 10


def test_landmark_distance_by_hand():
    truth = np.array([[10, 10], [20, 10], [15, 15], [12, 20], [18, 20]], float)
    found = truth.copy()
    found[2] += (3, 4)
    assert metrics.landmark_distance(found, truth) == pytest.approx(5 / 5 / 10)


def test_landmark_distance_of_a_mesh_is_over_the_distance_of_the_eyes():
    truth = np.random.default_rng(0).random((468, 2)) * 100
    truth[[33, 133]], truth[[362, 263]] = [(28, 40), (32, 40)], [(66, 43), (70, 43)]
    assert metrics.landmark_distance(truth + (6, 8), truth) == pytest.approx(10 / math.hypot(38, 3))


def test_landmark_distance_of_the_truth_is_zero():
    truth = np.random.default_rng(0).random((468, 2))
    assert metrics.landmark_distance(truth, truth) == 0


def cheeks(side: int) -> np.ndarray:
    """468 points of a face that fills `side` px: what weave asks are eyes and cheeks."""
    points = np.full((468, 2), side / 2.0)
    for corners, x in (((33, 133), 0.36), ((362, 263), 0.64)):
        points[list(corners)] = (x * side, 0.45 * side)
    for cheek, x in zip(metrics.CHEEKS, (0.32, 0.68)):
        points[list(cheek)] = (x * side, 0.58 * side)
    return points


def skin(side: int, seed: int = 0) -> np.ndarray:
    """Grey skin with pores: noise of 3 levels, a little blurred, as grey as a photo is."""
    pores = cv2.GaussianBlur(
        np.random.default_rng(seed).normal(0, 12 / 255, (side, side)), (0, 0), 1
    )
    return np.repeat(0.5 + pores[..., None], 3, 2).astype(np.float32)


def waves(side: int, period: float, turn: float) -> np.ndarray:
    """Stripes of an RMS of 1, H×W×1."""
    y, x = np.mgrid[:side, :side]
    phase = 2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / period
    return (np.sqrt(2) * np.sin(phase)).astype(np.float32)[..., None]


def test_weave_of_the_truth_is_zero():
    assert metrics.weave(skin(256), skin(256), cheeks(256)) == 0


@pytest.mark.parametrize("side", [128, 256])
@pytest.mark.parametrize(("period", "turn"), [(4, 0.0), (4, 0.4), (2.5, 1.2), (3, 0.8), (5.5, 0.0)])
def test_a_weave_stands_out_and_noise_of_its_energy_does_not(side, period, turn):
    truth, level = skin(side), np.float32(4 / 255)
    noise = np.random.default_rng(1).normal(0, 1, (side, side, 1)).astype(np.float32)
    woven, grained = (
        metrics.weave(truth + level * x, truth, cheeks(side))
        for x in (waves(side, period, turn), noise)
    )
    assert woven > 5 and woven > 8 * grained


def test_weave_grows_with_the_energy_and_not_with_what_is_wider_than_its_ring():
    truth = skin(256)
    low, high = (
        metrics.weave(truth + np.float32(k / 255) * waves(256, 4, 0), truth, cheeks(256))
        for k in (4, 8)
    )
    assert high == pytest.approx(4 * low, rel=1e-3)
    assert (
        metrics.weave(truth + np.float32(8 / 255) * waves(256, 40, 0.3), truth, cheeks(256))
        < low / 100
    )
    assert metrics.weave(truth + np.float32(0.1), truth, cheeks(256)) < 1e-6


def test_a_blur_takes_texture_and_leaves_no_weave():
    truth = skin(256)
    blurred = cv2.GaussianBlur(truth, (0, 0), 3)
    woven = truth + np.float32((truth - blurred).std()) * waves(256, 4, 0)
    lost, put = (metrics.weave(photo, truth, cheeks(256)) for photo in (blurred, woven))
    assert lost < 10 and put > 5 * lost


def test_weave_beside_flat_skin_is_a_number():
    """Against half a level of white noise: stripes of one level stand out by their energy, 4 times
    256/2.25 of it in two places.
    """
    flat = np.full((256, 256, 3), 0.5, np.float32)
    score = metrics.weave(flat + np.float32(1 / 255) * waves(256, 4, 0), flat, cheeks(256))
    assert score == pytest.approx(4 * 256 / 1.5**2 / 2, rel=0.15)


def test_weave_looks_at_cheeks_alone():
    truth, woven = skin(256), skin(256) + np.float32(8 / 255) * waves(256, 4, 0)
    woven[120:180, 60:200] = truth[120:180, 60:200]
    assert metrics.weave(woven, truth, cheeks(256)) == 0


def test_weave_of_a_picture_smaller_than_its_window_says_so():
    with pytest.raises(ValueError, match="at least 16 px, got 12x12"):
        metrics.weave(skin(12), skin(12), cheeks(12))
