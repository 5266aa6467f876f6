"""Every notebook runs from a fresh kernel, in a folder of its own, with tiny parameters."""

import ast
import copy
import json
import os
import re
import subprocess
import sys

import papermill
import pytest

TINY = {
    "00_tour": {},  # as it comes: its words are about these numbers
    "10_faces_and_crops": {"draws": 9},
    "11_face_network": {"size": 64, "steps": 2, "batch": 2},
    "12_gan_prior": {"size": 32, "steps": 4, "every": 2, "batch": 4},
    "13_face_restoration": {"size": 32, "steps": 2, "batch": 2},
    "14_what_did_not_work": {"batch": 4, "count": 4, "steps": 60},
    "15_toy_gan": {"steps": 60, "every": 30},
    "20_degradations": {"size": 64, "draws": 4},
    "21_low_resolution": {"sizes": [256, 128, 64], "core": 64, "overlaps": [0, 16]},
    "22_guided_filter": {"size": 256},
    "23_refiner": {"ratios": [4], "noise": [25.0], "steps": 2, "batch": 2},
    "24_sharpener": {"size": 256},
    "30_whole_system": {"side": 512, "working_size": 256, "scale": 1.0},
}


SWEPT = {name: TINY.get(name, {}) for name in TINY} | {
    "00_tour": {"preset": "severe", "working_size": 256}
}
WITH_DATA = ("10_faces_and_crops", "11_face_network", "12_gan_prior", "13_face_restoration")


def restores(n):
    return n["psnr_out"] > n["psnr_in"]


def carries_its_words(n):
    """A noisy draw: much nearer, and with fine detail nearer to the truth's."""
    nearer = restores(n) and n["gain_face"] > 3 and n["gain_background"] > 6
    worn, restored = n["sharpness_worn"], n["sharpness_restored"]
    return nearer and worn > 1.5 and abs(restored - 1) < 0.6


def counts_parameters(n):
    a, b, c, d = (n[f"parameters_S_{join}"] for join in ("none", "add", "concat", "add-matched"))
    return a == b < c <= d < 1.001 * c and all(
        n[f"psnr_severe_{join}"] > 10 for join in ("none", "add", "concat", "add-matched")
    )


def plays_the_game(n):
    """The shortest run: points were drawn, and the balance moved off a half."""
    return n["near"] >= 0 and n["balance_most"] > 0.5 and n["critic"] > 0


def draws_different_faces(n):
    """Its own few steps vary; in the shipped prior s/32 decides, and every tensor is heard."""
    heard = all(n[f"spread_{level}"] > 0 for level in range(6))
    return n["variety"] > 0.01 and heard and n["share_s_32"] > 0.9


def shows_each_failure(n):
    he, default = n["off_he"], n["off_default"]  # how far the deepest features lie from 0
    rising = n["energy_real"] < n["energy_24"] < n["energy_12"] < n["energy_3"]
    return he < 1 < 3 < default and rising and n["share_plain_s_32"] < 0.5 < n["share_s_32"]


def trains_all_three_and_compares(n):
    moved = all(n[f"moved_{part}"] > 0 for part in ("encoder", "decoder", "discriminator"))
    return moved and all(
        n[f"psnr_{severity}_face_fidelity"] > n[f"psnr_{severity}_input"]
        for severity in ("medium", "severe")
    )


def tunes_the_filter(n):
    published, *others = (
        n[f"psnr_x4_noise25_{arm}"]
        for arm in ("published", "tuned", "refiner-alone", "refiner", "adaptive")
    )
    return (
        n["tuned_eps"] > 1e-6
        and min(others) > published + 0.5
        and n["parameters_refiner"] - n["parameters_refiner-alone"] == 3 * 9 * 4
    )


def replays_every_fault(n):
    every = n["replays"] == 1 and n["operations"] == n["operations_known"]
    return (
        every
        and n["psnr_mild"] > n["psnr_severe"]
        and n["coherence_blur"] > 2 * n["coherence_blur_then_noise"]
    )


