"""What the batches promise: each is a function of (seed, step) alone, pictures and truths show the
same place, labels lie on the face.

The data is made up in a temporary folder: a portrait that scikit-image brings, two smaller copies
of it, and a mesh of 468 points that is symmetrical by construction, so that the mirrored place of
each point is known.
"""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mtrestore import degrade, image
from mtrestore.crop import Crop, five_from_mesh
from mtrestore.degrade import Recipe
from mtrestore.training import batches as data

PAIRS = [
    (33, 263),
    (133, 362),
    (61, 291),
]  # eye corners and mouth corners of the mesh, viewer's left and right
MIDDLE = [1, 10, 152]  # nose tip, forehead, chin
FIVE = {
    33: (-0.26, -0.18),
    133: (-0.12, -0.18),
    61: (-0.15, 0.24),
    1: (0, 0.07),
    10: (0, -0.5),
    152: (0, 0.5),
}


def mesh() -> tuple[np.ndarray, np.ndarray]:
    """(468, 2) points in face heights about the face's middle, mirror images of each other, and
    each point's mirrored number.
    """
    rng = np.random.default_rng(5)
    rest = [i for i in range(468) if i not in (*MIDDLE, *sum(PAIRS, ()))]
    pairs, middle = [*PAIRS, *zip(rest[::2], rest[1::2], strict=False)], [*MIDDLE, rest[-1]]
    points, mirror = np.empty((468, 2)), np.arange(468)
    for a, b in pairs:
        radius, angle = 0.48 * rng.uniform(0.1, 1) ** 0.5, rng.uniform(-1.4, 1.4)
        points[a] = FIVE.get(a, (-0.05 - 0.7 * radius * np.cos(angle), radius * np.sin(angle)))
        points[b], mirror[a], mirror[b] = points[a] * (-1, 1), b, a
    points[middle] = [FIVE.get(i, (0, 0.3)) for i in middle]
    return points, mirror


def make_faces(folder: Path, photo: np.ndarray) -> Path:
    """`train_faces` with three labelled sizes of the 512×512 portrait and one picture without
    labels.
    """
    (folder / "tiny").mkdir(parents=True)
    names, points = [], []
    for size in (512, 384, 320):
        names.append(f"tiny/face_{size}.jpg")
        image.write(folder / names[-1], image.shrink(photo, size))
        points.append((mesh()[0] * 125 + (223, 118) + 0.5) * size / 512 - 0.5)
    image.write(folder / "tiny/unlabelled.jpg", photo[:64, :64])
    (folder / "manifest.csv").write_text(
        "\n".join(["file,licence", *(f"{n},free" for n in [*names, "tiny/unlabelled.jpg"])]) + "\n"
    )
    np.savez(folder / "mesh468.npz", names=np.array(names), points=np.float16(points))
    return folder


def make_photos(folder: Path, photo: np.ndarray) -> Path:
    """`train_photos` with two photographs and a real pair whose noisy half is the clean one made
    darker.
    """
    (folder / "some").mkdir(parents=True)
    (folder / "polyu_pairs").mkdir()
    image.write(folder / "some/a.png", photo[:256, 200:500])
    image.write(folder / "some/b.png", photo[300:500, :180])
    image.write(folder / "polyu_pairs/c_mean.JPG", photo[256:, 256:], quality=100)
    image.write(folder / "polyu_pairs/c_real.JPG", photo[256:, 256:] * 0.5, quality=100)
    (folder / "manifest.csv").write_text(
        "file\nsome/a.png\nsome/b.png\npolyu_pairs/c_mean.JPG\npolyu_pairs/c_real.JPG\n"
    )
    return folder


def make_root(root: Path, photo: np.ndarray) -> Path:
    """A data folder with both sets."""
    make_faces(root / "train_faces", photo)
    make_photos(root / "train_photos", photo)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory, _astronaut) -> Path:
    return make_root(tmp_path_factory.mktemp("data"), _astronaut)


@pytest.fixture(scope="module")
def photos(root) -> data.Photos:
    return data.Photos(root / "train_photos")


