"""The workbench without a browser: its widgets are turned and its buttons pressed from Python."""

import datetime
import json

import numpy as np
import pytest
from PIL import Image

from mtrestore import Restorer, degrade, identity, image, keep_large
from mtrestore.lab.workbench import invented, stronger, workbench

BOX = [90, 30, 134, 89]


def at(box):
    """A detector that sees one face there, on any picture whose face is at that place."""
    x0, y0, x1, y1 = box
    points = (
        np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.3, 0.75], [0.7, 0.75]])
        * [x1 - x0, y1 - y0]
        + [x0, y0]
    ).ravel()
    return lambda picture: np.array([[*box, *points, 0.9]])


@pytest.fixture
def photo(astronaut):
    return image.resize(astronaut, (256, 256))


@pytest.fixture
def bench(photo):
    quick = {
        "face": lambda x: 1 - x,
        "restorer": identity,
        "upsampler": keep_large,
        "sharpener": identity,
        "landmarks": False,
        "device": "cpu",
    }
    return workbench(photo, preset="clean", detector=at(BOX), **quick)


def press(bench, name):
    bench.controls[name].click()
    return bench.status.value


def kinds(place):
    return [kind for output in place.outputs for kind in output["data"]]


def test_restoring_fills_every_view(bench, photo):
    assert [kinds(tab) for tab in bench.tabs] == [["text/plain"]] * 4, "what there will be to see"
    assert "1 of 1 faces" in press(bench, "restore") and "PSNR" not in bench.status.value
    assert [kinds(tab) for tab in bench.tabs] == [
        ["text/html"],
        ["image/png"],
        ["text/plain", "image/png"],
        ["text/plain"],
    ]
    assert bench.canvas.boxes == [pytest.approx(BOX, abs=0.1)] and bench.canvas.size == [256, 256]
    assert bench.controls["boxes"].value == " ".join(f"{v:g}" for v in bench.canvas.boxes[0])
    out = bench.result.image
    assert np.abs(out - photo).max() > 0.3  # the face net's negative is there
    assert np.abs(out[200:] - photo[200:]).max() < 1 / 255
    assert not any(b.disabled for b in bench.controls.values() if hasattr(b, "disabled"))


def test_a_deleted_box_leaves_the_face_alone_and_a_drawn_one_is_restored(bench, photo):
    press(bench, "restore")
    bench.canvas.boxes = []  # what the browser sends
    assert "face boxes: 0" in bench.status.value and "0 of 0 faces" in press(bench, "restore")
    assert np.abs(bench.result.image - photo).max() < 1 / 255
    bench.canvas.boxes = [[150, 150, 200, 210]]
    assert bench.controls["boxes"].value == "150 150 200 210" and "1 of 1 faces" in press(
        bench, "restore"
    )
    changed = np.abs(bench.result.image - photo).max(-1) > 0.1
    assert changed[150:210, 150:200].mean() > 0.5 and not changed[30:89, 90:134].any()
    bench.controls["boxes"].value = "10 10 60 60; 90,30,134,89"
    assert bench.canvas.boxes == [[10, 10, 60, 60], BOX] and "2 of 2 faces" in press(
        bench, "restore"
    )
    assert "faces found: 1" in press(bench, "find") and len(bench.canvas.boxes) == 1


def test_a_found_face_keeps_its_landmarks_when_another_is_deleted(bench):
    press(bench, "find")
    found = bench.faces[0]
    bench.canvas.boxes = [*bench.canvas.boxes, [150, 150, 200, 210]]
    press(bench, "restore")
    assert (
        np.array_equal(bench.result.faces[0].landmarks, found.landmarks)
        and len(bench.result.faces) == 2
    )