def shows_what_shrinking_costs(n):
    seamless = n["seam_0"] > 1 and n[f"seam_{n['reach']:.0f}"] < 1e-3  # levels of 255
    shrunk = (
        n["noise_64"] < n["noise_256"] / 2 and n["lost_64"] > n["lost_128"] > n["lost_256"] == 0
    )
    return seamless and shrunk and n["psnr_back_64"] > n["psnr_enlarged_64"] + 1


def measures_the_leak(n):
    leaks = min(n["psnr_0.001"], n["psnr_without_leak_1e-08"]) > n["psnr_1e-08"] + 1
    return (
        leaks
        and max(n["difference_layer"], n["difference_deep"]) < 1e-6
        and n["float32_error_1e-08"] > 0.5 > 100 * n["float32_error_0.001"]
    )


def sharpens_and_knows_where_not(n):
    sharper = (
        n["psnr_x2_sharpener"] > n["psnr_x2_bicubic"] + 0.5
        and n["psnr_blur_1.5_sharpener_x1"] > n["psnr_blur_1.5_input"] + 0.5
    )
    return (
        sharper
        and n["noise_10_x1"] < 1.2 < n["noise_10_unsharp"]
        and n["gain_jpeg_20_x1"] > n["gain_jpeg_20_unsharp"]
    )


def upright(n):
    return n["tilt_median"] < 4 and n["tilt_p95"] < 10 and n["coverage"] > 0.99


def cuts_upright(n):
    return restores(n) and upright(n)


def meets_faces_and_failures(n):
    return (
        restores(n)
        and n["group_faces"] >= 2
        and n["failures_restored"] == 5
        and n["seconds_total"] > n["seconds_restore"] > 0
    )


CHECKS = {
    "00_tour": carries_its_words,
    "10_faces_and_crops": cuts_upright,
    "11_face_network": counts_parameters,
    "12_gan_prior": draws_different_faces,
    "13_face_restoration": trains_all_three_and_compares,
    "14_what_did_not_work": shows_each_failure,
    "15_toy_gan": plays_the_game,
    "20_degradations": replays_every_fault,
    "21_low_resolution": shows_what_shrinking_costs,
    "22_guided_filter": measures_the_leak,
    "23_refiner": tunes_the_filter,
    "24_sharpener": sharpens_and_knows_where_not,
    "30_whole_system": meets_faces_and_failures,
}  # what a run's numbers must say; where nothing stands here: the result is nearer to the truth


def reads_a_finished_experiment(n):
    return "clear" in n and len(n) > 2


CHECKS |= dict.fromkeys(
    ("40_report_skips", "41_report_refiner", "42_report_crops"), reads_a_finished_experiment
)


def notebooks():
    from conftest import ROOT

    return sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_runs_and_leaves_its_numbers(path, tmp_path):
    results = path.parents[1] / f"experiments/results/{path.stem.split('_')[-1]}.json"
    if "_report_" in path.stem and not results.is_file():
        pytest.skip(f"{results.name} is not there: its experiment has not been run")
    parameters = {"out": str(tmp_path / "out"), **TINY.get(path.stem, {})}
    known = papermill.inspect_notebook(path)
    assert set(parameters) <= set(known), "papermill would only warn about these"
    examined = tmp_path / "examined.ipynb"
    examined.write_text(json.dumps(answered(json.loads(path.read_text()))))
    papermill.execute_notebook(
        examined,
        tmp_path / "run.ipynb",
        parameters,
        cwd=tmp_path,
        progress_bar=False,
        kernel_name="python3",
    )
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert numbers and all(isinstance(v, float) for v in numbers.values())
    assert CHECKS.get(path.stem, restores)(numbers), numbers
    outputs = [
        o
        for c in json.loads((tmp_path / "run.ipynb").read_text())["cells"]
        for o in c.get("outputs", [])
    ]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    assert any("text/html" in o.get("data", {}) for o in outputs)
    assert not any(o["output_type"] == "error" for o in outputs)
    cells = json.loads((tmp_path / "run.ipynb").read_text())["cells"]
    said = {
        c["id"]: "".join(c["outputs"][-1]["data"]["text/plain"])
        for c in cells
        if "exercise" in c["metadata"].get("tags", [])
    }
    for name, words in said.items():
        start = {"solved": "right", "wrong": "not yet: "}.get(name.split("-")[-1], "not answered")
        assert ast.literal_eval(words).startswith(start), (name, words)
    assert len(said) >= 3