def half(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5


BATCHES = {
    "face": lambda root, seed=0: data.FaceBatches(
        root / "train_faces", sizes=(32, 64), batch=4, seed=seed
    ),
    "face enlarged": lambda root, seed=0: data.FaceBatches(
        root / "train_faces", sizes=(64,), batch=4, seed=seed, enlarged=0.5
    ),
    "face portrait": lambda root, seed=0: data.FaceBatches(
        root / "train_faces", sizes=(64,), batch=4, seed=seed, preset="portrait"
    ),
    "embedding": lambda root, seed=0: data.PersonBatches(root / "train_faces", batch=2, seed=seed),
    "landmarks": lambda root, seed=0: data.LandmarkBatches(
        root / "train_faces", batch=2, seed=seed
    ),
    "photo": lambda root, seed=0: data.PhotoBatches(
        data.Photos(root / "train_photos"), size=32, batch=4, seed=seed
    ),
    "upsampler": lambda root, seed=0: data.UpsamplerBatches(
        data.Photos(root / "train_photos"), half, small=16, most=96, seed=seed
    ),
    "sharpener": lambda root, seed=0: data.SharpenerBatches(
        data.Photos(root / "train_photos"), size=32, batch=4, seed=seed
    ),
    "sharpener x2": lambda root, seed=0: data.SharpenerBatches(
        data.Photos(root / "train_photos"), scale=2, size=32, batch=4, seed=seed
    ),
}


def tensors(batch: data.Batch) -> list[torch.Tensor]:
    return [*batch["inputs"], batch["target"]]


def same(a: data.Batch, b: data.Batch) -> bool:
    return all(
        x.shape == y.shape and torch.equal(x, y)
        for x, y in zip(tensors(a), tensors(b), strict=True)
    )


def always(monkeypatch, *steps: dict) -> None:
    """Let every recipe that is drawn be this one."""
    monkeypatch.setattr(degrade, "draw", lambda *_, **__: Recipe(steps))


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * float(((a - b) ** 2).mean().clamp_min(1e-12).log10())


# ---- every kind of batch -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BATCHES)
def test_a_batch_is_a_function_of_seed_and_step(root, kind):
    one, two = BATCHES[kind](root), BATCHES[kind](root)
    forward = [one(n) for n in (0, 1, 2)]
    backward = [two(n) for n in (2, 1, 0)][::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))


@pytest.mark.parametrize("kind", BATCHES)
def test_another_step_and_another_seed_give_another_batch(root, kind):
    one, two = BATCHES[kind](root), BATCHES[kind](root, seed=1)
    assert not same(one(0), one(1)) and not same(one(0), two(0))


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_are_float32_in_range(root, kind):
    make, edge = (
        BATCHES[kind](root),
        0.25 if kind == "landmarks" else 0,
    )  # a jittered face may leave its crop
    for n in range(3):
        for t in tensors(make(n))[: 1 if kind == "embedding" else None]:  # its target counts people
            assert t.dtype == torch.float32 and t.is_contiguous() and torch.isfinite(t).all()
            assert -edge <= t.min() and t.max() <= 1 + edge


# ---- faces ---------------------------------------------------------------------------------------


def test_face_batches_keep_the_pixels_of_a_step_about_the_same(root):
    make = data.FaceBatches(root / "train_faces", sizes=(32, 64), batch=8)
    shapes = {tuple(t.shape) for n in range(8) for t in tensors(make(n))}
    assert shapes == {(8, 3, 32, 32), (2, 3, 64, 64)}


def test_faces_too_small_to_teach_detail_are_left_out(root):
    sides = [len(face) for face in data.FaceBatches(root / "train_faces", sizes=(160,)).faces]
    assert len(data.FaceBatches(root / "train_faces", sizes=(64,)).faces) == 3 > len(sides) >= 1


def row(file: str, **more: object) -> dict[str, str]:
    return {"file": file, **{key: str(value) for key, value in more.items()}}


@pytest.mark.parametrize(("described", "side", "truth"), [
    (row("omi512/a.jpg", width=512, native_side=""), 400, 400),
    (row("london512/a.jpg", width=512, native_side=790), 400, 400),
    (row("uscongress/a.jpg", width=300, native_side=150), 240, 120),  # enlarged to twice its size
    (row("civil512/a.jpg", width=512, native_side=745), 400, 200),
    (row("ukmp/a.jpg", width=154, native_side=154), 140, 128),
    (row("bw_portraits/a.jpg", width=384, native_side=384), 300, 128),
    (row("sfhq_t2i/a.jpg", width=384, native_side=347), 330, 256),
])  # fmt: skip
def test_a_face_is_a_truth_only_at_sizes_that_it_bears(described, side, truth):
    assert data.truth_side(described, side) == pytest.approx(truth)


