"""Claims about faults of real portraits: each operation does what its name says, old recipes keep
their bits, and "portrait" draws its chains by their shares."""

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

import mtrestore
from mtrestore import degrade
from mtrestore.degrade import (
    CHAINS,
    LENGTHS,
    LUMA,
    PORTRAIT,
    PRESETS,
    Recipe,
    apply,
    blur_scale,
    draw,
)
from mtrestore.degrade.operations import sinc_kernel
from mtrestore.degrade.presets import EXTRAS
from mtrestore.degrade.prints import GRAIN, GRAIN_TONE, damage_mask
from mtrestore.training import batches as data

OLD_DRAWS = {  # sha256 of 200 draws each, before any chain was there
    "mild": "634638796ae211fb",
    "medium": "651d8d111283a56c",
    "severe": "141e6cf444434143",
    "old-photo": "bc20c9253f314d1c",
    "photo": "09f16134adfcdf06",
    "mixed": "8f5560c43b9e766c",
}
OLD_RECIPE = """{"version": 1, "preset": "severe", "steps": [
  {"op": "motion", "length": 11.9812, "angle": -49.4627, "wobble": 0.2401, "seed": 612176794},
  {"op": "poisson_noise", "sigma": 34.3179, "seed": 1875941739},
  {"op": "colour_noise", "sigma": 12.3328, "grain": 2.0578, "seed": 1026816911},
  {"op": "resize", "factor": 4.378, "down": "linear", "up": "cubic"}]}"""


def one(op: str, **parameters) -> Recipe:
    return Recipe(({"op": op, **parameters},))


def even(value: float | tuple, side: int = 64) -> np.ndarray:
    return np.full((side, side, 3), value, np.float32)


def noise(side: int = 64, seed: int = 0) -> np.ndarray:
    """A picture of soft random colours, far from black and white."""
    photo = np.random.default_rng(seed).random((side, side, 3), np.float32)
    return 0.35 + 0.3 * cv2.GaussianBlur(photo, (0, 0), 0.8)


def edge(side: int = 64, low: float = 0.3, high: float = 0.7) -> np.ndarray:
    photo = even(low, side)
    photo[:, side // 2 :] = high
    return photo


# ---- what was before stays


@pytest.mark.parametrize("preset", OLD_DRAWS)
def test_the_old_presets_draw_what_they_always_drew(preset):
    digest = hashlib.sha256()
    for order in ("fixed", "shuffled"):
        for scale in (1, 0.5):
            rng = np.random.default_rng(2026)
            for _ in range(50):
                recipe = draw(preset, rng, scale=scale, order=order)
                digest.update(recipe.to_json().encode())
    assert digest.hexdigest()[:16] == OLD_DRAWS[preset]


def test_an_old_recipe_is_drawn_again_to_the_letter():
    recipe = Recipe.from_json(OLD_RECIPE)
    assert draw("severe", np.random.default_rng(7)) == recipe
    assert json.loads(recipe.to_json()) == json.loads(OLD_RECIPE)


def test_the_sample_recipe_gives_the_bits_it_always_gave():
    text = (Path(mtrestore.__file__).parent / "sample_recipe.json").read_text("utf-8")
    photo = noise()
    out = cv2.GaussianBlur(photo, (0, 0), 1.3)
    grain = np.random.Generator(np.random.PCG64(1969)).standard_normal((64, 64), np.float32)
    k = cv2.getGaussianKernel(5, 0.6, cv2.CV_32F)
    grain = cv2.sepFilter2D(grain, -1, k, k) / np.float32((k * k).sum())
    out = np.clip(out + grain[..., None] * np.float32(13.0 / 255), 0, 1)
    out = np.clip(np.repeat((out @ LUMA)[..., None], 3, 2), 0, 1)
    out = np.clip(out * np.float32(0.95 * 0.85) + np.float32(0.05), 0, 1)
    levels = np.rint(out * 255).astype(np.uint8)
    _, file = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, 45])
    out = cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255
    assert np.array_equal(apply(photo, Recipe.from_json(text)), out)


