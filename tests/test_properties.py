"""Claims that hold for anything one can think of: places of crops, recipes of damage, names of
files. Hypothesis does the thinking.
"""

import json
import math
import os

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mtrestore import degrade, image
from mtrestore.crop import Crop, landmark_crop, paste
from mtrestore.image import ImageError
from mtrestore.io import files
from mtrestore.io.text import one_line, shown

MESS = settings(max_examples=60, deadline=None)
PIXELS = np.random.default_rng(0).random((24, 31, 3)).astype(np.float32)
number = st.floats(allow_nan=True, allow_infinity=True, width=64)
place = st.floats(-60, 90)


# ---- crops ---------------------------------------------------------------------------------------


@given(place, place, st.floats(1, 80), st.floats(-math.pi, math.pi), st.integers(1, 64))
@MESS
def test_a_crop_anywhere_is_cut_and_leaves_what_it_does_not_cover(x, y, side, roll, size):
    crop = Crop.at((x, y), side, roll, size)
    cut, mask = crop.cut(PIXELS), crop.mask(PIXELS.shape)
    assert (
        cut.shape == (size, size, 3)
        and np.isfinite(cut).all()
        and cut.min() >= 0
        and cut.max() <= 1
    )
    assert mask.shape == (24, 31) and mask.min() >= 0 and mask.max() <= 1
    out = paste(PIXELS, [np.ones((size, size, 3), np.float32)], [crop], match=False)
    assert (
        np.array_equal(out[mask == 0], PIXELS[mask == 0])
        and np.isfinite(out).all()
        and out.min() >= 0
        and out.max() <= 1
    )
    assert (out[mask > 0] >= PIXELS[mask > 0] - 1e-6).all(), "a white face only makes lighter"


@given(
    place,
    place,
    st.floats(1, 80),
    st.floats(-math.pi, math.pi),
    st.integers(1, 64),
    st.floats(0.1, 8),
    st.integers(1, 512),
)
@MESS
def test_a_crop_of_another_size_or_scale_is_the_same_place(x, y, side, roll, size, k, other):
    crop = Crop.at((x, y), side, roll, size)
    np.testing.assert_allclose(crop.resized(other).corners(), crop.corners(), atol=1e-6)
    np.testing.assert_allclose(
        crop.scaled(k).corners(), crop.corners() * k + (k - 1) / 2, atol=1e-5
    )
    np.testing.assert_allclose(crop.scaled(k).scaled(1 / k).corners(), crop.corners(), atol=1e-5)


FACE = np.array([[201, 100], [247, 103], [224, 120], [205, 143], [243, 145]], float)


@given(place, place, st.floats(0.05, 20), st.floats(-math.pi, math.pi))
@MESS
def test_a_face_that_is_moved_turned_and_scaled_is_cut_the_same(x, y, k, turn):
    """The crop of a moved face is the moved crop: corners go where the landmarks go."""
    middle, c, s = FACE.mean(0), math.cos(turn), math.sin(turn)
    move = lambda points: (points - middle) @ np.array([[c, s], [-s, c]]) * k + [x, y]
    try:
        moved = landmark_crop(move(FACE), 64)
    except ValueError:
        assert math.dist(*move(FACE)[:2]) < 1e-2
        return
    np.testing.assert_allclose(
        moved.corners(), move(landmark_crop(FACE, 64).corners()), atol=2e-3 * max(1, k) * 60
    )


@given(st.lists(st.lists(number, min_size=2, max_size=2), min_size=0, max_size=8))
@MESS
def test_landmarks_are_a_crop_or_a_value_error(points):
    try:
        crop = landmark_crop(np.array(points, float).reshape(-1, 2), 64)
    except ValueError as e:
        assert len(str(e)) < 300
    else:
        assert np.isfinite(crop.matrix).all() and crop.side > 0


@given(st.lists(number, min_size=6, max_size=6), st.one_of(st.integers(-5, 5), number))
@MESS
def test_a_matrix_is_a_crop_or_a_value_error(values, size):
    assume(not (isinstance(size, float) and (math.isnan(size) or math.isinf(size))))
    try:
        crop = Crop(np.array(values).reshape(2, 3), size)
    except ValueError:
        return
    assert crop.side > 0 and crop.size == size >= 1


# ---- recipes -------------------------------------------------------------------------------------