def test_an_error_is_one_line_and_nothing_is_lost(bench):
    press(bench, "restore")
    before = bench.result, bench.photo, bench.canvas.boxes, [tab.outputs for tab in bench.tabs]
    for do, words in {
        lambda: setattr(bench.controls["path"], "value", "/nowhere/a.jpg"): "cannot be read",
        lambda: setattr(bench.controls["boxes"], "value", "1 2 3"): "a face is given as a box",
        lambda: setattr(bench.controls["boxes"], "value", "one"): "could not convert",
        lambda: bench.take({"name": "x.jpg", "content": b"not a picture"}): "x.jpg",
        lambda: (
            setattr(bench.controls["save_as"], "value", "/proc/nowhere/x.png"),
            bench.save(),
        ): "error while saving",
        lambda: (
            setattr(bench.controls["save_as"], "value", "x.gif"),
            bench.save(),
        ): "error while saving",
    }.items():
        bench.status.value = ""
        do()
        assert (
            "error while" in bench.status.value
            and words in bench.status.value
            and "\n" not in bench.status.value
        )
        assert (
            bench.result,
            bench.photo,
            bench.canvas.boxes,
            [tab.outputs for tab in bench.tabs],
        ) == before
    bench.canvas.boxes = []
    assert "restored in" in press(bench, "restore")


def test_a_net_that_fails_is_said_and_the_last_result_stays(photo):
    def broken(x):
        raise RuntimeError("out of\nthread")

    b = workbench(
        photo,
        preset="clean",
        detector=at(BOX),
        restorer=broken,
        landmarks=False,
        face=identity,
        device="cpu",
    )
    assert (
        b.restore() is None
        and "error while restoring: out of thread" in b.status.value
        and b.result is None
    )
    assert "nothing to save" in press(b, "save")
    with pytest.raises(image.ImageError):
        workbench("/nowhere/a.jpg")


def test_upload_sample_and_settings(bench, astronaut, tmp_path, hopper):
    Image.fromarray((hopper * 255).astype(np.uint8)).save(tmp_path / "h.png")
    content = memoryview((tmp_path / "h.png").read_bytes())
    now = datetime.datetime.now(tz=datetime.UTC)
    bench.controls["upload"].value = (
        {
            "name": "../h.png",
            "type": "image/png",
            "size": len(content),
            "content": content,
            "last_modified": now,
        },
    )
    assert (
        bench.worn.shape == hopper.shape
        and bench.canvas.size == [512, 600]
        and bench.photo.path.name == "h.png"
    )
    bench.controls["scale"].value = 1.5
    press(bench, "restore")
    assert bench.result.image.shape == (900, 768, 3)
    assert (
        json.loads(bench.about)["settings"]["scale"] == 1.5
        and json.loads(bench.about)["photo"] == "h.png"
    )
    bench.controls["path"].value = str(tmp_path / "h.png")
    assert bench.result is None and kinds(bench.tabs[0]) == ["text/plain"]
    press(bench, "sample")
    assert np.array_equal(bench.worn, astronaut)


def test_wear_strength_and_saved_recipe_replay(bench, photo, tmp_path):
    bench.controls["preset"].value = "severe"
    worn = bench.worn
    bench.controls["strength"].value = 0.5
    assert 0 < np.abs(bench.worn - photo).mean() < np.abs(worn - photo).mean()
    press(bench, "restore")
    assert "PSNR" in bench.status.value
    bench.controls["save_as"].value = str(tmp_path / "new" / "out.png")
    assert "saved" in press(bench, "save")
    assert (
        np.abs(image.read(tmp_path / "new" / "out.png") - bench.result.image).max()
        <= 0.5 / 255 + 1e-6
    )
    about = json.loads((tmp_path / "new" / "out.json").read_text())
    assert np.array_equal(
        degrade.apply(photo, degrade.Recipe.from_json(json.dumps(about["recipe"]))), bench.worn
    )
    assert about["faces"][0]["status"] == "made worse" and about["faces"][0][
        "box"
    ] == pytest.approx(BOX, abs=0.1)


def test_models_are_loaded_once(bench, monkeypatch):
    press(bench, "restore")
    monkeypatch.setattr("mtrestore.lab.workbench.Restorer", None)
    for name, value in (("scale", 1.25), ("working_size", 128), ("face_strength", 0.0)):
        bench.controls[name].value = value
    assert "restored in" in press(bench, "restore")
    assert max(bench.result.steps["small"].shape) == 128 and bench.result.image.shape[0] == 320
    assert np.array_equal(bench.result.steps["pasted"], bench.result.steps["whole"])  # strength 0


