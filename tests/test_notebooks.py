"""Every notebook runs from a fresh kernel, in a folder of its own, with tiny parameters."""

import json

import papermill
import pytest

TINY = {
    "00_tour": {"preset": "severe", "working_size": 256},
    "11_face_network": {"size": 64, "steps": 2, "batch": 2},
    "12_gan_prior": {"size": 32, "steps": 4, "every": 2, "batch": 4},
    "13_face_restoration": {"size": 32, "steps": 2, "batch": 2},
    "30_whole_system": {"side": 700, "working_size": 256, "scale": 1.0},
}


def restores(n):
    return n["psnr_out"] > n["psnr_in"]


def counts_parameters(n):
    a, b, c, d = (n[f"parameters_S_{join}"] for join in ("none", "add", "concat", "add-matched"))
    return a == b < c <= d < 1.001 * c


def draws_different_faces(n):
    return n["variety"] > 0.01 and all(n[f"spread_{level}"] > 0 for level in range(6))


def trains_all_three_and_compares(n):
    moved = all(n[f"moved_{part}"] > 0 for part in ("encoder", "decoder", "discriminator"))
    return moved and all(n[f"psnr_{severity}_face_fidelity"] > n[f"psnr_{severity}_input"] for severity in ("medium", "severe"))


CHECKS = {
    "11_face_network": counts_parameters,
    "12_gan_prior": draws_different_faces,
    "13_face_restoration": trains_all_three_and_compares,
}  # what a run's numbers must say; where nothing stands here: the result is nearer to the truth than the input


def notebooks():
    from conftest import ROOT

    return sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_runs_and_leaves_its_numbers(path, tmp_path):
    parameters = {"out": str(tmp_path / "out"), **TINY.get(path.stem, {})}
    known = papermill.inspect_notebook(path)
    assert set(parameters) <= set(known), "papermill would only warn about these"
    papermill.execute_notebook(path, tmp_path / "run.ipynb", parameters, cwd=tmp_path, progress_bar=False, kernel_name="python3")
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert numbers and all(isinstance(v, float) for v in numbers.values())
    assert CHECKS.get(path.stem, restores)(numbers), numbers
    outputs = [o for c in json.loads((tmp_path / "run.ipynb").read_text())["cells"] for o in c.get("outputs", [])]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    assert any("text/html" in o.get("data", {}) for o in outputs)
    assert not any(o["output_type"] == "error" for o in outputs)


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_is_committed_clean(path):
    n = json.loads(path.read_text())
    tags = [c["metadata"].get("tags", []) for c in n["cells"]]
    assert sum("parameters" in t for t in tags) == 1
    assert not any(c.get("outputs") or c.get("execution_count") for c in n["cells"])
    assert len({c["id"] for c in n["cells"]}) == len(n["cells"])
