"""Claims about degradation recipes: they replay bit for bit, keep the photo's form, and each
operation does what its name says.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage, stats
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

from mtrestore import degrade
from mtrestore.degrade import (
    ALONE,
    BAYER,
    LENGTHS,
    MIXED,
    OPS,
    PARAMETERS,
    PRESETS,
    Recipe,
    apply,
    draw,
)
from mtrestore.degrade.operations import OPTIONAL

SIZES = [(24, 20), (1, 1), (1, 7), (7, 1), (2, 2), (3, 5), (17, 16), (20, 24)]
NAMES = [*PRESETS, "mixed", "portrait", "clean"]
ORDERS = ["fixed", "shuffled"]
EXAMPLES = {  # one plain step of each operation
    "gaussian_blur": dict(sigma=1.3),
    "anisotropic_blur": dict(sigma_x=2.0, sigma_y=0.7, angle=30),
    "defocus": dict(radius=1.7),
    "motion": dict(length=6, angle=20, wobble=0.5, seed=3),
    "gaussian_noise": dict(sigma=12, seed=4),
    "poisson_noise": dict(sigma=12, seed=5),
    "grain": dict(sigma=12, grain=0.8, seed=6),
    "colour_noise": dict(sigma=12, grain=1.5, seed=7),
    "mosaic": dict(pattern="RGGB"),
    "resize": dict(factor=2.3, down="area", up="cubic"),
    "jpeg": dict(quality=30),
    "grey": {},
    "fade": dict(contrast=0.7, lift=0.1, cast=0.6),
    "unsharp": dict(amount=1.5, radius=1.0),
    "sinc": dict(wavelength=4.0, reach=5),
    "chroma_blur": dict(sigma=3.0),
    "bilateral": dict(sigma_colour=200, sigma_space=2.0),
    "median": dict(reach=1),
    "film_grain": dict(sigma=20, kind="medium", size=1.0, seed=8),
    "halftone": dict(pitch=5.0, angle=30, apart=30, soft=0.6),
    "levels": dict(contrast=0.3, place=0.5, red=1.0, green=0.9, blue=0.8),
    "border": dict(kind="turned", share=0.1, level=0.0, seed=9),
    "damage": dict(kind="scratches", count=10, width=1.5, level=1.0, alpha=0.8, seed=10),
}
KERNELS = {
    "disc 0": degrade.disc_kernel(0),
    "disc 0.4": degrade.disc_kernel(0.4),
    "disc 3.7": degrade.disc_kernel(3.7),
    "line": degrade.motion_kernel(9, 35, 0, 0),
    "walk": degrade.motion_kernel(12, -70, 1, 5),
    "no shake": degrade.motion_kernel(0, 0, 0.5, 1),
    "gaussian": degrade.anisotropic_kernel(3, 0.5, 70),
    "needle": degrade.anisotropic_kernel(3, 0, 10),
}


def picture(shape: tuple[int, int] = (24, 20), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((*shape, 3), np.float32)


def constant(value: float | tuple = 0.5, shape: tuple[int, int] = (24, 20)) -> np.ndarray:
    return np.full((*shape, 3), value, np.float32)


def one(op: str, **parameters) -> Recipe:
    return Recipe(({"op": op, **parameters},))


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    astronaut = data.astronaut()[20:220, 130:330].astype(np.float32) / 255
    return cv2.resize(astronaut, (128, 128), interpolation=cv2.INTER_AREA)


# ---- every recipe --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("preset", NAMES)
def test_hundreds_of_draws_keep_the_photos_form(preset, order):
    rng = np.random.default_rng(NAMES.index(preset))
    for i in range(720):  # 15 presets x 2 orders x 720 = 21,600 draws
        photo = picture(SIZES[i % len(SIZES)], i)
        before = photo.copy()
        recipe = draw(preset, rng, order=order, scale=(1, 0.5, 0.1, 2)[i // len(SIZES) % 4])
        out = apply(photo, recipe)
        assert out.shape == photo.shape and out.dtype == np.float32, recipe.to_json()
        assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1, recipe.to_json()
        assert np.array_equal(photo, before) and not np.shares_memory(out, photo), recipe.to_json()


@pytest.mark.parametrize("preset", NAMES)
def test_a_recipe_replays_bit_for_bit_from_json(preset):
    rng = np.random.default_rng(1)
    for i in range(40):
        recipe, photo = draw(preset, rng, order=ORDERS[i % 2]), picture((33, 40), i)
        again = Recipe.from_json(recipe.to_json())
        assert again == recipe and apply(photo, again).tobytes() == apply(photo, recipe).tobytes()


def test_a_fresh_process_gives_the_same_bits():
    rng = np.random.default_rng(2)
    texts = [draw(preset, rng).to_json() for preset in NAMES for _ in range(3)]
    script = (
        "import sys, json, hashlib, numpy as np; from mtrestore.degrade import apply, Recipe;"
        "p = np.random.default_rng(9).random((40, 31, 3), np.float32);"
        "print(hashlib.sha256(b''.join(apply(p, Recipe.from_json(t)).tobytes() for t in "
        "json.load(sys.stdin))).hexdigest())"
    )
    root = Path(__file__).parents[1]
    got = [
        subprocess.run(
            [sys.executable, "-c", script],
            input=json.dumps(texts),
            cwd=root,
            text=True,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    here = hashlib.sha256(
        b"".join(apply(picture((40, 31), 9), Recipe.from_json(t)).tobytes() for t in texts)
    ).hexdigest()
    assert got[0].strip() == got[1].strip() == here


def test_a_draw_depends_on_the_generator_alone():
    for preset in NAMES:
        first, second = (
            [draw(preset, rng) for _ in range(20)]
            for rng in (np.random.default_rng(5), np.random.default_rng(5))
        )
        assert first == second and (preset == "clean" or len(set(map(str, first))) > 5), preset


def test_the_number_of_threads_does_not_change_the_bits():
    photo, rng, threads = picture((200, 190)), np.random.default_rng(3), cv2.getNumThreads()
    recipes = [draw("severe", rng) for _ in range(8)] + [one(op, **EXAMPLES[op]) for op in OPS]
    try:
        cv2.setNumThreads(1)
        alone = [apply(photo, recipe) for recipe in recipes]
        cv2.setNumThreads(4)
        assert all(
            np.array_equal(apply(photo, recipe), out)
            for recipe, out in zip(recipes, alone, strict=True)
        )
    finally:
        cv2.setNumThreads(threads)


def test_numpys_global_generator_is_not_touched():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    apply(picture(), draw("severe", np.random.default_rng(0)))
    assert np.array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize("op", [name for name in OPS if "noise" in name or "grain" in name])
def test_another_seed_is_another_noise(op):
    a, b = (apply(constant(), one(op, **{**EXAMPLES[op], "seed": seed})) for seed in (1, 2))
    assert abs(np.corrcoef(a.ravel() - 0.5, b.ravel() - 0.5)[0, 1]) < 0.15


@pytest.mark.parametrize(
    "view",
    [
        lambda p: p[::-1, ::-1],
        lambda p: p.transpose(1, 0, 2),
        lambda p: p[::2, 1::2],
        lambda p: p[..., ::-1],
    ],
)
def test_a_view_gives_the_bits_of_its_copy(view):
    photo = view(picture((30, 26)))
    for op in OPS:
        assert np.array_equal(
            apply(photo, one(op, **EXAMPLES[op])), apply(photo.copy(), one(op, **EXAMPLES[op]))
        ), op


@pytest.mark.parametrize("op", OPS)
def test_each_operation_changes_a_picture_and_repeats(op):
    photo, recipe = picture(), one(op, **EXAMPLES[op])
    photo.flags.writeable = False
    out = apply(photo, recipe)
    assert np.array_equal(out, apply(photo, recipe)) and np.abs(out - photo).mean() > 0.01


@pytest.mark.parametrize("op", OPS)
def test_each_operation_at_its_strongest_takes_a_tiny_picture(op):
    for shape in [(1, 1), (1, 9), (9, 1), (2, 3)]:
        strongest = {
            k: limits[-1] if isinstance(limits[0], str) else limits[1]
            for k, limits in PARAMETERS[op].items()
        }
        out = apply(picture(shape), one(op, **strongest))
        assert (
            out.shape == (*shape, 3)
            and np.isfinite(out).all()
            and out.min() >= 0
            and out.max() <= 1
        ), shape


def test_an_empty_recipe_is_a_copy():
    photo = picture()
    out = apply(photo, Recipe())
    assert np.array_equal(out, photo) and not np.shares_memory(out, photo)


def test_steps_run_in_their_order():
    grey_last = Recipe(({"op": "gaussian_noise", "sigma": 20, "seed": 1}, {"op": "grey"}))
    noise_last = Recipe(grey_last.steps[::-1])
    a, b = apply(picture(), grey_last), apply(picture(), noise_last)
    assert np.ptp(a, axis=2).max() < 1e-6 < 0.01 < np.ptp(b, axis=2).max()


# ---- optics --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.5, 3.0])
def test_gaussian_blur_is_scipys(sigma):
    photo = picture((40, 36))
    radius = (round(8 * sigma + 1) | 1) // 2  # OpenCV's for floats
    expected = ndimage.gaussian_filter(
        photo.astype(np.float64), (sigma, sigma, 0), mode="mirror", radius=radius
    )
    np.testing.assert_allclose(apply(photo, one("gaussian_blur", sigma=sigma)), expected, atol=2e-5)


def test_a_round_anisotropic_blur_is_the_gaussian():
    photo = picture((40, 36))
    turned = apply(photo, one("anisotropic_blur", sigma_x=1.5, sigma_y=1.5, angle=37))
    np.testing.assert_allclose(
        turned, apply(photo, one("gaussian_blur", sigma=1.5)), atol=4e-3
    )  # one is cut at 3 sigma, one at 4


@pytest.mark.parametrize("angle,along", [(0, (2.5, 0.8)), (90, (0.8, 2.5))])
def test_an_upright_anisotropic_blur_is_scipys(angle, along):
    photo = picture((40, 36))
    expected = ndimage.gaussian_filter(photo, (along[1], along[0], 0), mode="mirror", truncate=4)
    np.testing.assert_allclose(
        apply(photo, one("anisotropic_blur", sigma_x=2.5, sigma_y=0.8, angle=angle)),
        expected,
        atol=1e-2,
    )


@pytest.mark.parametrize(
    "kernel",
    [degrade.anisotropic_kernel(4, 1, 30), degrade.motion_kernel(15, 30, 0, 0)],
    ids=["gaussian", "motion"],
)
def test_angles_turn_counter_clockwise_on_the_screen(kernel):
    r = len(kernel) // 2
    y, x = np.mgrid[-r : r + 1, -r : r + 1]
    xx, yy, xy = (kernel * x * x).sum(), (kernel * y * y).sum(), (kernel * x * y).sum()
    assert np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)) == pytest.approx(
        -30, abs=1
    )  # y points down: up and right is negative


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_odd_not_negative_and_sum_to_one(name):
    kernel = KERNELS[name]
    assert kernel.shape[0] == kernel.shape[1] and kernel.shape[0] % 2 == 1
    assert kernel.min() >= 0 and kernel.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_do_not_shift_the_picture(name):
    kernel = KERNELS[name].astype(np.float64)
    r = len(kernel) // 2
    y, x = np.mgrid[-r : r + 1, -r : r + 1]
    assert (kernel * x).sum() == pytest.approx(0, abs=1e-5) and (kernel * y).sum() == pytest.approx(
        0, abs=1e-5
    )


@pytest.mark.parametrize("radius", [1.0, 2.5, 4.5, 9.3])
def test_the_disc_is_the_oversampled_disc(radius):
    kernel = degrade.disc_kernel(radius)
    r, k = len(kernel) // 2, 32  # 32x32 points a pixel
    t = (np.arange(k * len(kernel)) + 0.5) / k - r - 0.5
    inside = (
        (np.hypot(*np.meshgrid(t, t)) <= radius)
        .reshape(len(kernel), k, len(kernel), k)
        .mean((1, 3))
    )
    assert np.abs(kernel - inside / inside.sum()).sum() < 0.12


def test_a_straight_shake_is_as_long_as_said():
    row = degrade.motion_kernel(12, 0, 0, 0).sum(0)
    variance = (row * (np.arange(len(row)) - len(row) // 2) ** 2).sum()
    assert np.sqrt(12 * variance) == pytest.approx(
        12, rel=0.05
    )  # an even line of length L has variance L²/12


@pytest.mark.parametrize("seed", range(8))
def test_a_wandering_shake_stays_within_its_length(seed):
    kernel = degrade.motion_kernel(10, 40, 1, seed)
    y, x = np.nonzero(kernel)
    assert max(np.ptp(x), np.ptp(y)) <= 11 and not np.array_equal(
        kernel, degrade.motion_kernel(10, 40, 1, seed + 100)
    )


@pytest.mark.parametrize(
    "op",
    [
        "gaussian_blur",
        "anisotropic_blur",
        "defocus",
        "motion",
        "mosaic",
        "resize",
        "unsharp",
        "sinc",
        "chroma_blur",
        "bilateral",
    ],
)
def test_an_even_picture_stays_even(op):
    photo = constant((0.2, 0.5, 0.9))
    if op == "mosaic":
        photo = constant((0.5, 0.5, 0.5))
    np.testing.assert_allclose(apply(photo, one(op, **EXAMPLES[op])), photo, atol=1e-5)


@pytest.mark.parametrize(
    "op,nothing",
    [
        ("gaussian_blur", dict(sigma=0)),
        ("defocus", dict(radius=0)),
        ("defocus", dict(radius=0.4)),
        ("motion", dict(length=0)),
        ("anisotropic_blur", dict(sigma_x=0, sigma_y=0)),
        ("gaussian_noise", dict(sigma=0)),
        ("poisson_noise", dict(sigma=0)),
        ("grain", dict(sigma=0)),
        ("colour_noise", dict(sigma=0)),
        ("resize", dict(factor=1)),
        ("fade", dict(contrast=1, lift=0, cast=0)),
        ("unsharp", dict(amount=0)),
        ("unsharp", dict(radius=0)),
        ("chroma_blur", dict(sigma=0)),
        ("bilateral", dict(sigma_colour=0)),
        ("median", dict(reach=0)),
        ("film_grain", dict(sigma=0)),
        ("levels", dict(contrast=1, red=1, green=1, blue=1)),
        ("border", dict(share=0)),
        ("damage", dict(count=0)),
        ("damage", dict(alpha=0)),
    ],
)
def test_no_strength_is_no_change(op, nothing):
    photo = picture()
    np.testing.assert_allclose(
        apply(photo, one(op, **{**EXAMPLES[op], **nothing})), photo, atol=1e-6
    )


# ---- sensor --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [2, 10, 30])
@pytest.mark.parametrize("op", ["gaussian_noise", "poisson_noise"])
def test_white_noise_has_its_sigma_at_middle_grey(op, sigma):
    noise = apply(constant(0.5, (128, 128)), one(op, sigma=sigma, seed=11)) - 0.5
    assert (
        noise.std() * 255 == pytest.approx(sigma, rel=0.03) and abs(noise.mean()) * 255 < sigma / 40
    )


@pytest.mark.parametrize("op", ["gaussian_noise", "poisson_noise"])
def test_white_noise_is_white(op):
    noise = apply(constant(0.5, (96, 96)), one(op, sigma=10, seed=12)) - 0.5
    pairs = [(noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1]), (noise[..., 0], noise[..., 1])]
    assert all(abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.03 for a, b in pairs)


@pytest.mark.parametrize("level", [0.0, 0.02, 0.1, 0.5, 0.8])
def test_shot_noise_has_the_moments_of_numpys_poisson(level):
    white = 0.5 / (30 / 255) ** 2  # photons at white for sigma 30: 36
    counts = (
        degrade.OPS["poisson_noise"](constant(level, (200, 200)), sigma=30, seed=13)
        .astype(np.float64)
        .ravel()
        * white
    )
    expected = np.minimum(
        np.random.default_rng(0).poisson(level * white, counts.size), white
    )  # white clips both
    assert np.abs(counts - np.rint(counts))[counts < white * 0.999].max(initial=0) < 1e-3
    assert counts.mean() == pytest.approx(expected.mean(), rel=0.03, abs=0.05)
    assert counts.std() == pytest.approx(expected.std(), rel=0.05, abs=0.02)
    if 0.1 <= level <= 0.5:
        assert stats.skew(counts) == pytest.approx(stats.skew(expected), abs=0.08)


def test_shot_noise_leaves_black_black():
    assert not apply(constant(0.0), one("poisson_noise", sigma=30, seed=1)).any()


@pytest.mark.parametrize("grain", [0.0, 0.5, 1.0, 3.0])
def test_grain_has_its_sigma_and_no_colour(grain):
    noise = apply(constant(0.5, (200, 200)), one("grain", sigma=15, grain=grain, seed=14)) - 0.5
    assert noise.std() * 255 == pytest.approx(15, rel=0.06) and np.ptp(noise, axis=2).max() < 1e-6


@pytest.mark.parametrize("grain", [0.0, 0.8, 2.5])
def test_colour_noise_has_its_sigma_and_leaves_the_luma(grain):
    noise = (
        apply(constant(0.5, (200, 200)), one("colour_noise", sigma=15, grain=grain, seed=15)) - 0.5
    )
    assert np.sqrt((noise**2).mean()) * 255 == pytest.approx(15, rel=0.06)
    assert np.abs(noise @ degrade.LUMA).max() < 1e-5


@pytest.mark.parametrize("op", ["grain", "colour_noise"])
def test_neighbours_agree_more_the_coarser_the_grain(op):
    def neighbours(grain: float) -> float:
        noise = (
            apply(constant(0.5, (128, 128)), one(op, sigma=15, grain=grain, seed=16))[..., 2] - 0.5
        )
        return np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]

    fine, middle, coarse = map(neighbours, (0.0, 0.7, 3.0))
    assert (
        abs(fine) < 0.03
        and 0.3 < middle < 0.8
        and coarse == pytest.approx(np.exp(-1 / 36), abs=0.03)
    )


@pytest.mark.parametrize("pattern", BAYER)
def test_the_mosaic_is_opencvs_bilinear_demosaicing(pattern):
    photo = np.rint(picture((20, 22)) * 65535).astype(np.uint16)
    raw = np.zeros((20, 22), np.uint16)
    for i, colour in enumerate(pattern):
        raw[i // 2 :: 2, i % 2 :: 2] = photo[i // 2 :: 2, i % 2 :: 2, "RGB".index(colour)]
    expected = cv2.cvtColor(raw, getattr(cv2, f"COLOR_Bayer{pattern}2RGB")) / 65535
    got = apply((photo / 65535).astype(np.float32), one("mosaic", pattern=pattern))
    np.testing.assert_allclose(got[2:-2, 2:-2], expected[2:-2, 2:-2], atol=3e-5)


@pytest.mark.parametrize("pattern", BAYER)
def test_the_mosaic_keeps_every_even_colour_to_the_border(pattern):
    for shape in [(1, 1), (1, 6), (5, 1), (2, 2), (9, 8)]:
        photo = constant((0.2, 0.5, 0.9), shape)
        np.testing.assert_allclose(apply(photo, one("mosaic", pattern=pattern)), photo, atol=1e-6)


def test_the_mosaic_gives_a_sharp_grey_edge_false_colours():
    photo = constant(0.1)
    photo[:, 10:] = 0.9
    assert np.ptp(apply(photo, one("mosaic", pattern="RGGB")), axis=2).max() > 0.2


# ---- storage and age -----------------------------------------------------------------------------


def test_jpeg_errs_more_the_lower_its_quality(face):
    errors = [
        np.square(apply(face, one("jpeg", quality=q)) - face).mean()
        for q in (5, 10, 20, 35, 50, 70, 85, 95)
    ]
    assert all(worse > better for worse, better in zip(errors, errors[1:], strict=False))


def test_jpeg_keeps_red_red():
    np.testing.assert_allclose(
        apply(constant((0.9, 0.2, 0.1)), one("jpeg", quality=95)),
        constant((0.9, 0.2, 0.1)),
        atol=0.02,
    )


def test_jpeg_says_how_large_a_side_may_be():
    with pytest.raises(ValueError, match="65500"):
        apply(np.zeros((1, 65501, 3), np.float32), one("jpeg", quality=50))


@pytest.mark.parametrize("down", degrade.INTERPOLATION)
def test_resize_errs_more_the_larger_the_factor(face, down):
    errors = [
        np.square(apply(face, one("resize", factor=f, down=down, up="cubic")) - face).mean()
        for f in (1.5, 2.5, 4, 8)
    ]
    assert errors == sorted(errors)


@pytest.mark.parametrize("factor", [2, 4])
def test_resize_by_area_is_the_mean_of_blocks(factor):
    photo = picture((16, 24))
    blocks = photo.reshape(16 // factor, factor, 24 // factor, factor, 3).mean((1, 3))
    got = apply(photo, one("resize", factor=factor, down="area", up="nearest"))
    np.testing.assert_allclose(got, blocks.repeat(factor, 0).repeat(factor, 1), atol=1e-6)


def test_resize_does_not_shift(face):
    got = apply(face, one("resize", factor=4, down="area", up="linear")).mean(2)
    shift = [np.square(np.roll(face.mean(2), d, 1) - got)[:, 8:-8].mean() for d in (-1, 0, 1)]
    assert np.argmin(shift) == 1


def test_grey_is_the_luma():
    photo = picture()
    expected = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    np.testing.assert_allclose(apply(photo, one("grey")), np.stack([expected] * 3, 2), atol=1e-6)


def test_fade_lifts_black_and_lowers_white():
    recipe = one("fade", contrast=0.7, lift=0.1, cast=0)
    assert apply(constant(0.0), recipe) == pytest.approx(0.1) and apply(
        constant(1.0), recipe
    ) == pytest.approx(0.1 + 0.9 * 0.7)


def test_a_cast_yellows():
    r, g, b = apply(constant(0.6), one("fade", contrast=0.9, lift=0.1, cast=0.8))[0, 0]
    assert r > g > b


# ---- draws ---------------------------------------------------------------------------------------


def draws(preset: str, n: int = 400, **options) -> list[Recipe]:
    rng = np.random.default_rng(21)
    return [draw(preset, rng, **options) for _ in range(n)]


BLURS, NOISES = (
    {"gaussian_blur", "anisotropic_blur", "defocus", "motion"},
    {"gaussian_noise", "poisson_noise"},
)


@pytest.mark.parametrize("preset", ["medium", "severe"])
def test_a_medium_or_severe_draw_has_a_blur_noise_and_usually_jpeg(preset):
    sets = [set(r.ops) for r in draws(preset)]
    assert all(s & BLURS for s in sets)
    assert (
        np.mean([bool(s & NOISES) for s in sets]) > 0.9
        and np.mean(["jpeg" in s for s in sets]) > 0.75
    )


def test_photo_keeps_colours_and_tries_each_fault_alone():
    recipes = draws("photo", 2000)
    assert not any({"grey", "fade"} & set(r.ops) for r in recipes)
    assert np.mean([len(r.steps) == 0 for r in recipes]) == pytest.approx(0.08, abs=0.02)
    assert np.mean([len(r.steps) == 1 for r in recipes]) == pytest.approx(0.35, abs=0.04)
    assert {r.ops[0] for r in recipes if len(r.steps) == 1} == set(ALONE)


def test_mixed_holds_its_shares():
    got = [r.preset for r in draws("mixed", 4000)]
    assert sum(MIXED.values()) == pytest.approx(1)
    assert all(
        got.count(name) / 4000 == pytest.approx(share, abs=0.03) for name, share in MIXED.items()
    )


def test_old_photos_are_usually_grey_or_faded_and_grainy():
    recipes = draws("old-photo")
    assert (
        np.mean(["grey" in r.ops for r in recipes]) > 0.7
        and np.mean(["grain" in r.ops for r in recipes]) > 0.9
    )
    assert all({"grey", "fade"} & set(r.ops) for r in recipes if len(r.steps) > 3)
    casts = [s["cast"] for r in recipes for s in r.steps if s["op"] == "fade"]
    assert 0.3 < np.mean(np.array(casts) == 0) < 0.7


def test_mild_medium_severe_get_worse(face):
    rng = np.random.default_rng(22)
    psnr = [
        np.mean(
            [
                peak_signal_noise_ratio(
                    face, apply(face, draw(preset, rng, size=128)), data_range=1
                )
                for _ in range(60)
            ]
        )
        for preset in ("mild", "medium", "severe")
    ]
    assert psnr[0] > psnr[1] + 3 > psnr[2] + 6


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in degrade.CHAINS])
def test_the_fixed_order_is_the_documented_one(preset):
    place = {
        op: i
        for i, stage in enumerate(
            [
                ["gaussian_blur", "anisotropic_blur", "defocus"],
                ["motion"],
                [*NOISES, "grain"],
                ["mosaic"],
                ["colour_noise"],
                ["resize"],
                ["grey"],
                ["fade"],
                ["jpeg"],
            ]
        )
        for op in stage
    }
    for recipe in draws(preset, 200):
        places = [place[op] for op in recipe.ops]
        assert places == sorted(places), recipe.ops


def test_shuffling_moves_the_steps_and_only_them():
    for preset in PRESETS:
        for seed in range(50):
            fixed, shuffled = (
                draw(preset, np.random.default_rng(seed), order=order) for order in ORDERS
            )
            assert sorted(map(str, fixed.steps)) == sorted(map(str, shuffled.steps)), preset


def test_a_shuffled_jpeg_is_last_half_the_time():
    recipes = [r for r in draws("medium", 1500, order="shuffled") if "jpeg" in r.ops]
    assert np.mean([r.ops[-1] == "jpeg" for r in recipes]) == pytest.approx(0.5, abs=0.05)
    assert len({r.ops for r in recipes}) > 3 * len(
        {r.ops for r in draws("medium", 1500) if "jpeg" in r.ops}
    )


def test_scale_multiplies_lengths_and_nothing_else():
    for preset in PRESETS:
        for seed in range(60):
            one_, two = (draw(preset, np.random.default_rng(seed), scale=s) for s in (1, 2))
            assert one_.ops == two.ops, preset
            for a, b in zip(one_.steps, two.steps, strict=True):
                for key in a:
                    expected = (
                        pytest.approx(2 * a[key], abs=2e-4)
                        if key in LENGTHS.get(a["op"], ())
                        else a[key]
                    )
                    assert b[key] == expected, (preset, a["op"], key)


def test_a_length_is_any_parameter_measured_in_pixels():
    others = {
        "angle",
        "wobble",
        "seed",
        "pattern",
        "down",
        "up",
        "quality",
        "contrast",
        "lift",
        "cast",
        "subsampling",
        "shift_x",
        "shift_y",
        "amount",
        "sigma_colour",
        "kind",
        "apart",
        "place",
        "red",
        "green",
        "blue",
        "share",
        "level",
        "alpha",
        "count",
    }
    for op, parameters in PARAMETERS.items():
        noise_level = {"sigma"} if "noise" in op or "grain" in op else set()
        assert set(LENGTHS.get(op, ())) == set(parameters) - others - noise_level, op


def test_size_is_short_for_scale():
    assert draws("severe", 50, size=128) == draws("severe", 50, scale=0.5)


def test_each_preset_names_parameters_within_what_the_operation_takes():
    for table in [*PRESETS, "ALONE"]:
        for choices in [ALONE] if table == "ALONE" else [choices for _, choices in PRESETS[table]]:
            for op, (_, ranges) in choices.items():
                assert (
                    PARAMETERS[op].keys() - {"seed"} - OPTIONAL[op].keys()
                    <= ranges.keys()
                    <= {*PARAMETERS[op], *OPTIONAL[op]} - {"seed"}
                ), op
                for key, (low, high, *_) in (
                    (k, v) for k, v in PARAMETERS[op].items() if k in ranges
                ):
                    values = ranges[key]
                    if isinstance(low, str):
                        assert set(values) <= set(PARAMETERS[op][key]), table
                    else:
                        assert values[0] <= values[1] <= high and (
                            values[0] >= low or key == "cast"
                        ), table


def test_a_drawn_recipe_holds_plain_json_values():
    for preset in NAMES:
        for recipe in draws(preset, 50):
            inner = [s for step in recipe.steps for s in step.get("steps", ())]
            values = [
                v for step in [*recipe.steps, *inner] for k, v in step.items() if k != "steps"
            ]
            assert all(type(v) in (str, int, float) for v in values), preset


# ---- errors --------------------------------------------------------------------------------------

BAD = {
    "an unknown op": ({"op": "sharpen"}, "unknown op 'sharpen'"),
    "no op": ({"sigma": 3}, "unknown op None"),
    "not a step": ("jpeg", "unknown op None"),
    "a list for an op": ({"op": ["jpeg"]}, "unknown op"),
    "a missing parameter": ({"op": "gaussian_noise", "sigma": 3}, "takes exactly"),
    "an unknown parameter": ({"op": "jpeg", "quality": 50, "colour": 1}, "takes exactly"),
    "too high": ({"op": "jpeg", "quality": 101}, "from 5 to 95, got 101"),
    "too low": ({"op": "resize", "factor": 0.5, "down": "area", "up": "cubic"}, "from 1 to 64"),
    "a fraction for a whole number": ({"op": "jpeg", "quality": 50.5}, "an integer"),
    "a text for a number": ({"op": "gaussian_blur", "sigma": "1"}, "a number"),
    "true for a number": ({"op": "gaussian_blur", "sigma": True}, "a number"),
    "NaN": ({"op": "gaussian_blur", "sigma": float("nan")}, "got nan"),
    "infinity": ({"op": "gaussian_blur", "sigma": float("inf")}, "got inf"),
    "a negative seed": ({"op": "gaussian_noise", "sigma": 1, "seed": -1}, "seed"),
    "a word that is not one": ({"op": "mosaic", "pattern": "RGBW"}, "one of RGGB"),
    "a number for a word": ({"op": "mosaic", "pattern": 3}, "one of RGGB"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_step_is_told_in_one_sentence(fault):
    step, message = BAD[fault]
    with pytest.raises(ValueError, match=message) as e:
        Recipe(({"op": "grey"}, step))
    assert str(e.value).startswith("step 2: ") and "\n" not in str(e.value)


def test_a_recipe_does_not_follow_its_makers_dict():
    step = {"op": "jpeg", "quality": 50}
    recipe = Recipe((step,))
    step["quality"] = 900
    assert recipe.steps[0]["quality"] == 50


def test_apply_checks_a_recipe_changed_behind_its_back():
    recipe = one("jpeg", quality=50)
    recipe.steps[0]["quality"] = 900
    with pytest.raises(ValueError, match="got 900"):
        apply(picture(), recipe)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"steps": 3}',
        '{"version": 1}',
        '{"version": 1, "steps": [], "more": 1}',
        '{"version": 2, "steps": []}',
        '{"version": 1, "steps": [{"op": "no"}]}',
        '{"version": 1, "steps": [null]}',
    ],
)
def test_other_text_than_a_recipe_is_refused(text):
    with pytest.raises(ValueError) as e:
        Recipe.from_json(text)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 4), np.float32),
        np.zeros((4, 4, 3)),
        [[0.0]],
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.float32),
        constant(np.nan),
        constant(np.inf),
    ],
)
def test_another_thing_than_a_photo_is_refused(photo):
    with pytest.raises(ValueError, match="photo must be"):
        apply(photo, Recipe())


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(preset="awful"), "preset must be one of mild"),
        (dict(order="any"), "order must be"),
        (dict(scale=0), "above 0"),
        (dict(scale=float("nan")), "above 0"),
        (dict(size=0), "above 0"),
    ],
)
def test_a_bad_draw_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(**{"preset": "mild", "rng": np.random.default_rng(0), **arguments})