def test_real_and_generated_faces_come_equally_often(root):
    batches = data.FaceBatches([root / "train_faces"], sizes=(32,), batch=4, even=True)
    real, generated = np.array([True, False, False]), np.array([False, True, True])
    pools = batches._pools(np.array([True, True, True]), real, True)
    assert [p.tolist() for p in pools] == [[0], [1, 2]] and not (real & generated).any()
    assert [p.tolist() for p in batches._pools(np.array([True, False, True]), real, False)] == [
        [0, 2]
    ]


def test_labels_lie_on_the_face_and_blurs_are_the_recipes(root, monkeypatch):
    always(monkeypatch, {"op": "gaussian_blur", "sigma": 3.0})
    batches = data.FaceBatches(root / "train_faces", sizes=(64,), batch=6, labels=True, loose=0.0)
    batch = batches(0)
    assert batch["points"].shape == (6, 468, 2) and batch["blur"].tolist() == [3.0] * 6
    mirrored = batch["points"][:, batches.mirror] * torch.tensor([-1.0, 1]) + torch.tensor([1.0, 0])
    spread = (batch["points"] - batch["points"][:1]).abs().amax((1, 2))
    other = (mirrored - batch["points"][:1]).abs().amax((1, 2))
    assert torch.minimum(spread, other).max() < 0.03, "every face is the same one, mirrored or not"


def test_several_folders_are_one_set(root):
    once, twice = (data.FaceBatches([root / "train_faces"] * n, sizes=(32,)) for n in (1, 2))
    assert len(twice.faces) == 2 * len(once.faces)


def test_no_face_sharp_enough_is_an_error_that_says_what_to_do(root):
    with pytest.raises(
        ValueError,
        match="no labelled face in .* is sharp enough for 512 px; lower sharpness or the size",
    ):
        data.FaceBatches(root / "train_faces", sizes=(512,))


def test_a_clean_recipe_gives_the_truth_itself(root):
    batch = data.FaceBatches(root / "train_faces", sizes=(64,), batch=4, preset="clean")(0)
    assert torch.equal(*tensors(batch))


def test_degraded_face_and_truth_show_the_same_place(root, monkeypatch):
    always(monkeypatch, {"op": "gaussian_blur", "sigma": 1.0})
    poor, truth = tensors(data.FaceBatches(root / "train_faces", sizes=(64,), batch=8)(0))
    kernel = (
        torch.from_numpy(np.outer(*[cv2.getGaussianKernel(9, 1.0)[:, 0]] * 2))
        .float()
        .expand(3, 1, 9, 9)
    )
    assert psnr(F.conv2d(truth, kernel, groups=3), poor[..., 4:-4, 4:-4]) > 40


@pytest.mark.parametrize(
    "tone",
    [[{"op": "grey"}], [{"op": "fade", "contrast": 0.6, "lift": 0.1, "cast": 0.5}]],
    ids=["grey", "fade"],
)
def test_tone_is_kept_so_the_truth_has_it_too(root, monkeypatch, tone):
    plain = data.FaceBatches(root / "train_faces", sizes=(64,), batch=4, preset="clean")(0)[
        "target"
    ]
    always(monkeypatch, *tone)
    poor, truth = tensors(data.FaceBatches(root / "train_faces", sizes=(64,), batch=4)(0))
    assert torch.equal(poor, truth) and psnr(truth, plain) < 30


def test_only_the_tone_of_a_recipe_reaches_the_truth(root, monkeypatch):
    always(
        monkeypatch,
        {"op": "gaussian_noise", "sigma": 40, "seed": 1},
        {"op": "grey"},
        {"op": "gaussian_blur", "sigma": 3.0},
    )
    poor, truth = tensors(data.FaceBatches(root / "train_faces", sizes=(64,), batch=4)(0))
    always(monkeypatch, {"op": "grey"})
    assert torch.equal(
        truth, tensors(data.FaceBatches(root / "train_faces", sizes=(64,), batch=4)(0))[0]
    )
    assert psnr(poor, truth) < 30


@pytest.mark.parametrize("factor", [1.5, 4])
def test_a_face_that_is_shrunk_is_antialiased(factor):
    size = 32
    stored = np.uint8(np.indices((200, 200)).sum(0) % 2 * 255)[..., None].repeat(
        3, 2
    )  # a checkerboard, which has no detail but aliases
    crop = Crop.at((99.5, 99.5), factor * size, 0.05, size)
    assert np.abs(data.quick_cut(stored, crop) - 0.5).max() < 0.15


