"""The whole system: with identities in place of every net the picture comes back.

Sizes, masks, strengths and failures are as promised.
"""

import cv2
import numpy as np
import pytest
import torch
from pairwise import pairwise
from PIL import Image

import mtrestore as mt
from mtrestore import degrade, image, metrics, weights
from mtrestore.crop import Crop, landmark_crop
from mtrestore.face import faces_from
from mtrestore.pipeline import MOST_FACE, Restorer, detail_size, identity, keep_large, restore
from mtrestore.result import Watch
from mtrestore.tile import NoMemory, sparingly

IDENTITY = {
    "face": identity,
    "restorer": identity,
    "upsampler": keep_large,
    "sharpener": identity,
    "landmarks": False,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def shipped():
    """The restorer with the shipped weights, loaded once."""
    return Restorer(device="cpu")


@pytest.fixture
def faces(astronaut):
    return faces_from([(181, 60, 267, 178)])


@pytest.mark.parametrize(
    "scale, crop, roll", pairwise([1, 1.5, 2, 4], ["landmark", "eye"], [0, 20])
)
def test_identity_nets_give_the_picture_back(astronaut, scale, crop, roll):
    five = np.array([[201, 100], [247, 103], [228, 125], [208, 142], [243, 144]], float)
    turn = np.deg2rad(roll)
    five = (five - five.mean(0)) @ np.array(
        [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    ) + five.mean(0)
    result = Restorer(**IDENTITY, scale=scale, crop=crop)(astronaut, faces_from([five]))
    expected = image.enlarge(astronaut, scale)
    inside = result.mask > 0
    assert [f.status for f in result.faces] == ["restored"]
    error = np.mean((result.image[inside] - expected[inside]) ** 2)
    assert -10 * np.log10(error) >= 48
    assert np.array_equal(result.image[result.mask == 0], result.steps["whole"][result.mask == 0])


@pytest.mark.parametrize("scale", [1, 1.5, 2])
def test_outside_the_mask_faces_change_nothing(shipped, astronaut, faces, scale):
    worn = degrade.apply(astronaut, degrade.draw("medium", np.random.default_rng(1)))
    with_faces = Restorer(device="cpu", scale=scale)(worn, faces)
    without = Restorer(device="cpu", scale=scale, faces=False)(worn)
    outside = with_faces.mask == 0
    assert 0.3 < outside.mean() < 1
    assert np.array_equal(with_faces.image[outside], without.image[outside])
    assert not np.array_equal(with_faces.image[~outside], without.image[~outside])


@pytest.mark.parametrize("scale", [1, 1.5, 2, 3])
def test_any_size_and_exact_output_size(scale):
    restorer = Restorer(device="cpu", scale=scale)
    for height, width in [(1, 1), (1, 9), (7, 1), (3, 5), (31, 33), (65, 40)]:
        out = restorer(np.random.default_rng(0).random((height, width, 3), np.float32)).image
        assert out.shape == (max(1, round(height * scale)), max(1, round(width * scale)), 3)
        assert out.dtype == np.float32 and np.isfinite(out).all(), (height, width)
        assert 0 <= out.min() and out.max() <= 1, (height, width)


@pytest.mark.parametrize("scale", [0.5, 1.7, 2.5])
def test_rounded_sizes(astronaut, scale):
    photo = astronaut[:101, :67]
    assert Restorer(**IDENTITY, scale=scale)(photo).image.shape == (
        round(101 * scale),
        round(67 * scale),
        3,
    )


def test_strength_zero_is_the_photo_branch(astronaut, faces):
    zero = Restorer(device="cpu", face_strength=0)(astronaut, faces)
    none = Restorer(device="cpu", faces=False)(astronaut)
    assert np.array_equal(zero.image, none.image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("working_size", [128, 640])
def test_photo_strength_mixes_the_photo_with_its_restoration(astronaut, dtype, working_size):
    photo = image.as_samples(
        np.clip(
            astronaut[:300, :400] + np.random.default_rng(0).normal(0, 0.08, (300, 400, 3)), 0, 1
        ),
        dtype,
    )
    none, half, full = (
        Restorer(
            device="cpu",
            faces=False,
            sharpener=identity,
            working_size=working_size,
            photo_strength=s,
        )(photo)
        for s in (0, 0.5, 1)
    )
    assert np.array_equal(none.samples, photo) and half.samples.dtype == dtype
    assert np.abs(full.image - none.image).mean() > 0.02
    assert np.abs(half.image - (none.image + full.image) / 2).max() <= 1 / 255


def test_strength_lies_between(astronaut, faces):
    worn = degrade.apply(astronaut, degrade.draw("severe", np.random.default_rng(2)))
    zero, half, one = (
        Restorer(device="cpu", sharpener=identity, face_strength=s)(worn, faces).image
        for s in (0, 0.5, 1)
    )
    assert np.allclose(half, (zero + one) / 2, atol=1e-5)


def test_the_branches_run_at_the_same_time(astronaut, faces):
    import threading

    both = threading.Barrier(2, timeout=30)  # passes only when both nets are inside at once

    def waits(x):
        both.wait()
        return x

    result = Restorer(**{**IDENTITY, "face": waits, "restorer": waits})(astronaut, faces)
    assert result.faces[0].status == "restored"
    assert result.timings["faces"] + result.timings["restore"] > 0


def test_every_step_is_kept(astronaut, faces):
    result = Restorer(**IDENTITY)(astronaut, faces)
    assert list(result.steps) == [
        "photo",
        "small",
        "clean",
        "large",
        "whole",
        "pasted",
        "out",
        "face 0",
        "face 0 restored",
    ]
    assert set(result.timings) >= {
        "detect",
        "faces",
        "shrink",
        "restore",
        "upsample",
        "paste",
        "sharpen",
        "total",
    }
    assert set(Restorer(**IDENTITY, keep_steps=False)(astronaut, faces).steps) == {"out"}


@pytest.mark.parametrize(
    "bad, status",
    [
        (lambda x: x * torch.nan, "finite"),
        (lambda x: x[..., 1:], "shape"),
        (lambda x: 1 / 0, "division"),
    ],
)
def test_a_face_that_fails_is_a_status_and_leaves_the_photo(astronaut, faces, bad, status):
    result = Restorer(**{**IDENTITY, "face": bad})(astronaut, faces)
    assert result.faces[0].status.startswith("failed: ") and status in result.faces[0].status
    assert np.array_equal(result.image, astronaut)


def test_a_photo_net_that_fails_is_an_error(astronaut):
    with pytest.raises(FloatingPointError, match="finite"):
        Restorer(**{**IDENTITY, "restorer": lambda x: x / 0})(astronaut)


def test_too_small_a_face_is_a_status(astronaut):
    result = Restorer(**IDENTITY)(astronaut, faces_from([(100, 100, 108, 110)]))
    assert result.faces[0].status == "too_small"
    assert np.array_equal(result.image, astronaut)


def laplacian(photo):
    return float((cv2.Laplacian(photo.mean(-1), cv2.CV_32F) ** 2).mean())


def face_sharpness(photo, face):
    """Laplacian energy of the restored face over the photo's, inside the crop."""
    crop = landmark_crop(face)
    result = Restorer(device="cpu")(photo, [face])
    assert [f.status for f in result.faces] == ["restored"] and crop.side > 1.3 * MOST_FACE
    inner = Crop.at(crop.centre, crop.side * 0.7, crop.roll, round(crop.side * 0.7))
    return laplacian(inner.cut(result.image)) / laplacian(inner.cut(photo))


def test_a_clean_face_larger_than_the_net_stays_sharp(astronaut):
    """A clean face of over 800 px, far over the net's 512, comes back no blurrier than it was."""
    photo = image.enlarge(astronaut[30:230, 124:324], 8)
    face = faces_from([tuple((np.array([181 - 124, 60 - 30, 267 - 124, 178 - 30]) * 8).tolist())])[
        0
    ]
    assert max(face.box[2] - face.box[0], face.box[3] - face.box[1]) > 800
    assert face_sharpness(photo, face) >= 1


@pytest.mark.parametrize("name", ["london_005_neu", "london_029_neu", "london_172_smi"])
def test_real_large_faces_stay_sharp(shared, name):
    folder = shared / "data" / "dev_eval" / "faces_clean"
    with np.load(folder / "mesh468.npz") as labels:
        points = labels["points"][labels["names"].tolist().index(f"{name}.jpg")].astype(np.float64)
    assert face_sharpness(image.read(folder / f"{name}.jpg"), faces_from([points])[0]) >= 1


@pytest.mark.parametrize(
    "sigma, least, most", [(0, 384, 384), (3, 128, 384), (9, 128, 192), (40, 128, 128)]
)
def test_a_blurred_face_needs_a_smaller_size(face_photo, sigma, least, most):
    face = image.resize(face_photo, (384, 384)) + np.random.default_rng(0).normal(
        0, 0.01, (384, 384, 1)
    ).astype(np.float32)
    blurred = cv2.GaussianBlur(face, (0, 0), sigma) if sigma else face
    assert least <= detail_size(blurred) <= most
    assert detail_size(blurred[:96, :96]) == 96


def test_grey_stays_grey(astronaut, faces):
    grey = np.repeat(astronaut.mean(-1, keepdims=True), 3, -1)
    for photo in (grey, (grey[..., 0] * 255).astype(np.uint8)):
        out = restore(photo, boxes=[(181, 60, 267, 178)], device="cpu").image
        assert np.ptp(out, axis=-1).max() < 1e-6


@pytest.mark.parametrize("src", ["path", "pil", "uint8", "uint16", "float", "grey", "rgba"])
def test_what_restore_takes(tmp_path, astronaut, src):
    small = astronaut[::4, ::4]
    u8 = np.rint(small * 255).astype(np.uint8)
    Image.fromarray(u8).save(tmp_path / "a.png")
    given = {
        "path": tmp_path / "a.png",
        "pil": Image.fromarray(u8),
        "uint8": u8,
        "uint16": u8.astype(np.uint16) * 257,
        "float": small,
        "grey": u8[..., 0],
        "rgba": np.dstack([u8, np.full(u8.shape[:2], 128, np.uint8)]),
    }[src]
    result = restore(given, faces=False, **IDENTITY)
    expected = np.repeat(u8[..., :1], 3, -1) if src == "grey" else u8
    assert np.allclose(result.image * 255, expected, atol=0.51)


def test_alpha_and_depth_survive_saving(tmp_path, astronaut):
    deep = (astronaut[::8, ::8] * 65535).astype(np.uint16)
    result = restore(deep, faces=False, scale=2, **IDENTITY)
    again = mt.load(result.save(tmp_path / "deep.png"))
    assert again.bits == 16 and again.pixels.shape == (128, 128, 3)
    rgba = np.dstack([deep // 257, np.full(deep.shape[:2], 77)]).astype(np.uint8)
    again = mt.load(restore(rgba, faces=False, scale=2, **IDENTITY).save(tmp_path / "alpha.png"))
    assert again.alpha.shape == (128, 128) and np.allclose(again.alpha * 255, 77, atol=0.6)


def test_memory_changes_tiles_not_the_result(astronaut):
    photo = image.enlarge(astronaut, 1.6)
    roomy = Restorer(device="cpu", faces=False)(photo).image
    tight = Restorer(device="cpu", faces=False, memory_mb=64)(photo).image
    assert np.abs(roomy - tight).max() < 1e-5


def test_strips_are_exact(astronaut):
    net = weights.load("upsampler")
    r = Restorer(device="cpu", faces=False, sharpener=identity)
    large = image.enlarge(astronaut, 1.3)
    small = image.shrink(large, 320)
    with torch.inference_mode():
        whole = image.to_photo(
            net(image.to_tensor(small), image.to_tensor(small * 0.9), image.to_tensor(large))
        )
        assert np.abs(r._upsample(small, small * 0.9, large) - whole).max() < 1e-5


@pytest.mark.parametrize(
    "options, words",
    [
        ({"scale": 0}, "scale"),
        ({"scale": 99}, "scale"),
        ({"face_strength": 1.5}, "face_strength"),
        ({"working_size": 3}, "working_size"),
        ({"crop": "nose"}, "crop"),
        ({"memory_mb": 1}, "memory_mb"),
        ({"face": 3}, "face"),
    ],
)
def test_bad_options_say_what_was_expected(options, words):
    with pytest.raises(ValueError, match=words):
        Restorer(**{**IDENTITY, **options})


def test_no_gpu_is_said():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="no GPU"):
        Restorer(**{**IDENTITY, "device": "cuda"})


def test_without_weights_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    with pytest.raises(weights.WeightsError, match="no weights called 'restorer'.*mtrestore train"):
        Restorer(device="cpu")


def test_an_onnx_file_stands_in_for_a_net(tmp_path, astronaut):
    import onnx

    node = onnx.helper.make_node("Mul", ["x", "half"], ["y"])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [value("x", 1, [1, 3, None, None])],
        [value("y", 1, [1, 3, None, None])],
        [onnx.helper.make_tensor("half", 1, [1], [0.5])],
    )
    onnx.save(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9
        ),
        tmp_path / "half.onnx",
    )
    result = Restorer(**IDENTITY | {"restorer": tmp_path / "half.onnx"}, faces=False)(astronaut)
    assert np.allclose(result.image, astronaut / 2, atol=1e-6)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07" * 50])
def test_a_broken_onnx_file_is_one_error(tmp_path, content):
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(weights.WeightsError):
        Restorer(**{**IDENTITY, "restorer": tmp_path / "net.onnx"})


def test_restoring_helps(shipped, astronaut):
    """A noisy, over-compressed portrait comes back nearer to the truth, face and whole."""
    steps = {"op": "gaussian_noise", "sigma": 20.0, "seed": 4}, {"op": "jpeg", "quality": 40}
    worn = degrade.apply(astronaut, degrade.Recipe(steps))
    result = shipped(worn)
    assert [f.status for f in result.faces] == ["restored"]
    crop = result.crops[0].resized(192)
    assert metrics.psnr(result.image, astronaut) > metrics.psnr(worn, astronaut) + 1
    faithful = Restorer(device="cpu", face_fidelity=1)(worn)
    before, living, near = (
        metrics.psnr(crop.cut(p), crop.cut(astronaut)) for p in (worn, result.image, faithful.image)
    )
    assert living > before + 0.3, "texture that is likely, not true, costs some of the gain"
    assert near > before + 1
    assert metrics.sharpness(crop.cut(result.image), crop.cut(astronaut)) > metrics.sharpness(
        crop.cut(faithful.image), crop.cut(astronaut)
    )


def test_fidelity_mixes_two_nets(astronaut, faces):
    worn = degrade.apply(astronaut, degrade.draw("medium", np.random.default_rng(2)))
    zero, half, one = (
        Restorer(device="cpu", sharpener=identity, face_fidelity=s)(worn, faces).steps[
            "face 0 restored"
        ]
        for s in (0, 0.5, 1)
    )
    assert np.abs(zero - one).max() > 0.02
    assert np.abs(half - (zero + one) / 2).mean() < 1e-3, "equal where nothing is clipped"


def test_a_much_blurred_face_gets_the_fidelity_only_net_and_a_noisy_one_both(
    shipped, astronaut, faces
):
    blurred = cv2.GaussianBlur(image.enlarge(astronaut, 2), (0, 0), 9)
    twice = faces_from([tuple(2 * v for v in (181, 60, 267, 178))])
    by_itself, asked, living = (
        r(blurred, twice).steps["face 0 restored"]
        for r in (shipped, *(Restorer(device="cpu", face_fidelity=s) for s in (1, 0)))
    )
    assert np.array_equal(by_itself, asked) and not np.array_equal(by_itself, living)
    noisy = astronaut + np.random.default_rng(0).normal(0, 0.08, astronaut.shape)
    noisy = np.clip(noisy, 0, 1).astype(np.float32)
    mixture, true, living = (
        r(noisy, faces).steps["face 0 restored"]
        for r in (shipped, *(Restorer(device="cpu", face_fidelity=s) for s in (1, 0)))
    )
    between = np.abs(mixture - true).mean(), np.abs(living - mixture).mean()
    assert min(between) > 0 and sum(between) < 1.1 * np.abs(living - true).mean()


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_fidelity_lies_in_its_range(value):
    with pytest.raises(ValueError, match="face_fidelity must lie in 0..1"):
        Restorer(device="cpu", face_fidelity=value)


def test_compare_is_a_page(tmp_path, astronaut):
    result = Restorer(**IDENTITY, scale=1.5)(astronaut[::4, ::4])
    assert "<img" in result.compare()._repr_html_()
    assert result.compare().save(tmp_path / "c.html").stat().st_size > 1000


def test_a_result_is_never_saved_over_its_photo(tmp_path, face_photo):
    path = mt.image.write(tmp_path / "x.png", face_photo)
    (tmp_path / "link.png").symlink_to(path)
    before, result = path.read_bytes(), restore(path, faces=False, **IDENTITY)
    for name in (path, tmp_path / "link.png", tmp_path / "y" / ".." / "x.png"):
        with pytest.raises(mt.ImageError, match="is an input"):
            result.save(name)
    assert path.read_bytes() == before and result.save(tmp_path / "y.png") == result.save(
        tmp_path / "y.png"
    )


def test_the_watch_notes_steps_and_names_the_one_without_memory():
    with Watch(False) as watch:
        assert watch("enlarge", lambda a, b: a + b, 1, 2) == 3
        first = watch.spans["enlarge"]
        watch("shrink", list)
        watch("enlarge", list)
        assert watch.spans["enlarge"][0] == first[0] and watch.spans["enlarge"][1] > first[1]
        with pytest.raises(NoMemory, match="out of memory in the step 'paste'; close other"):
            watch("paste", np.empty, 2**50)
        with pytest.raises(NoMemory, match="out of memory in the sharpener, also on smaller"):
            watch("sharpen", sparingly, lambda _: np.empty(2**50), "the sharpener")
        with pytest.raises(ZeroDivisionError):
            watch("restore", lambda: 1 / 0)
    assert list(watch.total()) == ["enlarge", "shrink", "total"]
    assert all(0 <= began <= ended for began, ended in watch.total().values())