def steps() -> st.SearchStrategy:
    """One step with every parameter inside its limits."""

    def value(key, limits):
        if isinstance(limits[0], str):
            return st.sampled_from(limits)
        return st.integers(*limits) if key in degrade.INTEGERS else st.floats(*limits)

    return st.sampled_from(sorted(degrade.OPS)).flatmap(
        lambda op: st.fixed_dictionaries(
            {
                "op": st.just(op),
                **{key: value(key, limits) for key, limits in degrade.PARAMETERS[op].items()},
            }
        )
    )


@given(st.lists(steps(), max_size=3).map(lambda s: degrade.Recipe(tuple(s))))
@settings(max_examples=40, deadline=None)
def test_any_recipe_goes_through_json_and_replays(recipe):
    again = degrade.Recipe.from_json(recipe.to_json())
    assert again == recipe and again.to_json() == recipe.to_json()
    kept = PIXELS.copy()
    out = degrade.apply(PIXELS, recipe)
    assert (
        out.shape == PIXELS.shape
        and out.dtype == np.float32
        and np.isfinite(out).all()
        and out.min() >= 0
        and out.max() <= 1
    )
    assert np.array_equal(out, degrade.apply(PIXELS, again)) and np.array_equal(PIXELS, kept)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | number | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.one_of(
        st.text(),
        values.map(json.dumps),
        st.fixed_dictionaries({"steps": values, "version": values, "preset": values}).map(
            json.dumps
        ),
        st.lists(
            st.fixed_dictionaries(
                {"op": st.sampled_from(sorted(degrade.OPS))},
                optional={"sigma": values, "seed": values, "quality": values},
            ),
            max_size=3,
        ).map(lambda s: json.dumps({"version": 1, "preset": "x", "steps": s})),
    )
)
@MESS
def test_any_text_is_a_recipe_or_a_value_error(text):
    try:
        recipe = degrade.Recipe.from_json(text)
    except ValueError as e:
        assert str(e)
    else:
        degrade.apply(PIXELS, recipe)


# ---- names ---------------------------------------------------------------------------------------

names = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zs", "Mn"]), max_size=12),
    st.binary(max_size=60),
    st.sampled_from(
        [
            "",
            ".",
            "..",
            "/",
            "a/b",
            "a\0b",
            "~",
            "-",
            "--help",
            "con",
            "x" * 251,
            "é" * 126,
            "*",
            "$HOME",
            "a\nb",
            "a/../b",
            "\\",
        ]
    ),
)


@given(names, st.sampled_from([".png", ".jpg", ".tif", ""]))
@settings(max_examples=80, deadline=None)
def test_any_name_is_written_and_read_back_or_refused_with_a_code(tmp_path_factory, name, suffix):
    """str or bytes; nothing else in the folder is touched, and no temporary file stays."""
    folder = tmp_path_factory.mktemp("names")
    kind = os.fsencode if isinstance(name, bytes) else str
    assume(not name.startswith(kind("/")) and kind("..") not in name)  # stay below the folder
    place = os.path.join(kind(folder) if kind is str else os.fsencode(folder), name + kind(suffix))
    try:
        path = image.write(place, PIXELS)
    except ImageError as e:
        assert e.code in ("E_NAME", "E_WRITE", "E_FORMAT", "E_NOT_A_FILE") and str(e).isprintable()
        assert not os.listdir(folder)
    else:
        assert image.load(place).path == path and image.load(place).pixels.shape == PIXELS.shape
        assert [os.fsencode(n) for n in os.listdir(folder)] == [
            os.path.basename(os.fsencode(place))
        ]


@given(names)
@MESS
def test_any_name_that_is_not_there_is_refused_with_a_code(name):
    with pytest.raises(ImageError) as caught:
        files.read_bytes(name)
    assert (
        caught.value.code in ("E_MISSING", "E_NAME", "E_NOT_A_FILE", "E_PERMISSION")
        and str(caught.value).isprintable()
    )


@given(st.one_of(st.text(), st.text(st.characters(categories=["Cs", "Cc", "Cf", "Co", "Zl"]))))
@MESS
def test_any_words_become_one_printable_line(text):
    assert shown(text).isprintable() and shown(shown(text)) == shown(text)
    assert shown(one_line(ValueError(text))).isprintable() and one_line(ValueError(text))
    assert ImageError("E_NAME", text).args[1].isprintable()