def test_stronger_is_the_recipe_at_one_and_almost_nothing_at_zero(astronaut):
    for preset in ("mild", "medium", "severe", "old-photo"):
        recipe = degrade.draw(preset, np.random.default_rng(3))
        assert stronger(recipe, 1) == recipe
        weak, strong = (
            degrade.Recipe(tuple(s for s in stronger(recipe, k).steps if s["op"] != "grey"))
            for k in (0, 2)
        )
        assert np.abs(degrade.apply(astronaut, weak) - astronaut).mean() < 3 / 255
        assert (
            np.abs(degrade.apply(astronaut, strong) - astronaut).mean()
            > np.abs(degrade.apply(astronaut, weak) - astronaut).mean()
        )


def test_invented_maps_on_cases_with_a_known_answer(astronaut):
    recipe = degrade.Recipe(
        ({"op": "gaussian_blur", "sigma": 3.0}, {"op": "gaussian_noise", "sigma": 10.0, "seed": 1})
    )
    given = degrade.apply(astronaut, recipe)
    truth = invented(astronaut, given, recipe)
    assert truth.shape == (512, 512, 2) and truth.dtype == np.float32
    assert (
        truth[..., 1].max() < 1e-3
    )  # the truth speaks against nothing, yet its fine detail was not to be seen
    assert truth[..., 0].mean() > 5

    soft = degrade.apply(astronaut, degrade.Recipe(({"op": "gaussian_blur", "sigma": 6.0},)))
    flat, checks = (
        np.full_like(astronaut, 0.5),
        np.float32(np.indices((512, 512)).sum(0)[..., None] % 2 * 0.2 - 0.1),
    )
    assert invented(flat, degrade.apply(flat, recipe), recipe).max() < 1e-3
    texture = invented(flat + checks, degrade.apply(flat, recipe), recipe)[40:-40, 40:-40]
    assert texture[..., 0].mean() == pytest.approx(
        25.5, abs=0.5
    )  # an amplitude of 0.1 that the blur erases altogether
    assert texture[..., 1].max() < 0.5
    moved = soft.copy()
    moved[200:300, 200:300] = np.clip(moved[200:300, 200:300] + 0.1, 0, 1)
    against = invented(moved, degrade.apply(soft, recipe), recipe)[..., 1]
    assert against[240:260, 240:260].mean() > 15 and against[:100].max() < 1e-3

    assert invented(astronaut, astronaut).max() == 0
    unknown = invented(flat + checks, flat)[40:-40, 40:-40]
    assert unknown[..., 0].mean() == pytest.approx(25.5, abs=0.5) and unknown[..., 1].max() < 0.5
    assert invented(image.resize(astronaut, (700, 700)), astronaut).shape == (512, 512, 2)


def test_saving_replaces_only_what_this_bench_saved(bench, photo, tmp_path):
    press(bench, "restore")
    (tmp_path / "x.png").write_text("mine")
    (tmp_path / "y.json").write_text("mine")
    image.write(tmp_path / "photo.png", photo)
    for name in ("x.png", "y.png"):
        bench.controls["save_as"].value = str(tmp_path / name)
        assert "exists already" in press(bench, "save")
    assert (tmp_path / "x.png").read_text() == (tmp_path / "y.json").read_text() == "mine" and not (
        tmp_path / "y.png"
    ).exists()
    bench.controls["save_as"].value = str(tmp_path / "z.png")
    assert "saved" in press(bench, "save") and "saved" in press(bench, "save")
    bench.controls["path"].value = str(tmp_path / "photo.png")
    press(bench, "restore")
    bench.controls["save_as"].value = str(tmp_path / "photo.png")
    assert "would overwrite the photo" in press(bench, "save")


def test_a_photo_of_ones_own_is_never_worn_unless_asked(photo, tmp_path):
    quick = {"restorer": identity, "upsampler": keep_large, "sharpener": identity, "faces": False}
    b = workbench(device="cpu", **quick)
    assert b.controls["preset"].value == "medium" and b.recipe.steps
    image.write(tmp_path / "own.png", photo)
    b.controls["path"].value = str(tmp_path / "own.png")
    assert b.controls["preset"].value == "clean" and not b.recipe.steps
    assert np.abs(b.worn - photo).max() <= 0.5 / 255 + 1e-6
    b.controls["preset"].value = "severe"
    assert b.recipe.steps, "asked for, it is"
    content = memoryview((tmp_path / "own.png").read_bytes())
    b.take({"name": "own.png", "content": content})
    assert b.controls["preset"].value == "clean" and not b.recipe.steps
    b.controls["preset"].value = "severe"
    b.take(tmp_path / "none.png")
    assert b.controls["preset"].value == "severe", "nothing came, nothing changes"
    for own in (photo, tmp_path / "own.png"):
        assert not workbench(own, device="cpu", **quick).recipe.steps
    assert workbench(photo, preset="mild", device="cpu", **quick).recipe.steps


