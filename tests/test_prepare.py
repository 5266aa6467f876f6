"""Own portraits become training data: what is kept, labelled, left out and said."""

import csv

import cv2
import numpy as np
import pytest
from conftest import relit

from mtrestore import image
from mtrestore.cli import main
from mtrestore.io.files import ImageError
from mtrestore.lab.prepare import _held, advice, prepare
from mtrestore.training.batches import FaceBatches


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def album(_astronaut, tmp_path_factory):
    """One person four times, of which one is sharp enough, and what is no portrait."""
    folder = tmp_path_factory.mktemp("album")
    astronaut = _astronaut
    small = image.resize(astronaut, (128, 128))
    pictures = {
        "her/sharp.png": astronaut,
        "her/copy.jpg": np.ascontiguousarray(astronaut[:, ::-1]),
        "her/blurred.png": cv2.GaussianBlur(astronaut, (0, 0), 4),
        "her/tiny.png": small,
        "wall.png": np.full((200, 300, 3), 0.4, np.float32),
        "=1+1.png": np.full((64, 64, 3), 0.6, np.float32),
    }
    (folder / "her").mkdir()
    for name, picture in pictures.items():
        image.write(folder / name, picture)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("left alone")
    return folder


@pytest.fixture(scope="module")
def prepared(album, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    return out, prepare(album, out, size=96, person=r"^([^/]+)/")


def test_sharp_faces_are_kept_and_the_rest_is_listed_with_its_reason(prepared):
    out, counts = prepared
    assert counts["train_faces"] == 1 and counts["no face"] == 2
    (kept,) = rows(out / "train_faces" / "manifest.csv")
    assert kept["source"] == "her/sharp.png" and kept["person"] == "her"
    reasons = {r["source"]: r["reason"] for r in rows(out / "left_out.csv")}
    assert reasons["her/copy.jpg"] == "a copy of her/sharp.png"
    assert reasons["her/blurred.png"] == "not sharp at 96 px"
    assert reasons["her/tiny.png"].startswith(("not sharp", "too small"))
    assert reasons["broken.jpg"].startswith("unreadable:")
    assert reasons["'=1+1.png"] == "no face" and "notes.txt" not in reasons


def test_labels_lie_on_the_face(prepared, astronaut):
    out, _ = prepared
    with np.load(out / "train_faces" / "mesh468.npz") as labels:
        (name,), (points,) = labels["names"].tolist(), labels["points"]
    picture = image.read(out / "train_faces" / name)
    assert points.shape == (468, 2) and name == "faces/00000.png"
    assert (points.min(0) > 0.1 * len(picture)).all()
    assert (points.max(0) < 0.9 * len(picture)).all()
    left, right = points[[33, 133]].mean(0), points[[362, 263]].mean(0)  # MediaPipe's eye corners
    assert abs(left[1] - right[1]) < 0.05 * len(picture) and left[0] < right[0]


def test_a_training_takes_the_folder_as_it_is(prepared):
    batch = FaceBatches(prepared[0] / "train_faces", sizes=(64,), batch=2, labels=True)(0)
    assert batch["target"].shape == (2, 3, 64, 64) and batch["points"].shape == (2, 468, 2)


def test_people_are_in_one_split_only_and_the_split_repeats(astronaut, tmp_path):
    for n in range(4):
        (tmp_path / "in" / f"p{n}").mkdir(parents=True)
        for k, light in enumerate((0.7, 1.0)):
            turned = np.rot90(astronaut, 0)[n * 8 :, n * 12 :] * light
            noise = np.random.default_rng(n * 2 + k).normal(0, 0.3, turned.shape)
            spoilt = turned.copy()
            spoilt[-200:] = np.clip(spoilt[-200:] + noise[-200:], 0, 1)  # no copies of each other
            spoilt[:, -150:] = np.clip(spoilt[:, -150:] + noise[:, -150:], 0, 1)
            image.write(tmp_path / "in" / f"p{n}" / f"{k}.png", spoilt.astype(np.float32))
    outs = [tmp_path / name for name in ("a", "b")]
    for out in outs:
        prepare(tmp_path / "in", out, size=64, dev=0.3, person=r"(p\d)/", seed=3)
    manifests = [(out / "manifest.csv").read_text() for out in outs]
    assert manifests[0] == manifests[1]
    train = {r["person"] for r in rows(outs[0] / "train_faces" / "manifest.csv")}
    held = {r["person"] for r in rows(outs[0] / "dev_eval" / "faces_clean" / "manifest.csv")}
    assert train and held and not train & held


def test_an_album_of_one_person_keeps_other_photos_apart_and_says_so(astronaut, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for k in range(3):
        image.write(tmp_path / "in" / f"{k}.png", relit(astronaut, 2 * np.pi * k / 3))
    assert main(["prepare", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--size=64"]) == 0
    said = capsys.readouterr()
    assert "2  train_faces" in said.out and "1  dev_eval/faces_clean" in said.out
    assert "all faces look like one person" in said.err and "--person" in said.err


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"train_faces": 0, "not sharp at 128 px": 9}, "no face is sharp at 128 px; try --size 64"),
        ({"train_faces": 0, "no face": 9}, "left_out.csv says of each why"),
        ({"train_faces": 3}, "no face is kept apart"),
        ({"train_faces": 3, "dev_eval/faces_clean": 1, "people": 1}, "look like one person"),
    ],
)
def test_an_album_that_gives_little_says_what_to_do(counts, words):
    assert words in advice({"dev_eval/faces_clean": 0, "people": 2} | counts, 128)
    assert advice({"train_faces": 3, "dev_eval/faces_clean": 1, "people": 2}, 128) == ""


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_somebody_is_always_kept_apart_and_never_everybody(share):
    for people in (["a", "b"], list("abcdefgh")):
        assert 0 < len(_held(people, share, 0)) < len(people)
    assert not _held(["a"], share, 0) and not _held(["a", "b"], 0, 0)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"size": 8}, "32 to 512"),
        ({"dev": 1.0}, "share"),
        ({"person": "("}, "regular expression"),
        ({"person": "abc"}, "needs a group"),
    ],
)
def test_options_that_cannot_be_are_said_before_any_work(album, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        prepare(album, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_others_is_left_alone(album, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ImageError, match="another folder"):
        prepare(album, tmp_path)
    with pytest.raises(ValueError, match="no photo below"):
        prepare(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="folder of photos"):
        prepare(album / "wall.png", tmp_path / "out")
