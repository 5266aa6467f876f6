"""What a run leaves behind is whole, strict JSON, and says what made it."""

import hashlib
import json
import subprocess

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from mtrestore import image
from mtrestore.io import files
from mtrestore.lab import record
from mtrestore.lab.record import Run


def test_leaves_all_that_it_was_given(tmp_path, astronaut, monkeypatch):
    monkeypatch.setenv(record.NOTEBOOK, "ab12 notebooks/00_tour.ipynb")
    figure = plt.figure()
    small = image.resize(astronaut, (32, 32))
    folder = Run(tmp_path / "a" / "b", seed=3, photo=tmp_path, width=(1, 2)).save(
        {"psnr": np.float32(30.5), "none": float("nan")},
        rows=[{"picture": "a", "psnr": np.float64(2), "n": np.int64(3)}],
        curves={"loss": [(0, torch.tensor(1.5)), (1, 0.5)]}, pairs={"a": (small * 0, small)},
        look=figure)  # fmt: skip
    plt.close(figure)

    def strict(text):
        return json.loads(text, parse_constant=lambda word: pytest.fail(word))

    said = {p.stem: strict(p.read_text()) for p in folder.glob("*.json")}
    assert said["metrics"] == {"psnr": 30.5, "none": None}
    assert said["rows"] == [{"picture": "a", "psnr": 2.0, "n": 3}] and said["curves"] == {
        "loss": [[0, 1.5], [1, 0.5]]
    }
    made = said["run"]
    assert (
        made["parameters"] == {"seed": 3, "photo": str(tmp_path), "width": [1, 2]}
        and made["seed"] == 3
    )
    assert (made["notebook"], made["sha256"]) == ("notebooks/00_tour.ipynb", "ab12")
    assert (
        made["hardware"]["threads"] == torch.get_num_threads()
        and made["hardware"]["cpu"]
        and made["hardware"]["cores"] >= 1
    )
    assert made["versions"]["torch"] == torch.__version__ and len(made["weights"]["face"]) == 64
    np.testing.assert_allclose(
        image.read(folder / "pairs" / "a.after.png"), small, atol=0.5 / 255 + 1e-6
    )
    margin = 10  # px, around all that is on it
    assert image.read(folder / "look.png").shape == (480 + 2 * margin, 640 + 2 * margin, 3)
    assert sorted(p.name for p in folder.iterdir()) == [
        "curves.json",
        "look.png",
        "metrics.json",
        "pairs",
        "rows.json",
        "run.json",
    ]


def test_says_the_commit_of_the_code_and_whether_it_is_changed(tmp_path, monkeypatch):
    def do(*words):
        subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words],
            check=True,
            capture_output=True,
        )

    monkeypatch.setattr(record, "ROOT", tmp_path)
    assert record.git() is None
    (tmp_path / "mtrestore").mkdir()
    (tmp_path / "mtrestore" / "a.py").write_text("1")
    do("init")
    do("add", ".")
    do("commit", "-m", "a")
    said = record.git()
    assert len(said["commit"]) == 40 and said["dirty"] is False
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "b.png").write_text("not code")
    assert record.git()["dirty"] is False
    (tmp_path / "mtrestore" / "b.py").write_text("2")
    assert record.git() == said | {"dirty": True}
    monkeypatch.setattr(
        record, "ROOT", tmp_path / "outputs"
    )  # an environment inside somebody's repository
    assert record.git() is None


def test_a_notebook_opened_in_jupyter_is_known(tmp_path, monkeypatch):
    notebook = tmp_path / "mine.ipynb"
    notebook.write_text("{}")
    monkeypatch.delenv(record.NOTEBOOK, raising=False)
    monkeypatch.setenv("JPY_SESSION_NAME", str(notebook))
    made = record.provenance({})
    assert made["notebook"] == str(notebook) and made["sha256"] == hashlib.sha256(b"{}").hexdigest()
    monkeypatch.setenv("JPY_SESSION_NAME", "gone.ipynb")
    assert record.provenance({})["notebook"] is None


def test_a_disk_that_is_full_leaves_whole_files_only(tmp_path, monkeypatch):
    folder = Run(tmp_path).save({"a": 1}, rows=[{"picture": "a"}])
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(image.ImageError, match="No space left"):
        Run(tmp_path).save({"a": 2}, rows=[{"picture": "b"}])
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_figure_called_curves_is_refused_with_a_hint(tmp_path):
    with pytest.raises(ValueError, match="curves must be .*got Figure; give a figure another name"):
        Run(tmp_path).save({"a": 1}, curves=plt.figure())


def test_many_runs_make_a_table(tmp_path):
    pytest.importorskip("pandas")
    Run(tmp_path / "one", size=64, psnr="target").save(
        {"psnr": 30.0, "seconds": 2.0, "odd": float("inf")}
    )
    Run(tmp_path / "two", size=32).save({"psnr": 20.0})
    record.write_json(
        tmp_path / "two" / "status.json",
        {"status": "done", "seconds": 5.0, "error": None, "parameters": {"size": 33}},
    )
    Run(tmp_path / "three", size=16).save({"psnr": 10.0})
    record.write_json(
        tmp_path / "three" / "status.json",
        {"status": "failed", "seconds": 1.0, "error": "ValueError: no"},
    )
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "status.json").write_text('{"status": "do')
    (tmp_path / "notes").mkdir()
    table = record.runs(tmp_path).set_index("run")
    assert list(table.index) == ["one", "three", "torn", "two"]
    assert dict(table["status"]) == {
        "one": "done",
        "two": "done",
        "three": "failed",
        "torn": "failed",
    }
    assert (
        table.loc["one", "psnr"] == "target"
        and table.loc["one", "psnr (metric)"] == 30
        and table.loc["one", "seconds (metric)"] == 2
    )
    assert np.isnan(table.loc["one", "odd"])
    assert (
        table.loc["two", "size"] == 33
        and table.loc["two", "seconds"] == 5
        and table.loc["two", "psnr (metric)"] == 20
    )
    assert table.loc["three", "error"] == "ValueError: no"
    assert np.isnan(table.loc["three", "psnr (metric)"]), "numbers of a failed run do not count"
    assert table.attrs == {
        "parameters": ["size", "psnr"],
        "metrics": ["psnr (metric)", "seconds (metric)", "odd"],
    }
    with pytest.raises(FileNotFoundError, match="no run in"):
        record.runs(tmp_path / "notes")


def test_a_folder_that_is_no_runs_stays_as_it_is(tmp_path):
    (tmp_path / "rows.json").write_text("mine")
    with pytest.raises(image.ImageError, match="no run of ours"):
        Run(tmp_path).save({"a": 1}, rows=[{"picture": "a"}])
    assert [p.name for p in tmp_path.iterdir()] == ["rows.json"] and (
        tmp_path / "rows.json"
    ).read_text() == "mine"
    again = Run(tmp_path / "new").save({"a": 1})
    assert Run(again).save({"a": 2}) == again and record.read_json(again / "metrics.json") == {
        "a": 2
    }