def test_the_joint_stage_begins_with_the_prior_and_its_discriminator(tmp_path, root):
    """Notebook 13 up to its short training, as experiments/prior.yaml asks for it."""
    whole = json.loads((root / "notebooks/13_face_restoration.ipynb").read_text())
    names = [cell["id"] for cell in whole["cells"]]
    cells = whole["cells"][: names.index("13-09") + 1]
    said = "print(type(stage.adversary.critic).__name__, net.draws, stage.adversary.ready)"
    cells.append(copy.deepcopy(cells[-1]) | {"id": "said", "source": said})
    short = tmp_path / "short.ipynb"
    short.write_text(json.dumps(whole | {"cells": cells}))
    parameters = {"size": 32, "steps": 2, "batch": 2, "start": "prior", "out": str(tmp_path)}
    parameters["critic"] = str(root / "experiments/train/prior_critic.safetensors")
    options = {"cwd": tmp_path, "progress_bar": False, "kernel_name": "python3"}
    ran = papermill.execute_notebook(short, None, parameters, **options)
    assert ran.cells[-1].outputs[-1]["text"] == "SpectralCritic True True\n"


def standing_for_all(*numbers):
    """Notebooks of these numbers; every one where MTRESTORE_EVERY is set, which takes minutes."""
    every = os.environ.get("MTRESTORE_EVERY")
    return [path for path in notebooks() if every or path.name[:2] in numbers]


@pytest.mark.slow
@pytest.mark.parametrize("path", standing_for_all("40"), ids=lambda p: p.stem)
def test_runs_through_a_sweep(path, tmp_path, request, capsys):
    """By its name alone, on own faces where it takes some; it leaves what it was given."""
    from mtrestore.cli import main

    known = papermill.inspect_notebook(path)
    plan = {"notebook": path.stem, "parameters": SWEPT.get(path.stem, {})}
    plan |= {"seeds": [3]} if "seed" in known else {"grid": {"metric": [""]}}
    words = ["sweep", str(tmp_path / "plan.yaml"), "-o", str(tmp_path / "out"), "--jobs", "1"]
    if path.stem in WITH_DATA:
        words += ["--data", str(request.getfixturevalue("own_faces"))]
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    assert main(words) == 0, capsys.readouterr()
    (folder,) = (p.parent for p in (tmp_path / "out").glob("*/status.json"))
    numbers, run = (json.loads((folder / f"{n}.json").read_text()) for n in ("metrics", "run"))
    check = {"00_tour": restores, "10_faces_and_crops": upright}.get(path.stem)
    assert (check or CHECKS.get(path.stem, restores))(numbers), numbers
    given = plan["parameters"] | {name: values[0] for name, values in plan.get("grid", {}).items()}
    given |= {"seed": 3} if "seed" in known else {}
    assert given.items() <= run["parameters"].items()
    assert run["notebook"] == f"notebooks/{path.name}"
    if path.stem in WITH_DATA and path.stem != "12_gan_prior":  # that one judges no pictures
        pictures = {row["picture"] for row in json.loads((folder / "rows.json").read_text())}
        assert sum(name.startswith("faces/") for name in pictures) == 3


def test_runs_from_the_command_line_of_papermill(root, tmp_path):
    """Plain `papermill -p`, without anything of ours around it."""
    words = ["-p", "out", str(tmp_path / "out"), "-p", "steps", "30", "-p", "every", "15"]
    words += [str(root / "notebooks/15_toy_gan.ipynb"), str(tmp_path / "run.ipynb")]
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", *words]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert json.loads((tmp_path / "out/run.json").read_text())["parameters"]["steps"] == 30
    assert plays_the_game(json.loads((tmp_path / "out/metrics.json").read_text()))