def test_the_quick_cut_is_the_crops_cut_near_scale_one(astronaut):
    stored, crop = data.to_uint8(astronaut), Crop.at((220, 120), 66, 0.1, 64)
    assert np.abs(data.quick_cut(stored, crop) - crop.cut(astronaut)).mean() < 0.01


@pytest.mark.parametrize(("enlarged", "low", "high"), [(0.0, -0.1, 0.1), (1.0, 0.3, 1.0)])
def test_the_noise_of_a_face_that_was_enlarged_is_wide(root, monkeypatch, enlarged, low, high):
    always(monkeypatch, {"op": "gaussian_noise", "sigma": 25, "seed": 1})
    poor, truth = tensors(
        data.FaceBatches(root / "train_faces", sizes=(96,), batch=8, enlarged=enlarged)(0)
    )
    noise = poor - truth
    left, right = noise[..., 8:-8, 8:-9].flatten(), noise[..., 8:-8, 9:-8].flatten()
    assert low < float(torch.corrcoef(torch.stack([left, right]))[0, 1]) < high


# ---- people --------------------------------------------------------------------------------------


def test_a_batch_of_people_has_each_twice(root):
    faces, person = tensors(data.PersonBatches(root / "train_faces", batch=3)(0))
    assert faces.shape == (6, 3, 96, 96) and person.tolist() == [0, 1, 2, 0, 1, 2]
    assert not torch.equal(faces[:3], faces[3:]), "two views, not one picture twice"


def test_pictures_of_one_person_in_the_manifest_are_one_person(tmp_path, astronaut):
    folder = make_faces(tmp_path / "faces", astronaut)
    text = (folder / "manifest.csv").read_text().splitlines()
    people = ["person", "a", "b", "a", ""]
    (folder / "manifest.csv").write_text(
        "\n".join(f"{line},{p}" for line, p in zip(text, people, strict=True)) + "\n"
    )
    assert sorted(map(len, data.PersonBatches(folder, batch=2).people)) == [1, 2]
    with pytest.raises(
        ValueError, match="has 2 people, fewer than the batch of 3; lower the batch"
    ):
        data.PersonBatches(folder, batch=3)


# ---- landmarks -----------------------------------------------------------------------------------


def test_landmark_batches_have_a_face_of_128_px_and_468_points(root):
    poor, points = tensors(data.LandmarkBatches(root / "train_faces", batch=3)(0))
    assert poor.shape == (3, 3, 128, 128) and points.shape == (3, 468, 2)


def test_labels_lie_on_what_they_name_after_jitter_and_mirroring(root, tmp_path):
    """Coloured dots at five points of a black picture: each label hits a dot, in mirrored samples
    that of its mirrored number.
    """
    points = mesh()[0] * 250 + (256, 256)
    dots = {33: (1, 0, 0), 263: (0, 1, 0), 61: (0, 0, 1), 291: (1, 1, 0), 1: (1, 1, 1)}
    canvas = np.zeros((512, 512, 3), np.float32)
    for i, colour in dots.items():
        cv2.circle(
            canvas,
            tuple(np.rint(points[i] * 16).astype(int).tolist()),
            9 * 16,
            colour,
            -1,
            cv2.LINE_AA,
            shift=4,
        )
    folder = make_faces(tmp_path / "faces", canvas)
    for size in (512, 384, 320):
        image.write(folder / f"tiny/face_{size}.jpg", image.shrink(canvas, size), quality=100)
    names = [f"tiny/face_{size}.jpg" for size in (512, 384, 320)]
    np.savez(
        folder / "mesh468.npz",
        names=np.array(names),
        points=np.stack([(points + 0.5) * s / 512 - 0.5 for s in (512, 384, 320)]),
    )
    faces, labels = tensors(data.LandmarkBatches(folder, batch=24, preset="clean")(0))
    mirrored, off = [], []
    for face, label in zip(faces.numpy(), labels.numpy(), strict=True):
        xy = {i: label[i] * 128 - 0.5 for i in dots}
        assert xy[33][0] < xy[263][0], "the viewer's left eye stays the viewer's left eye"
        seen = {i: face[:, round(y), round(x)] for i, (x, y) in xy.items()}
        mirrored.append(bool(seen[33][1] > 0.5))
        for i, colour in seen.items():
            expected = (
                dots[{33: 263, 263: 33, 61: 291, 291: 61}.get(i, i)] if mirrored[-1] else dots[i]
            )
            assert np.abs(colour - expected).max() < 0.4
            middle = np.argwhere(np.abs(face.transpose(1, 2, 0) - expected).max(-1) < 0.4).mean(0)[
                ::-1
            ]
            off.append(middle - xy[i])
    assert any(mirrored) and not all(mirrored)
    assert np.abs(off).max() < 0.75 and np.abs(np.mean(off, 0)).max() < 0.15, (
        "the label is the dot's centre"
    )


