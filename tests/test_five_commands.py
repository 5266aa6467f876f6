"""From a folder of anybody's photos to a trained net and a sweep: five commands, no file more."""

import csv
import json

import pytest
import yaml

from mtrestore.cli import main
from mtrestore.lab import evaluate, sweep

pytestmark = pytest.mark.slow
JUDGED = ["--what", "faces", "--seeds", "1", "--size", "64", "--no-nlm"]


def run(capsys, *words) -> str:
    """What a command prints; it has to succeed."""
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def gains(rows, method) -> dict[str, float]:
    base = {row["fault"]: row["psnr"] for row in rows if row["method"] == "input"}
    return {r["fault"]: r["psnr"] - base[r["fault"]] for r in rows if r["method"] == method}


def small(file, tmp_path, **parameters):
    """The project's sweep in small numbers."""
    settings = yaml.safe_load(file.read_text())
    settings["parameters"] |= parameters
    (tmp_path / file.name).write_text(yaml.safe_dump(settings))
    return tmp_path / file.name


def test_five_commands(shoebox, root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate, "SEVERITIES", ("medium",))
    own = sorted(shoebox.iterdir())
    said = run(capsys, "prepare", shoebox, "-o", "faces", "--size", "64")
    assert "3  train_faces" in said and "3  dev_eval/faces_clean" in said and "2  people" in said
    assert "1  no face" in said and "1  unreadable" in said

    run(capsys, "evaluate", "faces/dev_eval", *JUDGED, "--json", "before.json")
    settings = root / "experiments/train/own_face.yaml"
    words = ["train", "face", "--settings", settings, "--data", "faces", "--steps", "4"]
    assert "4 steps done, run in runs/own_face" in run(capsys, *words)
    net = "mine=runs/own_face/face.safetensors"
    run(capsys, "evaluate", "faces/dev_eval", *JUDGED, "--net", net, "--json", "after.json")
    before, after = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("before", "after"))
    assert {row["n"] for row in after} == {3} and {row["fault"] for row in after} == {"medium"}
    assert gains(before, "default") == gains(after, "default") and not gains(before, "mine")
    assert -1 < gains(after, "mine")["medium"] < 3 and gains(after, "mine")["medium"] != 0

    file = small(
        root / "experiments/own_faces.yaml", tmp_path, steps=2, batch=2, lesson=32, width=[4] * 6
    )
    assert "2 done, 0 failed" in run(capsys, "sweep", file, "--data", "faces", "--jobs", "1")
    with (tmp_path / "runs/sweeps/own_faces/table.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["run"] for row in rows] == ["seed=0", "seed=1"]
    judged = json.loads((tmp_path / "runs/sweeps/own_faces/seed=0/rows.json").read_text())
    people = {row["picture"] for row in judged}
    assert people == {"faces/00000", "faces/00001", "faces/00002", "sample"}
    assert sorted(shoebox.iterdir()) == own


def test_the_files_of_own_faces_are_those_of_the_page(root):
    page = (root / "docs/own_faces.md").read_text()
    points = sweep.read(root / "experiments/own_faces.yaml", root).points
    assert list(points) == ["seed=0", "seed=1"]
    commands = [line.split("#")[0].split() for line in page.splitlines() if "    mtr" in line][:5]
    verbs = [words[1] for words in commands]
    assert verbs == ["prepare", "evaluate", "train", "evaluate", "sweep"]
    files = [word for words in commands for word in words if word.endswith(".yaml")]
    assert files == ["experiments/train/own_face.yaml", "experiments/own_faces.yaml"]
    assert all((root / file).is_file() for file in files)