def answered(notebook):
    """The notebook with each exercise asked thrice: unanswered, with its solution, and wrongly."""
    cells = []
    for cell, after in zip(notebook["cells"], [*notebook["cells"][1:], None], strict=True):
        cells.append(cell)
        if "exercise" in cell["metadata"].get("tags", []):
            given, rest = "".join(cell["source"]).split("\n", 1)
            assert re.match(r"answer = None\b", given)
            for name, answer in (("solved", solution(after)), ("wrong", "answer = -987654.0")):
                other = copy.deepcopy(cell) | {"id": f"{cell['id']}-{name}"}
                cells.append(other | {"source": f"{answer}\n{rest}"})
    return notebook | {"cells": cells}


def solution(cell):
    """The code in the folded answer, which stands first in the cell below its exercise."""
    text = "".join(cell["source"])
    assert text.startswith("<details><summary>A solution</summary>\n\n```python\n")
    return text.split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_is_committed_clean(path):
    n = json.loads(path.read_text())
    tags = [c["metadata"].get("tags", []) for c in n["cells"]]
    assert sum("parameters" in t for t in tags) == 1
    assert not any(c.get("outputs") or c.get("execution_count") for c in n["cells"])
    assert len({c["id"] for c in n["cells"]}) == len(n["cells"])


# ---- how a notebook is written

LONGEST = 12  # lines of a code cell


def cells_of(path, kind="code"):
    """The cells of a kind: (id, tags, source)."""
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]
    return [(c["id"], c["metadata"].get("tags", []), "".join(c["source"])) for c in cells]


def private(source):
    """Names with a leading underscore that a cell takes from elsewhere: attributes and imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {part for a in node.names for part in a.name.split(".")}
            names |= set((getattr(node, "module", "") or "").split("."))
    return {name for name in names if re.match(r"_[^_]", name)}


def bound(source):
    """Names that a cell binds at its top level, in loops and with statements as well."""
    tree, names = ast.parse(source), set()
    inner = [
        n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda, ast.ListComp))
    ]
    inner += [n for n in ast.walk(tree) if isinstance(n, (ast.DictComp, ast.SetComp))]
    inner += [n for n in ast.walk(tree) if isinstance(n, ast.GeneratorExp)]
    local = {id(n) for scope in inner for n in ast.walk(scope)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in local:
            names.add(node.id)
    return names


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_cells_are_short(path):
    long = {i: n for i, _, s in cells_of(path) if (n := len(s.splitlines())) > LONGEST}
    assert not long


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_takes_public_names_only(path):
    assert not {i: names for i, _, source in cells_of(path) if (names := private(source))}


def bodies():
    """(definition as it is written, notebook) of every function and class of every notebook."""
    for path in notebooks():
        for _, _, source in cells_of(path):
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    yield node.name, ast.dump(ast.Module(node.body, [])), path.stem


def test_no_two_notebooks_define_the_same():
    names, same = {}, {}
    for name, body, notebook in bodies():
        names.setdefault(name, set()).add(notebook)
        same.setdefault(body, set()).add(notebook)
    shared = {name: sorted(where) for name, where in names.items() if len(where) > 1}
    assert not shared, "a function that two notebooks use belongs to the package"
    assert not [where for where in same.values() if len(where) > 1], "copies under two names"


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_the_parameters_are_the_first_literals_and_stay_as_they_are(path):
    """So that `tagged` finds them, and a run's record says what it was run with."""
    from mtrestore.lab.page import assigned

    cells = cells_of(path)
    first = next(i for i, (_, _, source) in enumerate(cells) if assigned(source))
    assert "parameters" in cells[first][1]
    names = assigned(cells[first][2])
    assert names and "out" in names and all("#" in s for s in cells[first][2].splitlines())
    for number, _, source in cells[first + 1 :]:
        assert not bound(source) & set(names), (number, "binds a parameter anew")
    assert any("Run(**tagged())" in source for _, _, source in cells)


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_opens_with_what_it_is_for(path):
    opening = cells_of(path, "markdown")[0][2]
    for words in ("**You will be able to** ", "**Before this:** ", "**Time:** "):
        assert opening.count(words) == 1
    assert len(opening.splitlines()[0]) < 90 and opening.startswith(f"# {path.stem[:2]} · ")