def test_the_mirrored_place_of_each_point_is_found(root):
    assert np.array_equal(data.LandmarkBatches(root / "train_faces").mirror, mesh()[1])


def test_the_mean_shape_is_the_mean_of_the_labels_of_unturned_faces(root):
    make = data.LandmarkBatches(root / "train_faces", batch=48, preset="clean")
    labels = make(0)["target"].numpy()
    assert np.abs(labels.mean(0) - make.mean).mean() < 0.02


def test_mirroring_is_an_involution_on_real_labels(shared, monkeypatch):
    folder = shared / "data/train_faces"
    rows = data.manifest(folder)[::10]
    monkeypatch.setattr(data, "manifest", lambda *_: rows)
    monkeypatch.setattr(image, "read", lambda _: None)  # labels are all that matters here
    monkeypatch.setattr(
        Crop, "cut", lambda crop, _: np.zeros((crop.size, crop.size, 3), np.float32)
    )
    make = data.LandmarkBatches(folder)
    assert np.array_equal(make.mirror[make.mirror], np.arange(468))
    assert all(make.mirror[a] == b for a, b in PAIRS) and all(make.mirror[i] == i for i in MIDDLE)


def test_no_labelled_face_is_an_error(root, tmp_path):
    (tmp_path / "manifest.csv").write_text("file\na.jpg\n")
    np.savez(
        tmp_path / "mesh468.npz",
        names=np.array(["b.jpg"]),
        points=np.zeros((1, 468, 2), np.float16),
    )
    with pytest.raises(ValueError, match="no labelled face in"):
        data.LandmarkBatches(tmp_path)


# ---- photographs ---------------------------------------------------------------------------------


def test_real_pairs_are_no_clean_photographs(photos):
    assert len(photos.photos) == 2 and len(photos.pairs) == 1


def test_faces_join_the_photographs_by_kind(root):
    assert (
        len(data.Photos(root / "train_photos", root / "train_faces", face_kinds=["tiny"]).photos)
        == 6
    )


@pytest.mark.parametrize("size", [8, 64, 200, 300])
def test_a_patch_has_its_size_even_where_the_photo_is_smaller(photos, size):
    for seed in range(4):
        patch = photos.patch(np.random.default_rng(seed), size)
        assert (
            patch.shape == (size, size, 3)
            and patch.dtype == np.float32
            and 0 <= patch.min()
            and patch.max() <= 1
        )


def test_a_real_pair_shows_one_place(photos):
    for seed in range(4):
        noisy, truth = photos.pair(np.random.default_rng(seed), 48)
        assert np.abs(noisy - truth * 0.5).mean() < 0.01


def test_real_pairs_come_as_often_as_asked(photos):
    poor, truth = tensors(data.PhotoBatches(photos, size=48, batch=4, real=1.0)(0))
    assert (poor - truth * 0.5).abs().mean() < 0.01
    poor, truth = tensors(data.PhotoBatches(photos, size=48, batch=4, real=0.0)(0))
    assert (poor - truth * 0.5).abs().mean(dim=(1, 2, 3)).min() > 0.02


def test_a_share_of_the_photos_has_jpeg_alone(photos, monkeypatch):
    monkeypatch.setattr(degrade, "draw", None)
    poor, truth = tensors(data.PhotoBatches(photos, size=48, batch=6, real=0.0, jpeg=1.0)(0))
    assert all(18 < psnr(p, t) < 60 for p, t in zip(poor, truth, strict=True))


UPSAMPLING = [(r, s) for r in (1.25, 1.5, 2, 3, 4, 6) for s in (1, 1.5, 2)] + [(1, 1.5), (1, 2)]