def test_a_plain_jpeg_and_a_plain_resize_are_opencvs_with_its_defaults():
    photo = np.random.default_rng(3).random((37, 50, 3), np.float32)
    levels = np.rint(photo * 255).astype(np.uint8)[..., ::-1]
    _, file = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, 30])
    expected = cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255
    assert np.array_equal(apply(photo, one("jpeg", quality=30)), expected)
    small = cv2.resize(photo, (22, 16), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(small, (50, 37), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    got = apply(photo, one("resize", factor=2.3, down="area", up="cubic"))
    assert np.array_equal(got, expected)


# ---- JPEG, and what happens to the small picture


@pytest.mark.parametrize("shift", [(0, 0), (1, 6), (3, 0), (7, 4)])
def test_the_shift_moves_the_blocks_of_a_jpeg(shift):
    photo = cv2.GaussianBlur(np.random.default_rng(0).random((128, 128, 3), np.float32), (0, 0), 6)
    photo = (photo - photo.min()) / np.ptp(photo)
    out = apply(photo, one("jpeg", quality=10, shift_x=shift[0], shift_y=shift[1])) @ LUMA
    for axis, phase in zip((1, 0), shift):
        steps = np.abs(np.diff(out, axis=axis)).mean(1 - axis)  # step i lies before pixel i + 1
        strength = [steps[(i - 1) % 8 :: 8].mean() for i in range(8)]
        assert np.argmax(strength) == (8 - phase) % 8
        assert max(strength) > 1.5 * np.median(strength)


def test_444_keeps_the_colour_of_fine_stripes():
    photo = even((0.8, 0.2, 0.2))
    photo[:, ::2] = (0.2, 0.2, 0.8)
    errors = {
        s: np.abs(apply(photo, one("jpeg", quality=90, subsampling=s)) - photo).mean()
        for s in ("4:2:0", "4:4:4")
    }
    assert errors["4:4:4"] < 0.05 < 0.15 < errors["4:2:0"]


def test_inner_steps_happen_to_the_small_picture():
    photo = noise(60)
    inner = [{"op": "unsharp", "amount": 1.0, "radius": 1.0}, {"op": "jpeg", "quality": 40}]
    got = apply(photo, one("resize", factor=3.0, down="area", up="linear", steps=inner))
    small = cv2.resize(photo, (20, 20), interpolation=cv2.INTER_AREA)
    small = apply(small, Recipe(tuple(inner)))
    assert np.array_equal(got, cv2.resize(small, (60, 60), interpolation=cv2.INTER_LINEAR))


def test_inner_steps_are_not_lost_where_nothing_is_shrunk():
    inner = [{"op": "grey"}]
    photo = noise()
    got = apply(photo, one("resize", factor=1, down="area", up="cubic", steps=inner))
    assert np.array_equal(got, apply(photo, one("grey")))


# ---- phones and programs


def test_unsharp_is_its_formula_and_draws_halos():
    photo = noise().astype(np.float64)
    soft = ndimage.gaussian_filter(photo, (1.5, 1.5, 0), mode="mirror", truncate=4)
    got = apply(photo.astype(np.float32), one("unsharp", amount=1.2, radius=1.5))
    np.testing.assert_allclose(got, photo + 1.2 * (photo - soft), atol=2e-4)
    halo = apply(edge(), one("unsharp", amount=1.0, radius=2.0))
    assert halo.max() == pytest.approx(0.7 + 0.4 * 0.42, abs=0.02)  # half a step less half a pixel
    assert halo.min() == pytest.approx(0.3 - 0.4 * 0.42, abs=0.02)


@pytest.mark.parametrize("wavelength", [3.0, 4.0, 6.0])
def test_sinc_keeps_long_waves_and_cuts_short_ones(wavelength):
    kernel = sinc_kernel(wavelength, 20).astype(np.float64)
    assert kernel.shape == (41, 41) and kernel.sum() == pytest.approx(1, abs=1e-6)
    assert kernel.min() < 0
    x = np.arange(-20, 21)

    def gain(length: float) -> float:
        return float((kernel.sum(0) * np.cos(2 * math.pi * x / length)).sum())

    assert gain(1.6 * wavelength) == pytest.approx(1, abs=0.12)
    assert gain(0.7 * wavelength) == pytest.approx(0, abs=0.12)


def test_sinc_rings_at_an_edge():
    out = apply(edge(), one("sinc", wavelength=4.0, reach=10))[32, :, 0]
    assert out.max() > 0.715 and out.min() < 0.285
    np.testing.assert_allclose(out[:20], 0.3, atol=1e-4)


def test_chroma_blur_leaves_the_luma_and_blurs_the_colours():
    photo = noise()
    out = apply(photo, one("chroma_blur", sigma=3.0))
    np.testing.assert_allclose(out @ LUMA, photo @ LUMA, atol=2e-6)
    chroma = photo - (photo @ LUMA)[..., None]
    expected = ndimage.gaussian_filter(chroma, (3, 3, 0), mode="mirror", truncate=4)
    np.testing.assert_allclose(out - (out @ LUMA)[..., None], expected, atol=1e-4)


def test_bilateral_smears_noise_and_keeps_an_edge():
    photo = apply(edge(), one("gaussian_noise", sigma=8, seed=1))
    out = apply(photo, one("bilateral", sigma_colour=100, sigma_space=3.0))
    assert out[:, :28].std() < photo[:, :28].std() / 2
    assert out[:, 33].mean() - out[:, 30].mean() > 0.36


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_median_is_scipys(reach):
    levels = np.random.default_rng(2).integers(0, 256, (21, 30, 3))
    size = (2 * reach + 1, 2 * reach + 1, 1)
    expected = ndimage.median_filter(levels, size, mode="nearest") / 255
    got = apply((levels / 255).astype(np.float32), one("median", reach=reach))
    np.testing.assert_allclose(got, expected, atol=1e-6)


# ---- film and paper


def rings(noise: np.ndarray, size: float = 1.0) -> np.ndarray:
    """Amplitude amid the rings of 1/32 cycles a pixel over `size`; white noise has 1."""
    power = np.abs(np.fft.fft2(noise)) ** 2
    radius = np.hypot(*np.meshgrid(*[np.fft.fftfreq(n) for n in noise.shape], indexing="ij"))
    place = radius * 32 * size
    return np.sqrt([power[abs(place - i - 0.5) < 0.2].mean() / power.mean() for i in range(16)])


@pytest.mark.parametrize("kind", GRAIN)
def test_film_grain_has_the_spectrum_that_was_measured(kind):
    out = apply(even(0.45, 384), one("film_grain", sigma=12, kind=kind, size=1.0, seed=5))
    grain = out[..., 0].astype(np.float64) - 0.45
    assert np.ptp(out, axis=2).max() < 1e-6
    assert grain.std() * 255 == pytest.approx(12, rel=0.06)
    measured, table = rings(grain)[1:], np.array(GRAIN[kind][1:])
    scale = (measured * table).sum() / (table * table).sum()  # corners beyond 1/2 cycle a pixel
    np.testing.assert_allclose(measured, scale * table, rtol=0.08)
    assert 0.85 < scale < 1.15


def test_film_grain_of_twice_the_size_has_its_spectrum_at_half_the_frequencies():
    out = apply(even(0.45, 384), one("film_grain", sigma=12, kind="fine", size=2.0, seed=6))
    measured, table = rings(out[..., 0] - 0.45, 2.0)[1:], np.array(GRAIN["fine"][1:])
    scale = (measured * table).sum() / (table * table).sum()
    np.testing.assert_allclose(measured, scale * table, rtol=0.12)


def test_film_grain_is_strongest_in_mid_tones():
    for place, tone in enumerate(np.arange(0.05, 1, 0.1)):
        out = apply(even(tone, 128), one("film_grain", sigma=4, kind="fine", size=1.0, seed=7))
        assert (out - tone).std() * 255 == pytest.approx(4 * GRAIN_TONE[place], rel=0.08), (
            place,
            tone,
        )


@pytest.mark.slow
def test_the_grain_report_prints_the_numbers_in_the_code(shared):
    root = Path(__file__).parents[1]
    command = [sys.executable, "experiments/grain_report.py", shared / "data" / "old_prints_real"]
    out = subprocess.run(command, cwd=root, text=True, stdout=subprocess.PIPE, check=True).stdout
    for kind, amplitudes in GRAIN.items():
        assert f'"{kind}": ({", ".join(f"{a:.2f}" for a in amplitudes)}),' in out
    lines = [line.split() for line in out.splitlines() if line.startswith("tone ")]
    tones = np.array([float(words[4][:-1]) for words in lines])
    np.testing.assert_allclose(tones / tones.max(), GRAIN_TONE, atol=0.01)


@pytest.mark.parametrize("pitch,angle", [(4.0, 0), (5.0, 45), (6.4, 20), (3.0, -30)])
def test_a_halftone_has_its_peak_at_the_pitch_and_the_angle(pitch, angle):
    photo = even(0.5, 256)
    out = apply(photo, one("halftone", pitch=pitch, angle=angle, apart=0, soft=0.4))
    assert np.ptp(out, axis=2).max() < 1e-6
    power = np.abs(np.fft.fft2(out[..., 0] - out.mean())) ** 2
    y, x = np.unravel_index(power.argmax(), power.shape)
    fy, fx = np.fft.fftfreq(256)[[y, x]]
    assert math.hypot(fx, fy) == pytest.approx(1 / pitch, abs=0.006)
    turn = math.degrees(math.atan2(-fy, fx)) - angle  # a square screen repeats after 90 degrees
    assert (turn + 45) % 90 - 45 == pytest.approx(0, abs=2)


@pytest.mark.parametrize("pitch", [2.0, 3.3, 6.0, 9.0])
def test_a_halftone_keeps_the_tone(pitch):
    for tone in (0.0, 0.1, 0.3, 0.5, 0.8, 0.95, 1.0):
        out = apply(even(tone, 180), one("halftone", pitch=pitch, angle=23, apart=0, soft=0))
        assert out.mean() == pytest.approx(tone, abs=0.02), tone


def test_the_screens_of_a_colour_print_are_turned_apart():
    photo = even(0.5, 256)
    out = apply(photo, one("halftone", pitch=6.0, angle=15, apart=30, soft=0))
    for channel, expected in enumerate((15, 45, 75)):
        power = np.abs(np.fft.fft2(out[..., channel] - out[..., channel].mean())) ** 2
        fy, fx = np.fft.fftfreq(256)[list(np.unravel_index(power.argmax(), power.shape))]
        turn = math.degrees(math.atan2(-fy, fx)) - expected
        assert (turn + 45) % 90 - 45 == pytest.approx(0, abs=2)


def test_levels_fade_to_a_part_of_the_range():
    photo = even(0.0)
    photo[:, 32:] = 1
    out = apply(photo, one("levels", contrast=0.2, place=0.25, red=1.0, green=0.9, blue=0.5))
    np.testing.assert_allclose(out[0, 0], [0.2, 0.18, 0.1], atol=1e-6)
    np.testing.assert_allclose(out[0, -1], [0.4, 0.36, 0.2], atol=1e-6)


@pytest.mark.parametrize("kind", ["corners", "edges", "turned"])
def test_a_border_covers_its_share_at_the_rim_and_nothing_else(kind):
    for seed in range(6):
        photo = noise(128)
        out = apply(photo, one("border", kind=kind, share=0.1, level=0.0, seed=seed))
        black = (out < 1e-6).all(2)
        assert black.mean() == pytest.approx(0.1, abs=0.025), seed
        assert np.array_equal(out[40:88, 40:88], photo[40:88, 40:88]), seed
        rim = np.concatenate([black[0], black[-1], black[:, 0], black[:, -1]])
        assert rim.mean() > 0.1 and (out[~black] <= photo[~black]).all(), seed


def test_borders_and_damage_follow_their_seed():
    photo = noise(96)
    for op, rest in (
        ("border", dict(kind="turned", share=0.1, level=1.0)),
        ("damage", dict(kind="hair", count=4, width=1.0, level=1.0, alpha=1.0)),
    ):
        a, b, again = (apply(photo, one(op, **rest, seed=seed)) for seed in (1, 2, 1))
        assert np.array_equal(a, again) and np.abs(a - b).mean() > 1e-3


@pytest.mark.parametrize("kind", ["scratches", "hair", "dust", "crease"])
def test_damage_lies_where_its_mask_says_light_or_dark(kind):
    photo = noise(128)
    mask = damage_mask(128, 128, kind, 6, 1.5, 4)[..., None]
    assert 0.0005 < mask.mean() < 0.2 and mask.max() > 0.9
    for level in (0.0, 1.0):
        step = dict(kind=kind, count=6, width=1.5, level=level, alpha=0.5, seed=4)
        expected = photo + 0.5 * mask * (level - photo)
        np.testing.assert_allclose(apply(photo, one("damage", **step)), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["scratches", "hair", "dust", "crease"])
def test_more_and_wider_damage_covers_more(kind):
    shares = [
        np.mean([damage_mask(128, 128, kind, count, width, seed).mean() for seed in range(8)])
        for count, width in ((2, 0.5), (2, 2.0), (12, 2.0))
    ]
    assert shares[0] * 1.5 < shares[1] and shares[1] * 2 < shares[2]


def test_a_crease_runs_from_side_to_side():
    mask = damage_mask(128, 128, "crease", 1, 1.5, 3) > 0.3
    touched = [mask[:3].any(), mask[-3:].any(), mask[:, :3].any(), mask[:, -3:].any()]
    assert sum(touched) >= 2


def test_the_truth_keeps_tone_and_borders_and_loses_the_rest():
    steps = [
        {"op": "grey"},
        {"op": "gaussian_noise", "sigma": 5, "seed": 1},
        {"op": "levels", "contrast": 0.3, "place": 0.5, "red": 1, "green": 1, "blue": 1},
        {"op": "border", "kind": "corners", "share": 0.05, "level": 0, "seed": 2},
        {"op": "jpeg", "quality": 60},
    ]
    assert data.tone(Recipe(tuple(steps))).ops == ("grey", "levels", "border")


# ---- how wide a recipe blurs


@pytest.mark.parametrize(
    "op,parameters,expected",
    [
        ("gaussian_blur", dict(sigma=3.0), 3.0),
        ("defocus", dict(radius=4.0), 2.0),
        ("anisotropic_blur", dict(sigma_x=3.0, sigma_y=4.0, angle=20), math.sqrt(12.5)),
        ("resize", dict(factor=5.0, down="area", up="linear"), math.sqrt(6)),
        ("jpeg", dict(quality=10), 0.0),
        ("chroma_blur", dict(sigma=5.0), 0.0),
    ],
)
def test_blur_scale_of_one_step(op, parameters, expected):
    assert blur_scale(one(op, **parameters)) == pytest.approx(expected, abs=1e-9)


def test_blur_scales_add_in_squares_and_inner_ones_count_by_the_factor():
    inner = [{"op": "gaussian_blur", "sigma": 1.0}, {"op": "jpeg", "quality": 50}]
    step = {"op": "resize", "factor": 4, "down": "area", "up": "cubic", "steps": inner}
    recipe = Recipe(({"op": "gaussian_blur", "sigma": 2.0}, step))
    assert blur_scale(recipe) == pytest.approx(math.sqrt(4 + 15 / 4 + 16))
    assert blur_scale(Recipe()) == 0


@pytest.mark.parametrize(
    "recipe",
    [
        one("gaussian_blur", sigma=2.5),
        one("defocus", radius=5.0),
        one("motion", length=12, angle=40, wobble=0, seed=1),
        one("resize", factor=4, down="area", up="linear"),
        one("resize", factor=3, down="area", up="linear",
            steps=[{"op": "gaussian_blur", "sigma": 1.0}]),
    ],
)  # fmt: skip
def test_blur_scale_is_the_width_of_a_blurred_point(recipe):
    """The mean over phases and over both axes of the variance of what a point becomes."""
    y, x = np.mgrid[:96, :96]
    variances = []
    for phase in range(12):
        photo = even(0.0, 96)
        photo[42 + phase, 40 + phase] = 1
        point = apply(photo, recipe)[..., 0].astype(np.float64)
        point /= point.sum()
        across, down = x - 40 - phase, y - 42 - phase
        variances += [(point * across**2).sum(), (point * down**2).sum()]
    assert blur_scale(recipe) == pytest.approx(math.sqrt(np.mean(variances)), rel=0.06)


def test_blur_scale_ranks_the_presets():
    means = [
        np.mean([blur_scale(draw(preset, rng)) for rng in map(np.random.default_rng, range(200))])
        for preset in ("mild", "medium", "severe", "heavy")
    ]
    assert means[0] < 1 < means[1] < 2.2 < means[2] < 3.5 < means[3] < 7


# ---- what "portrait" draws


@pytest.fixture(scope="module")
def portraits() -> list[Recipe]:
    rng = np.random.default_rng(11)
    return [draw("portrait", rng) for _ in range(4000)]


def near(count: int, share: float, of: int) -> bool:
    """Within four deviations of the binomial law."""
    return abs(count - share * of) < 4 * math.sqrt(of * share * (1 - share))


def test_portrait_draws_each_chain_by_its_share(portraits):
    for preset in PORTRAIT:
        count = sum(recipe.preset == preset for recipe in portraits)
        assert near(count, PORTRAIT[preset], len(portraits)), preset


def test_the_shares_of_portrait_are_whole_and_known():
    assert sum(PORTRAIT.values()) == pytest.approx(1)
    assert set(PORTRAIT) <= {*PRESETS, "clean"} and set(CHAINS) <= set(PORTRAIT)


def test_portrait_adds_halos_faded_ranges_and_borders_by_their_shares(portraits):
    others = [r for r in portraits if r.preset != "phone"]  # which has a mask of its own
    halos = sum("sinc" in r.ops or "unsharp" in r.ops for r in others)
    faded = sum("levels" in r.ops for r in portraits)
    borders = sum("border" in r.ops for r in portraits)
    assert near(halos, 0.30, len(others))
    assert near(faded, 0.10, len(portraits)) and near(borders, 0.08, len(portraits))
    assert [p for p, _ in EXTRAS] == [0.30, 0.10, 0.08]


def test_extras_come_before_the_last_jpeg(portraits):
    for recipe in portraits:
        if "border" in recipe.ops and "jpeg" in recipe.ops and recipe.preset in CHAINS:
            assert recipe.ops.index("border") < len(recipe.ops) - (recipe.ops[-1] == "jpeg")


MARKS = {  # what each chain has in every recipe
    "messenger": lambda r: (
        any(s["op"] == "jpeg" for step in r.steps for s in step.get("steps", ()))
        and r.ops[-1] == "jpeg"
        and {"shift_x", "shift_y"} <= r.steps[-1].keys()
    ),
    "double-jpeg": lambda r: r.ops.count("jpeg") == 2 and r.steps[-1]["shift_x"] >= 1,
    "phone": lambda r: "chroma_blur" in r.ops and {"bilateral", "median"} & set(r.ops),
    "film": lambda r: "film_grain" in r.ops,
    "halftone": lambda r: "halftone" in r.ops,
    "damage": lambda r: "damage" in r.ops,
    "heavy": lambda r: blur_scale(r) >= 2.9,
}


@pytest.mark.parametrize("chain", CHAINS)
def test_each_chain_is_what_it_is_called_and_is_never_shuffled(chain):
    for seed in range(60):
        recipe = draw(chain, np.random.default_rng(seed))
        assert recipe.preset == chain and MARKS[chain](recipe)
        assert draw(chain, np.random.default_rng(seed), order="shuffled") == recipe


def test_scale_leaves_the_inner_steps_of_a_chain_alone():
    for seed in range(40):
        whole, half = (draw("messenger", np.random.default_rng(seed), scale=s) for s in (1, 0.5))
        for a, b in zip(whole.steps, half.steps, strict=True):
            assert a.get("steps") == b.get("steps")
            if a["op"] == "resize":
                assert b["factor"] == pytest.approx(max(1, a["factor"] / 2), abs=1e-4)


def test_lengths_name_parameters_that_are_there():
    for op in LENGTHS:
        assert set(LENGTHS[op]) <= degrade.PARAMETERS[op].keys(), op


# ---- errors

JPEG = {"op": "jpeg", "quality": 50}
RESIZE = {"op": "resize", "factor": 2, "down": "area", "up": "cubic"}
BAD = {
    "another subsampling": (JPEG | {"subsampling": "4:1:1"}, "one of 4:2:0, 4:4:4, got '4:1:1'"),
    "a shift of a block": (JPEG | {"shift_x": 8}, "an integer from 0 to 7, got 8"),
    "a shift of a half": (JPEG | {"shift_y": 0.5}, "an integer from 0 to 7, got 0.5"),
    "another parameter": (JPEG | {"shift": 1}, r"takes exactly \(quality\) and, if wanted, "),
    "a name of two lines": (JPEG | {"a\nb": 1}, r"got \('quality', 'a\\nb'\)"),
    "steps elsewhere": (JPEG | {"steps": []}, "takes exactly"),
    "steps of text": (RESIZE | {"steps": "jpeg"}, "must be a list of steps"),
    "steps of nothing": (RESIZE | {"steps": None}, "must be a list of steps"),
    "an inner op": (RESIZE | {"steps": [{"op": "x"}]}, "inner step 1: unknown op 'x'"),
    "no inner op": (RESIZE | {"steps": [3]}, "inner step 1: unknown op None"),
    "an inner value": (RESIZE | {"steps": [JPEG, JPEG | {"quality": 1}]}, "inner step 2: jpeg's"),
    "steps in steps": (RESIZE | {"steps": [RESIZE | {"steps": []}]}, "none of them with steps"),
    "another grain": (
        {"op": "film_grain", "sigma": 3, "kind": "rough", "size": 1, "seed": 0},
        "one of fine, medium, coarse, got 'rough'",
    ),
    "half a scratch": (
        dict(op="damage", kind="hair", count=0.5, width=1, level=1, alpha=1, seed=0),
        "an integer from 0 to 200, got 0.5",
    ),
    "too large a border": (
        {"op": "border", "kind": "edges", "share": 0.9, "level": 1, "seed": 0},
        "from 0 to 0.5, got 0.9",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_step_is_told_in_one_line(fault):
    step, message = BAD[fault]
    with pytest.raises(ValueError, match=message) as e:
        Recipe(({"op": "grey"}, step))
    assert str(e.value).startswith("step 2: ") and "\n" not in str(e.value)


def test_inner_steps_are_copied_and_checked_again():
    inner = [{"op": "jpeg", "quality": 50}]
    recipe = Recipe((RESIZE | {"steps": inner},))
    inner[0]["quality"] = 900
    assert recipe.steps[0]["steps"][0]["quality"] == 50
    recipe.steps[0]["steps"][0]["quality"] = 900
    with pytest.raises(ValueError, match="got 900"):
        apply(noise(), recipe)


def test_a_tuple_of_inner_steps_is_the_list_that_json_gives():
    recipe = Recipe((RESIZE | {"steps": (JPEG,)},))
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_text_of_two_lines_is_refused_in_one():
    with pytest.raises(ValueError, match="a recipe must be") as e:
        Recipe.from_json('{"version": 1,\n"steps": 3}')
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("opening", ["[", '{"steps":', '{"steps":[{"op":"resize","steps":'])
def test_text_of_endless_depth_is_refused(opening):
    with pytest.raises(ValueError) as e:
        Recipe.from_json(opening * 100_000)
    assert "\n" not in str(e.value)