def times(path):
    """(seconds to run, minutes to read) that a notebook names in its opening."""
    opening = cells_of(path, "markdown")[0][2]
    words = re.search(r"\*\*Time:\*\* (\d+) seconds to run, (\d+) minutes to read\.", opening)
    return int(words[1]), int(words[2])


def test_readme_names_every_notebook_with_its_own_times(root):
    pattern = r"^\| \[(\w+)\]\(notebooks/\1\.ipynb\) \| .+ \| (\d+) s \| (\d+) min \|"
    lines = re.findall(pattern, (root / "README.md").read_text(), re.M)
    assert [(p.stem, *map(str, times(p))) for p in notebooks()] == lines


def test_a_class_is_of_90_minutes_by_the_notebooks_own(root):
    pattern = r"^\| \[(\d\d)\]\(notebooks/(\1\w+)\.ipynb\) \| (\d+) \|"
    parts = re.findall(pattern, (root / "README.md").read_text(), re.M)
    own = {p.stem: times(p) for p in notebooks()}
    assert [number for number, _, _ in parts] == ["11", "12", "13", "40"]
    assert all(own[name][1] == int(minutes) for _, name, minutes in parts)
    assert sum(int(minutes) for *_, minutes in parts) == 90
    assert all(own[name][0] < 60 * int(minutes) / 5 for _, name, minutes in parts)
    last = cells_of(root / "notebooks/40_report_skips.ipynb", "markdown")[0][2]
    said = re.findall(r"(\d+) for (?:\[(\d+)\]|this)", last.replace("minutes ", ""))
    assert [(n or "40", m) for m, n in said] == [(number, m) for number, _, m in parts]


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_draws_its_idea(path):
    """Boxes and arrows before the first third of its code is over."""
    sources = [source for _, _, source in cells_of(path)]
    drawn = [i for i, source in enumerate(sources) if "diagram.draw(" in source]
    assert drawn and drawn[0] < max(4, len(sources) / 3)


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_reads_nothing_that_was_not_given(path):
    """No path but those of `out`, `data`, `photo`, `results`: no other folder of this machine."""
    for number, _, source in cells_of(path):
        texts = [n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant)]
        texts = [t for t in texts if isinstance(t, str)]
        assert not [t for t in texts if re.match(r"/\w|~|\.\.", t)], number


@pytest.mark.parametrize("path", notebooks(), ids=lambda p: p.stem)
def test_links_lead_to_notebooks(path):
    text = "\n".join(source for _, _, source in cells_of(path, "markdown"))
    links = re.findall(r"\]\(([\w.]+\.ipynb)\)", text)
    assert links and all((path.parent / link).is_file() for link in links)


def test_the_rules_find_what_breaks_them():
    assert private("restorer._landmark_net") == {"_landmark_net"}
    assert private("from mtrestore.view import _size") == {"_size"}
    assert private("import mtrestore._moved\nx.__class__") == {"_moved"}
    assert bound("for size in sizes:\n    pass") == {"size"}
    assert bound("a = [seed for seed in range(3)]\nwith f() as (b, c): d += 1") == set("abcd")


def records():
    from conftest import ROOT

    return sorted((ROOT / "experiments" / "results").glob("*.json"))


@pytest.mark.parametrize("path", records(), ids=lambda p: p.stem)
def test_notebooks_still_take_what_the_committed_runs_were_given(path):
    """Their sha256 is that of before, so `rerun` wants --changed; then it can run them."""
    from mtrestore.lab import execute

    bundle = json.loads(path.read_text())
    for run in bundle["runs"]:
        notebook = path.parents[2] / run["notebook"]
        known, _ = execute.inspect(notebook)
        given = bundle["fixed"] | run["parameters"]
        assert given.keys() <= known.keys()
        assert execute.check(given, known, notebook.name).keys() == given.keys()
