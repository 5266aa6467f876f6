"""Every notebook runs from a fresh kernel, in a folder of its own, with tiny parameters."""

import json

import papermill
import pytest

TINY = {
    "00_tour": {"preset": "severe", "working_size": 256},
    "30_whole_system": {"side": 700, "working_size": 256, "scale": 1.0},
}


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
    assert numbers["psnr_out"] > numbers["psnr_in"]
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
