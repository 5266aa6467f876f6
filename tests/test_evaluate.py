"""The table of restored faces: every judge sees every method on the same faces, and what is not
installed leaves a blank.
"""

import json

import numpy as np
import pytest
import torch

from mtrestore import cli, degrade, image, weights
from mtrestore.crop import landmark_crop
from mtrestore.face import detect
from mtrestore.lab import evaluate
from mtrestore.pipeline import Restorer, identity
from mtrestore.training import likeness


@pytest.fixture(scope="module")
def cut(_astronaut) -> tuple[np.ndarray, np.ndarray]:
    """A face at 128 px, cut by the landmark rule, and its 468 points there."""
    mesh = detect(_astronaut, "mtcnn", landmarks=evaluate.landmark_net())[0].landmarks
    crop = landmark_crop(mesh, size=128)
    return crop.cut(_astronaut), crop.points(mesh)


@pytest.fixture
def folder(tmp_path, cut, astronaut):
    """One labelled face, as dev_eval has them."""
    (tmp_path / "faces_clean").mkdir()
    image.write(tmp_path / "faces_clean" / "a.png", astronaut)
    mesh = detect(astronaut, "mtcnn", landmarks=evaluate.landmark_net())[0].landmarks
    np.savez(
        tmp_path / "faces_clean" / "mesh468.npz",
        names=np.array(["a.png"]),
        points=mesh[None].astype(np.float32),
    )
    return tmp_path


def test_the_default_of_nets_that_change_nothing_is_the_face_itself(cut):
    photo, points = cut
    plain = evaluate.default_face(Restorer(face=identity, sharpener=identity))
    out = plain(photo, points)
    assert out.shape == photo.shape and np.abs(out - photo)[4:-4, 4:-4].mean() < 2 / 255


def test_the_default_chooses_as_the_restorer_does(cut):
    """Sharp faces get the generative net and enlarged ones the other; constant nets say which it
    was.
    """
    photo, points = image.resize(image.resize(cut[0], (48, 48)), (256, 256)), 2 * cut[1] + 0.5
    restorer = Restorer(sharpener=identity)
    restorer.face, restorer.blurred_face = (
        lambda x, v=v: torch.full_like(x, v) for v in (0.25, 0.75)
    )
    default = evaluate.default_face(restorer)
    rng = np.random.default_rng(0)
    sharp = np.clip(photo + rng.normal(0, 0.1, photo.shape), 0, 1).astype(np.float32)
    assert np.allclose(default(sharp, points), 0.25, atol=1e-3)
    assert np.allclose(default(photo, points), 0.75, atol=1e-3)


def test_every_severity_is_a_preset_and_heavy_comes_as_soon_as_it_is_one():
    assert set(evaluate.SEVERITIES) <= set(degrade.PRESETS)
    assert ("heavy" in evaluate.SEVERITIES) == ("heavy" in degrade.PRESETS)
    assert [s for s in evaluate.SEVERITIES if s != "heavy"] == [
        "mild",
        "medium",
        "severe",
        "old-photo",
    ]


def test_the_table_of_faces(folder, monkeypatch, capsys):
    """A judge that is a mean colour stands for dlib's net; the other one is missing and its column
    blank.
    """
    monkeypatch.setattr(evaluate, "SEVERITIES", ("mild", "severe"))
    monkeypatch.setattr(likeness, "described", lambda photo, points: {"dlib": photo.mean((0, 1))})
    code = cli.main(
        [
            "evaluate",
            str(folder),
            "--what",
            "faces",
            "--seeds",
            "1",
            "--size",
            "128",
            "--no-nlm",
            "--json",
            str(folder / "rows.json"),
        ]
    )
    rows = json.loads((folder / "rows.json").read_text())
    assert code == 0
    assert [r["method"] for r in rows] == [
        "input",
        "bicubic",
        "fidelity",
        "generative",
        "default",
    ] * 2
    assert {r["fault"] for r in rows} == {"mild", "severe"}
    for row in rows:
        assert row["n"] == 1 and row["mobile"] is None
        assert (
            0 <= row["dlib"] < 0.2
            and row["weave"] > 0
            and 0 < row["landmarks"] < 0.3
            and 0 <= row["identity"] < 1
        )
    (poor, truth, _) = next(evaluate.face_cases(folder / "faces_clean", "mild", (0,), 128))
    assert rows[0]["dlib"] == pytest.approx(
        np.linalg.norm(poor.mean((0, 1)) - truth.mean((0, 1))), abs=1e-6
    )
    header, _, first = capsys.readouterr().out.splitlines()[:3]
    cells = [cell.strip() for cell in first.split("|")[1:-1]]
    names = [cell.strip() for cell in header.split("|")[1:-1]]
    assert dict(zip(names, cells, strict=True))["identity (MobileFaceNet)"] == ""
    assert float(dict(zip(names, cells, strict=True))["identity (dlib)"]) == pytest.approx(
        rows[0]["dlib"], abs=1e-3
    )


def test_without_the_extras_faces_are_measured_all_the_same(cut, monkeypatch, tmp_path):
    monkeypatch.setattr(likeness, "dlib_file", lambda: None)
    monkeypatch.setenv("MTRESTORE_MOBILEFACE", str(tmp_path / "none"))
    photo, points = cut
    (row,) = evaluate.measure(
        "faces", "none", iter([(photo, photo, points)]), {"input": evaluate.alone(identity)}
    )
    assert (row.psnr, row.ssim, row.sharpness, row.weave) == (60, pytest.approx(1), 1, 0)
    assert row.dlib is None and row.mobile is None and row.identity == pytest.approx(0, abs=1e-6)
    assert evaluate.table([row]).splitlines()[-1].count(
        "|  |"
    ) == 1 and "| 0.000 |  |  | 0.000 | 1 |" in evaluate.table([row])


def test_the_nets_of_the_table_are_shipped():
    assert set(evaluate.FACE_NETS.values()) <= set(weights.shipped())


def test_a_title_with_control_characters_stays_in_its_cell():
    """A net is called what a user or the name of its file says."""
    title = "a\x1b[31m\nb | c\u202e\ud800"
    rows = [evaluate.Row("faces", "mild", m, 20.0, 0.5, 1.0, 1) for m in ("input", title)]
    lines = evaluate.table(rows).splitlines()
    assert len(lines) == 4 and all(map(str.isprintable, lines))
    assert lines[3].replace("\\|", "").count("|") == lines[0].count("|") == 14
    assert r"a\x1b[31m\nb \| c\u202e\ud800" in lines[3]