@pytest.mark.parametrize(("ratio", "scale"), UPSAMPLING)
def test_upsampler_pictures_fit_together(photos, monkeypatch, ratio, scale):
    always(monkeypatch)
    make = data.UpsamplerBatches(photos, half, small=16, batch=3, most=192)
    assert (ratio, scale) in make.kinds
    make.kinds = [(ratio, scale)]
    batch = make(0)
    (small, clean, large), truth = batch["inputs"], batch["target"]
    side = round(round(16 * ratio) * scale)
    assert small.shape == clean.shape == (len(truth), 3, 16, 16) and large.shape == truth.shape == (
        len(truth),
        3,
        side,
        side,
    )
    assert torch.equal(clean, small * 0.5), "clean is what the restorer makes of the small picture"
    assert psnr(F.interpolate(truth, (16, 16), mode="bicubic", antialias=True), small) > 28, (
        "both show the same place"
    )
    assert torch.equal(large, truth) if scale == 1 else psnr(large, truth) > 18


@pytest.mark.parametrize("most", [48, 96])
def test_upsampler_pictures_stay_within_the_largest_side(photos, most):
    make = data.UpsamplerBatches(photos, half, small=16, batch=2, most=most)
    assert max(16 * r * s for r, s in make.kinds) == most and len(set(make.kinds)) > 4


def test_upsampler_sizes_that_cannot_be_are_an_error(photos):
    with pytest.raises(ValueError, match="lower small or raise most"):
        data.UpsamplerBatches(photos, half, small=64, ratios=(4,), scales=(1,), most=128)


def test_the_sharpener_learns_x2_from_antialiased_halves(photos):
    poor, truth = tensors(data.SharpenerBatches(photos, scale=2, size=32, batch=3)(0))
    assert poor.shape == (3, 3, 16, 16) and truth.shape == (3, 3, 32, 32)
    assert (
        psnr(poor, F.interpolate(truth, (16, 16), mode="bicubic", antialias=True).clamp(0, 1)) > 50
    )


def test_the_sharpener_x1_sees_sharp_pictures_too(photos):
    poor, truth = tensors(data.SharpenerBatches(photos, size=32, batch=64)(0))
    untouched = (poor == truth).all(dim=(1, 2, 3)).float().mean().item()
    assert untouched == pytest.approx(0.25, abs=0.15)
    assert (poor.diff(dim=3).abs().mean() < truth.diff(dim=3).abs().mean()).item(), (
        "the others are blurred"
    )


def test_the_sharpener_x1_sees_what_the_restorer_gives(root):
    """Seven patches in eight pass through the restorer first; the truth stays as it is."""
    photos = data.Photos(root / "train_photos")
    poor, truth = tensors(
        data.SharpenerBatches(photos, size=32, batch=64, restorer=lambda x: 0 * x)(0)
    )
    assert (poor == 0).all((1, 2, 3)).float().mean() == pytest.approx(7 / 8, abs=0.1)
    assert not (truth == 0).all((1, 2, 3)).any()


# ---- what can be wrong with a folder -------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [data.FaceBatches, data.LandmarkBatches, data.Photos, data.manifest]
)
def test_a_folder_without_manifest_is_named(tmp_path, make):
    np.savez(
        tmp_path / "mesh468.npz", names=np.array(["a"]), points=np.zeros((1, 468, 2), np.float16)
    )
    with pytest.raises(
        FileNotFoundError, match=r"manifest\.csv is missing: training data is a folder with"
    ):
        make(tmp_path)


def test_a_manifest_without_files_is_named(tmp_path):
    (tmp_path / "manifest.csv").write_text("name,licence\na.jpg,free\n")
    with pytest.raises(ValueError, match="must have a column called file, got name, licence"):
        data.Photos(tmp_path)


def test_a_manifest_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "manifest.csv").write_bytes("\ufefffile\nå/b.jpg\n".encode())
    assert data.manifest(tmp_path, kinds=["å"]) == [{"file": "å/b.jpg"}]


def test_no_photograph_is_an_error(tmp_path):
    (tmp_path / "manifest.csv").write_text("file\n")
    with pytest.raises(ValueError, match="no photograph in"):
        data.Photos(tmp_path)


def test_five_points_of_the_made_up_mesh_are_a_face():
    left, right, nose, mouth_left, mouth_right = five_from_mesh(mesh()[0])
    assert left[0] < nose[0] < right[0] and left[1] < nose[1] < mouth_left[1] == mouth_right[1]