def test_there_is_something_to_see_before_the_first_restoration(bench):
    words = [tab.outputs[0]["data"]["text/plain"] for tab in bench.tabs]
    assert all(line.startswith("after Restore: ") for line in words) and len(set(words)) == 4
    bench.controls["preset"].value = "severe"
    (page,) = [output["data"]["text/html"] for output in bench.tabs[0].outputs]
    assert "your photo" in page and "worn" in page
    press(bench, "restore")
    assert "restored" in bench.tabs[0].outputs[0]["data"]["text/html"]
    bench.controls["preset"].value = "mild"
    assert "restored" in bench.tabs[0].outputs[0]["data"]["text/html"], "the last result stays"


def test_psnr_stands_only_where_a_truth_is_known(bench):
    assert "PSNR" not in press(bench, "restore") and "PSNR" not in bench.about
    bench.controls["preset"].value = "medium"
    assert "PSNR" in press(bench, "restore") and "PSNR" in bench.about
    bench.controls["preset"].value = "clean"
    assert "PSNR" not in press(bench, "restore") and "PSNR" not in bench.about


def test_a_face_that_came_out_worse_is_not_called_restored(photo):
    quick = {"restorer": identity, "upsampler": keep_large, "sharpener": identity, "device": "cpu"}
    for net, words, state in (
        (lambda x: 1 - x, "0 of 1 faces, 1 made worse, PSNR", "made worse"),
        (identity, "1 of 1 faces, PSNR", "restored"),
    ):
        b = workbench(photo, preset="mild", detector=at(BOX), face=net, landmarks=False, **quick)
        assert words in press(b, "restore")
        assert json.loads(b.about)["faces"][0]["status"] == state
        line = b.tabs[2].outputs[0]["data"]["text/plain"]
        assert line.startswith(f"{state} · ") and "likely, not in your photo" in line


def test_undo_brings_back_settings_and_boxes(bench):
    assert "nothing to undo" in press(bench, "undo")
    bench.controls["face_strength"].value = 0.5
    bench.controls["preset"].value = "mild"
    press(bench, "find")
    found = list(bench.canvas.boxes)
    bench.canvas.boxes = [*found, [150, 150, 200, 210]]
    assert bench.auto is False
    press(bench, "undo")
    assert bench.canvas.boxes == found and bench.auto is True
    assert bench.controls["boxes"].value == bench._words()
    press(bench, "undo")
    assert bench.controls["preset"].value == "clean" and not bench.recipe.steps
    press(bench, "undo")
    assert bench.controls["face_strength"].value == 1.0
    assert "nothing to undo" in press(bench, "undo") and "1 of 1 faces" in press(bench, "restore")


def test_photo_strength_and_fidelity_are_there(photo):
    quick = {"restorer": lambda x: 1 - x, "upsampler": keep_large, "sharpener": identity}
    b = workbench(photo, device="cpu", faces=False, **quick)
    b.controls["working_size"].value = 256
    b.controls["photo_strength"].value = 0.25
    press(b, "restore")
    assert np.abs(b.result.image - (0.5 * photo + 0.25)).max() < 1 / 255
    faces = {"detector": at(BOX), "restorer": identity, "landmarks": False, "device": "cpu"}
    b = workbench(photo, upsampler=keep_large, sharpener=identity, **faces)
    results = []
    for fidelity in (None, 0.0, 1.0):
        b.controls["face_fidelity"].value = "by the face" if fidelity is None else fidelity
        press(b, "restore")
        results.append(b.result.image)
        own = {"upsampler": keep_large, "sharpener": identity, "face_fidelity": fidelity}
        assert np.array_equal(results[-1], Restorer(**faces, **own)(photo).image)
        assert json.loads(b.about)["settings"]["face_fidelity"] == fidelity
    assert not np.array_equal(results[1], results[2])
