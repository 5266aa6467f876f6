"""A sweep runs what it can, tells what failed, and goes on where it was; a repeated run gives its
numbers again.
"""

import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from mtrestore.cli import main
from mtrestore.lab import execute, repeat, report, sweep
from mtrestore.lab.record import ROOT, provenance, write_json
from mtrestore.lab.repeat import TIMES, Repeat, agree, rerun

TINY = Path(__file__).parent / "notebooks" / "tiny.ipynb"
FAULTS = {"concat 1": "raise", "add 0": "raise", "add 2": "worker"}
NAMES = [f"join={join},seed={seed}" for join in ("concat", "add") for seed in range(4)]
LEFT = ["join=concat,seed=1", "join=add,seed=0", "join=add,seed=2"]


def write(folder, **settings):
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump({"notebook": str(TINY), **settings}, sort_keys=False))
    return file


def numbers(out):
    """run -> its metrics, without the time."""
    found = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/metrics.json")}
    return {
        name: {k: v for k, v in metrics.items() if k != "seconds"}
        for name, metrics in found.items()
    }


def texts(folder):
    """What stands in the cells' outputs of run.ipynb, which has to be whole."""
    cells = json.loads((folder / "run.ipynb").read_text())["cells"]
    return "".join(
        str(o.get("text", o.get("evalue", ""))) for c in cells for o in c.get("outputs", [])
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "faults.json").write_text(json.dumps(FAULTS))
    write(
        folder,
        parameters={"size": 6, "scale": 2, "faults": "./faults.json"},
        grid={"join": ["concat", "add"]},
        seeds=[0, 1, 2, 3],
    )
    return folder


@pytest.fixture(scope="module")
def swept(place):
    """Eight runs: two fail on purpose, and the process of one is killed with -9."""
    return sweep.run(sweep.read(place / "tiny.yaml"), place / "out").set_index("run")


def test_two_fail_one_is_killed_and_five_are_done(swept, place):
    assert list(swept.index) == NAMES
    assert (
        list(swept.index[swept["status"] != "done"]) == LEFT
        and (swept.loc[LEFT, "status"] == "failed").all()
    )
    assert (
        swept.loc[LEFT[0], "error"] == "ValueError: told to fail with seed 1 (cell 5)"
        and "SIGKILL" in swept.loc[LEFT[2], "error"]
    )
    assert len(numbers(place / "out")) == 5 and (swept["letters"].dropna() == [6, 6, 6, 3, 3]).all()
    assert (place / "out" / "table.csv").read_text().count("\n") == 9
    for name in NAMES:
        said = texts(place / "out" / name)
        assert "xxx" in said and ("last cell" in said) == (name not in LEFT), (
            "the notebook is there, up to the cell that failed"
        )
    made = json.loads((place / "out" / NAMES[0] / "run.json").read_text())
    assert (
        made["notebook"] == "tests/notebooks/tiny.ipynb"
        and made["sha256"] == sweep.read(place / "tiny.yaml").sha256
    )
    assert not list((place / "out").glob("*/.run.ipynb"))


def test_a_cluster_gives_the_same_numbers(swept, place, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the extra `dask`")
    options = {
        "dashboard_address": None,
        "n_workers": 2,
        "threads_per_worker": 1,
        "processes": True,
        "silence_logs": 50,
    }
    with distributed.LocalCluster(**options) as cluster:
        table = sweep.run(
            sweep.read(place / "tiny.yaml"), tmp_path, dask=cluster.scheduler_address
        ).set_index("run")
    assert (table["status"] == swept["status"]).all() and (
        table["error"].fillna("") == swept["error"].fillna("")
    ).all()
    assert numbers(tmp_path) == numbers(place / "out")
    with pytest.raises(ValueError, match="no Dask cluster"):
        sweep.run(sweep.read(place / "tiny.yaml"), tmp_path / "late", dask="tcp://127.0.0.1:9")


def test_slurm_jobs_give_the_same_numbers(swept, place, tmp_path):
    pytest.importorskip("submitit", reason="needs the extra `slurm`")
    plan = sweep.read(
        write(tmp_path, parameters={"size": 6, "scale": 2}, seeds=[3], slurm={"timeout_min": 5})
    )
    assert list(sweep.run(plan, tmp_path / "out", slurm=True)["status"]) == ["done"]
    assert numbers(tmp_path / "out") == {"seed=3": numbers(place / "out")["join=concat,seed=3"]}
    plan.settings["slurm"]["colour"] = "red"
    with pytest.raises(ValueError, match="slurm: .*colour.* is not what submitit takes"):
        sweep.run(plan, tmp_path / "out", slurm=True, overwrite=True)


def test_resume_does_just_what_is_left(swept, place, capsys):
    kept = {
        path: path.stat().st_mtime_ns
        for path in (place / "out").glob("*/*")
        if path.parent.name not in LEFT
    }
    (place / "faults.json").write_text(json.dumps({"add 2": "silent"}))
    assert "5 done, 3 to do" in sweep.forecast(sweep.read(place / "tiny.yaml"), place / "out")
    assert main(["sweep", str(place / "tiny.yaml"), "-o", str(place / "out"), "--resume"]) == 3
    said = capsys.readouterr().out
    assert "3/3" in said and "7 done, 1 failed" in said and "left no metrics.json" in said
    assert kept == {
        path: path.stat().st_mtime_ns
        for path in (place / "out").glob("*/*")
        if path.parent.name not in LEFT
    }
    assert set(numbers(place / "out")) == set(NAMES) - {LEFT[2]}


@pytest.mark.parametrize("settings, said", [
    ({"grid": {"joint": ["add"]}}, "has no parameter 'joint' to set; it has size, scale, join"),
    ({"parameters": {"out": "here"}, "seeds": [0]}, "no parameter 'out' to set"),
    ({"grid": {"size": [4, 4.5]}}, "size must be a whole number like 4, got 4.5"),
    ({"grid": {"size": [4, True]}}, "size must be a whole number like 4, got True"),
    ({"grid": {"join": ["add", 3]}}, "join must be text like 'concat', got 3"),
    ({"grid": {"flag": [0, 1]}}, "flag must be true or false like False, got 0"),
    ({"grid": {"width": ["XS"]}}, "width must be a list"),
    ({"grid": {"scale": ["1e-3"]}},
    "scale must be a number like 1.0, got '1e-3'; YAML wants a point in it: 1.0e-3"),
    ({"grid": {"scale": [float("nan")]}}, "plain, finite value, got nan"),
    ({"grid": {"join": []}}, "grid needs a list of values"),
    ({"grid": {"join": "add"}}, "grid needs a list of values"),
    ({"parameters": {"size": 3}}, "nothing to run"),
    ({"grid": {"scale": [1, 1.0]}}, "the point scale=1 comes twice"),
    ({"seeds": [0, "1"]}, "seeds must be whole numbers"),
    ({"seeds": [0], "grid": {"seed": [1]}}, "seeds must be whole numbers and the grid without"),
    ({"parameters": {"join": "add"}, "grid": {"join": ["add", "none"]}},
    "join stands in parameters and varies as well"),
    ({"seeds": [0], "paramters": {}},
    "unknown setting 'paramters'; known are notebook, parameters"),
    ({"seeds": [0], "parameters": ["size"]}, "parameters must be a mapping"),
    ({"seeds": [0], "estimate": 0}, "estimate must be seconds above 0"),
    ({"seeds": [0], "notebook": "gone.ipynb"}, "no notebook at"),
    ({"seeds": [0], "notebook": "tiny.yaml"}, "not a notebook that can be read"),
])  # fmt: skip
def test_what_cannot_run_is_refused_before_anything_runs(settings, said, tmp_path, capsys):
    file = write(tmp_path, **settings)
    assert main(["sweep", str(file), "-o", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert (
        said in told.err
        and told.err.count("\n") == 1
        and not told.out
        and not (tmp_path / "out").exists()
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"grid": {k: list(range(1499)) for k in ("size", "scale", "join", "flag")}},
            "make over a million million points, more than 10,000",
        ),
        ({"grid": {"size": list(range(101)), "scale": list(range(100))}}, "make 10,100 points"),
        ({"grid": {"size": list(range(101))}, "seeds": list(range(100))}, "make 10,100 points"),
        ({"grid": {f"n{i}": [0, 1] for i in range(2000)}}, "make over a million million points"),
        ({"grid": {"size": [10**500]}}, "size must be a number that 64 bits hold"),
        ({"grid": {"scale": [10**400]}}, "scale must be a number that 64 bits hold"),
        ({"seeds": [2**63]}, "seed must be a number that 64 bits hold"),
        ({"seeds": [0], "estimate": 1e300}, "estimate must be seconds above 0, at most 1e8"),
        ({"seeds": [0], "estimate": float("inf")}, "estimate must be seconds above 0"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_a_sweep_without_end_is_refused_before_its_points_are_made(
    settings, said, tmp_path, capsys
):
    file, began = write(tmp_path, **settings), time.process_time()
    for options in (["--dry-run"], ["-o", str(tmp_path / "out")]):
        assert main(["sweep", str(file), *options]) == 1
        told = capsys.readouterr()
        assert said in told.err and told.err.count("\n") == 1 and not told.out
    assert time.process_time() - began < 4 and not (tmp_path / "out").exists()


def test_ten_thousand_points_are_read_soon(tmp_path):
    grid = {"size": list(range(100)), "scale": [n / 2 for n in range(100)]}
    file, began = write(tmp_path, grid=grid, parameters={"join": "x" * 500}), time.process_time()
    points = sweep.read(file).points
    assert len(points) == 10_000 and points["size=99,scale=49.5"]["scale"] == 49.5
    assert time.process_time() - began < 5


def test_a_file_that_is_no_yaml_and_a_wrong_command_are_refused(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("notebook: [")
    assert (
        main(["sweep", str(tmp_path / "a.yaml")]) == 1 and "is not YAML" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit) as e:
        main(["sweep", "a.yaml", "--slurm", "--dask", "tcp://a:1"])
    assert e.value.code == 2


def surrogate(cell, kind):
    """Half a character, as \\ud800 in JSON, at some place of a notebook."""
    half = "\ud800"
    places = {
        "source": ("source", ["out = ''\n", f"a = '{half}'\n"]),
        "comment": ("source", [f"out = ''  # {half}\n"]),
        "name": ("source", ["out = ''\n", f"{half} = 1\n"]),
        "tag": ("metadata", {"tags": ["parameters", half]}),
        "id": ("id", half),
        "kind": ("cell_type", half),
    }
    name, value = places[kind]
    cell[name] = value


@pytest.mark.parametrize("kind", ["source", "comment", "name", "tag", "id", "kind"])
def test_half_a_character_in_a_notebook_is_one_line(kind, tmp_path, capsys):
    content = json.loads(TINY.read_text())
    cells = [c for c in content["cells"] if "parameters" in c["metadata"].get("tags", [])]
    surrogate(cells[0], kind)
    (tmp_path / "n.ipynb").write_text(json.dumps(content))
    file = write(tmp_path, notebook="n.ipynb", seeds=[0])
    assert main(["sweep", str(file), "-o", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and told.err.strip().isprintable() and not told.out
    assert "n.ipynb is not a notebook that can be read: it has half a character" in told.err


@pytest.mark.parametrize("place", ["language_info", "nbformat"])
def test_half_a_character_in_what_describes_a_notebook_is_one_line(place, tmp_path):
    content = json.loads(TINY.read_text())
    if place == "nbformat":
        content["nbformat"] = "\ud800"
    else:
        content["metadata"]["language_info"] = {"name": "\ud800"}
    (tmp_path / "n.ipynb").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is not a notebook that can be read") as e:
        execute.inspect(tmp_path / "n.ipynb")
    assert str(e.value).isprintable()


@pytest.mark.parametrize("default", ["-" * 100_000 + "1", "[" * 300 + "]" * 300, "{[]: 1}"])
def test_a_default_that_python_cannot_take_is_none(default, tmp_path):
    content = json.loads(TINY.read_text())
    cells = [c for c in content["cells"] if "parameters" in c["metadata"].get("tags", [])]
    cells[0]["source"] = ["out = ''\n", f"a = {default}\n"]
    (tmp_path / "n.ipynb").write_text(json.dumps(content))
    assert execute.inspect(tmp_path / "n.ipynb")[0] == {"out": "", "a": None}


def test_a_notebook_of_the_project_goes_by_its_name(tmp_path):
    file = write(tmp_path, notebook="24_sharpener.ipynb", seeds=[0])
    assert sweep.read(file).notebook == ROOT / "notebooks" / "24_sharpener.ipynb"
    (tmp_path / "24_sharpener.ipynb").write_bytes(TINY.read_bytes())  # one beside the file wins
    assert sweep.read(file).notebook == tmp_path / "24_sharpener.ipynb"
    assert sweep.read(write(tmp_path, notebook="11_face_network", seeds=[0])).notebook == (
        ROOT / "notebooks" / "11_face_network.ipynb"
    )
    strange = ("99_none.ipynb", "x" * 500, "x" * 500 + "/a", "..", "")
    for name in ("./11_face_network.ipynb", "notebooks/11_face_network.ipynb", *strange):
        with pytest.raises(FileNotFoundError, match="no notebook at"):
            sweep.read(write(tmp_path, notebook=name, seeds=[0]))


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (SystemExit(143), 143)])
def test_a_stopped_sweep_says_how_to_go_on(error, code, tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise error

    monkeypatch.setattr(sweep, "run", stop)
    file, out = write(tmp_path, seeds=[0]), tmp_path / "my out"
    words = ["sweep", str(file), "-o", str(out), "--jobs", "2", "--overwrite"]
    try:
        assert main(words) == code
    except SystemExit as e:
        assert e.code == code
    said = f"what is done stays; to go on: mtrestore sweep {file} -o '{out}' --jobs=2\n"
    assert said in capsys.readouterr().err


def test_the_table_in_the_terminal_is_words_only(tmp_path, monkeypatch, capsys):
    """Names of numbers are the notebook's, and what is missing is a blank."""
    file, out = write(tmp_path, seeds=[0, 1]), tmp_path / "out"

    def run(points, folder, **_):
        status = {"status": "done", "seconds": 1.0, "error": None}
        for seed in range(2):
            place = Path(folder) / f"seed={seed}"
            place.mkdir(parents=True)
            write_json(place / "status.json", status if seed else {"status": "st\x1b[31m"})
        write_json(place / "metrics.json", {"red\x1b[31m\nline": 2.0})
        return sweep.table(points, out, {})

    monkeypatch.setattr(sweep, "run", run)
    assert main(["sweep", str(file), "-o", str(out)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert all(map(str.isprintable, lines)) and lines[1].split()[-1] == r"red\x1b[31m\nline"
    assert lines[2].split() == ["seed=0", r"st\x1b[31m"] and lines[3].split()[-1] == "2"


def test_points_have_short_safe_names_that_stay(tmp_path):
    file = write(
        tmp_path,
        grid={"join": ["a/b", "é" * 200, "../data", "s", "S"], "width": [[1, 2]], "note": [None]},
        parameters={"scale": 1},
    )
    plan = sweep.read(file)
    assert all(len(name) < 100 and "/" not in name and name.isascii() for name in plan.points)
    assert len({name.casefold() for name in plan.points}) == 5 and list(plan.points) == list(
        sweep.read(file).points
    )
    located = list(plan.points.values())[2]
    assert (ROOT / located["join"]).resolve() == (tmp_path / "../data").resolve(), (
        "paths are seen from the file"
    )
    given = execute.task_of(tmp_path, TINY, "", located, 1)["arguments"]
    assert given["join"] == os.path.normpath(tmp_path / "../data") and given["scale"] == 1.0
    assert list(sweep.read(write(tmp_path, grid={"join": ["add"], "scale": [0.5]})).points) == [
        "join=add,scale=0.5"
    ]
    twins = list(sweep.read(write(tmp_path, grid={"note": [1, "1"]})).points)
    assert len(set(twins)) == 2 and all(name.startswith("note=1~") for name in twins)


def test_a_dry_run_tells_the_plan_and_runs_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "execute", lambda *_: pytest.fail("it ran"))
    file = write(tmp_path, seeds=[0, 1, 2], estimate=100)
    assert main(["sweep", str(file), "-o", str(tmp_path / "out"), "--dry-run", "--jobs", "2"]) == 0
    said = capsys.readouterr().out
    assert (
        "3 runs of tiny.ipynb" in said
        and "0 done, 3 to do, about 3 min 20 s (100 s a run, 2 at a time)" in said
        and "to do  seed=2" in said
    )
    assert "2 at a time), by the file's estimate" in said
    assert not (tmp_path / "out").exists()
    file = write(tmp_path, seeds=[0])
    assert main(["sweep", str(file), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "give one in the file, as in estimate: 40 (seconds of a run)" in said
    (tmp_path / "out" / "seed=9").mkdir(parents=True)
    done = {"status": "done", "seconds": 7.0}
    write_json(tmp_path / "out" / "seed=9" / "status.json", done)
    assert main(["sweep", str(file), "-o", str(tmp_path / "out"), "--dry-run", "--jobs=1"]) == 0
    assert "about 7 s (7 s a run, 1 at a time), by the runs done" in capsys.readouterr().out


def test_a_changed_notebook_or_parameter_is_not_done(swept, place, tmp_path):
    mine = tmp_path / "mine.ipynb"
    mine.write_bytes(TINY.read_bytes())
    settings = yaml.safe_load((place / "tiny.yaml").read_text()) | {"notebook": str(mine)}
    settings["parameters"]["faults"] = str(place / "faults.json")

    def ready(**changed):
        file = tmp_path / "a.yaml"
        file.write_text(yaml.safe_dump(settings | changed))
        return sweep.forecast(sweep.read(file), place / "out").count("\ndone ")

    settings["parameters"]["faults"] = os.path.relpath(place / "faults.json", tmp_path)
    assert ready() >= 5
    assert ready(parameters={**settings["parameters"], "size": 7}) == 0
    mine.write_bytes(mine.read_bytes().replace(b"drawn.std()", b"drawn.var()"))
    assert ready() == 0


def test_two_sweeps_do_not_share_a_folder(place, tmp_path):
    with sweep.hold(tmp_path), pytest.raises(ValueError, match="another sweep is at work"):
        sweep.run(sweep.read(place / "tiny.yaml"), tmp_path)


@pytest.mark.parametrize(
    "sign, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_signal_ends_it_with_all_its_processes(sign, code, tmp_path):
    (tmp_path / "faults.json").write_text('{"concat 0": "wait"}')
    file, folder = (
        write(tmp_path, parameters={"faults": "./faults.json"}, seeds=[0]),
        tmp_path / "out" / "seed=0",
    )
    quick = (
        "import sys; sys.modules['rfc3987_syntax'] = None; from mtrestore.cli import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    listen = lambda: signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # a background job, and what it starts, begins with it ignored
    command = [sys.executable, "-c", quick, "sweep", str(file), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=listen)
    until = time.monotonic() + 60
    while not (folder / "waiting").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2, "the run's process and its kernel"
    process.send_signal(sign)
    assert process.wait(20) == code
    assert not psutil.wait_procs(family, timeout=10)[1]
    assert json.loads((folder / "status.json").read_text())["status"] == "started"
    assert not (folder / "run.ipynb").exists() or "xxx" in texts(folder)


@contextlib.contextmanager
def small_disk(most):
    """No file may grow beyond so many bytes: what is written then is torn, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_notebook_or_none(tmp_path):
    sha256 = sweep.inspect(TINY)[1]
    for old in (None, b'{"cells": []}'):
        if old:
            (tmp_path / "run.ipynb").write_bytes(old)
        with small_disk(12_000):
            status = execute.execute(execute.task_of(tmp_path, TINY, sha256, {}, 1))
        assert status["status"] == "failed" and "File too large" in status["error"]
        assert {p.name: p.read_bytes() for p in tmp_path.glob("*.ipynb")} == (
            {"run.ipynb": old} if old else {}
        )
        assert json.loads((tmp_path / "status.json").read_text()) == status
    with small_disk(100):  # not even a status fits
        assert execute.execute(execute.task_of(tmp_path, TINY, sha256, {}, 1))["status"] == "failed"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"run.ipynb": old}


def test_a_killed_kernel_and_a_changed_notebook_are_told(tmp_path):
    (tmp_path / "faults.json").write_text('{"concat 0": "kernel"}')
    task = execute.task_of(
        tmp_path / "a", TINY, sweep.inspect(TINY)[1], {"faults": str(tmp_path / "faults.json")}, 1
    )
    status = execute.execute(task)
    assert (
        status["status"] == "failed"
        and "its kernel was killed" in status["error"]
        and "xxx" in texts(tmp_path / "a")
    )
    assert "was changed after the sweep began" in execute.execute({**task, "sha256": "0"})["error"]


def test_a_repeated_run_agrees(swept, place, capsys):
    assert main(["rerun", str(place / "out" / NAMES[0])]) == 0
    said = capsys.readouterr().out
    assert (
        "all 3 numbers agree, to the last bit" in said
        and "left out, since they are times: seconds" in said
    )


def test_a_changed_number_in_a_bundle_is_found(swept, place, tmp_path):
    file = report.bundle(place / "out", tmp_path / "tiny.json")
    content = json.loads(file.read_text())
    entry = next(r for r in content["runs"] if r["run"] == NAMES[7])
    entry["metrics"]["mean"] *= 1.0001
    entry["sha256"] = "0"
    file.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match="tiny.ipynb is not the notebook of then.*--changed runs it all the same"
    ):
        rerun(file, NAMES[7])
    repeat = rerun(file, NAMES[7], tmp_path / "again", changed=True)
    assert {name: same for name, *_, same in repeat.numbers} == {
        "mean": False,
        "spread": True,
        "letters": True,
    }
    assert (
        not repeat.agrees
        and "1 of 3 numbers do not agree" in str(repeat)
        and any("has changed" in note for note in repeat.notes)
    )
    assert (tmp_path / "again" / "run.ipynb").is_file()
    with pytest.raises(ValueError, match="no finished run 'x'; name one with --run: join="):
        rerun(file, "x")


def test_a_record_whose_pictures_are_not_here_asks_for_them(root, tmp_path, monkeypatch, capsys):
    bundle = root / "experiments/results/crops.json"
    name = json.loads(bundle.read_text())["runs"][0]["run"]
    monkeypatch.setattr(
        repeat, "find_notebook", lambda *_: root / "notebooks/10_faces_and_crops.ipynb"
    )
    monkeypatch.setattr(repeat, "ROOT", tmp_path)  # where no folder is called data
    monkeypatch.setattr(repeat, "execute", lambda _: pytest.fail("it ran"))
    assert main(["rerun", str(bundle), "--run", name]) == 1
    assert "no folder here; give it with --data FOLDER\n" in capsys.readouterr().err

    def ended(task):
        assert task["arguments"]["data"] == str(tmp_path)
        return {"status": "failed", "error": "as far as this test goes"}

    monkeypatch.setattr(repeat, "execute", ended)
    assert main(["rerun", str(bundle), "--run", name, "--data", str(tmp_path), "--changed"]) == 1
    assert "as far as this test goes" in capsys.readouterr().err


def test_numbers_agree_within_the_tolerance_only():
    assert agree(1.0, 1.0, 0) and not agree(1.0, 1.0 + 1e-15, 0) and agree(None, None, 0)
    assert agree(100, 101, 1e-2) and not agree(100, 102, 1e-2) and not agree(1.0, None, 1)
    times = [
        name
        for name in (
            "seconds",
            "ms_XS",
            "parameters_S_add",
            "rate",
            "seconds_per_face",
            "separate",
            "items",
        )
        if TIMES.search(name)
    ]
    assert times == ["seconds", "ms_XS", "rate", "seconds_per_face"]


def test_a_record_that_says_too_little_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run at"):
        rerun(tmp_path / "gone")
    write_json(tmp_path / "metrics.json", {"seconds": 2.0})
    with pytest.raises(ValueError, match="does not say its numbers"):
        rerun(tmp_path)
    with pytest.raises(ValueError, match="holds the record itself"):
        rerun(tmp_path, out=tmp_path)


# --- records that come from elsewhere


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """What makes a record whose notebook, if it were run, would leave a canary."""
    cells = json.loads(TINY.read_text())
    canary = tmp_path / "canary"
    cells["cells"][1]["source"] += [f"\nopen({str(canary)!r}, 'w')"]
    record = tmp_path / "runs" / "seed=0"
    record.mkdir(parents=True)
    text = json.dumps(cells)

    def make(place, name=None, sha256=None):
        place.parent.mkdir(exist_ok=True, parents=True)
        place.write_text(text)
        right = hashlib.sha256(text.encode()).hexdigest()
        write_json(record / "metrics.json", {"mean": 1.0})
        status = {"status": "done", "seconds": 1.0, "error": None, "threads": 1}
        status |= {"notebook": name or str(place), "sha256": sha256 or right}
        write_json(record / "status.json", status | {"parameters": {"seed": 0}})
        return record

    make.canary, make.record = canary, record
    return make


PLANTED = {
    "elsewhere": ("far/evil.ipynb", None),
    "above": ("evil.ipynb", None),
    "below": ("runs/seed=0/deep/evil.ipynb", None),
    "climbing": ("far/evil.ipynb", "{record}/../../far/evil.ipynb"),
    "in the current folder": ("evil.ipynb", "evil.ipynb"),
    "null": ("far/evil.ipynb", "a\0b.ipynb"),
    "long": ("far/evil.ipynb", "x" * 5000),
    "folder": ("far/evil.ipynb", ".."),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_record_does_not_choose_which_program_runs(kind, stranger, tmp_path, monkeypatch, capsys):
    """Even where its sha256 is right: in the project or beside the record, or not at all."""
    monkeypatch.setattr("mtrestore.lab.repeat.execute", lambda _: pytest.fail("it ran"))
    monkeypatch.chdir(tmp_path)
    place, name = PLANTED[kind]
    record = stranger(tmp_path / place, name and name.format(record=stranger.record))
    bundle = tmp_path / "bundles" / "b.json"
    bundle.parent.mkdir()
    entry = json.loads((record / "status.json").read_text()) | {
        "run": "a",
        "metrics": {"mean": 1.0},
    }
    write_json(bundle, {"runs": [entry]})
    for words in ([str(record)], [str(record), "--changed"], [str(bundle), "--run", "a"]):
        assert main(["rerun", *words]) == 1
        told = capsys.readouterr()
        assert told.err.count("\n") == 1 and not told.out
        assert "neither a notebook of the project nor beside the record" in told.err
    assert not stranger.canary.exists()


def test_links_do_not_bring_a_notebook_beside_the_record(stranger, tmp_path, monkeypatch):
    monkeypatch.setattr("mtrestore.lab.repeat.execute", lambda _: pytest.fail("it ran"))
    record = stranger(tmp_path / "far" / "evil.ipynb", "evil.ipynb")
    (record / "evil.ipynb").symlink_to(tmp_path / "far" / "evil.ipynb")
    with pytest.raises(ValueError, match="neither a notebook of the project"):
        rerun(record)
    (tmp_path / "link").symlink_to(record)
    with pytest.raises(ValueError, match="neither a notebook of the project"):
        rerun(tmp_path / "link")


def test_a_notebook_of_another_sha256_is_not_run(stranger, monkeypatch, capsys):
    monkeypatch.setattr("mtrestore.lab.repeat.execute", lambda _: pytest.fail("it ran"))
    record = stranger(stranger.record / "evil.ipynb", sha256="0000")
    assert main(["rerun", str(record)]) == 1
    said = "evil.ipynb is not the notebook of then: it has changed; --changed runs it all the same"
    assert capsys.readouterr().err == f"mtrestore: {said}\n"


@pytest.mark.parametrize(
    ("place", "name"), [("runs/seed=0/mine.ipynb", None), ("runs/mine.ipynb", "/gone/mine.ipynb")]
)
def test_a_notebook_beside_the_record_is_run(stranger, tmp_path, place, name):
    record = stranger(tmp_path / place, name)
    repeat = rerun(record)
    assert stranger.canary.exists() and [n for n, *_ in repeat.numbers] == ["mean"]


DAMAGED = {
    "cut": b'{"status": "do',
    "list": b"[1]",
    "deep": b'{"parameters":' + b"[" * 30000,
    "no UTF-8": b"\xff\xfe{}",
    "parameters": b'{"parameters": [1]}',
    "notebook": b'{"notebook": 3}',
    "threads": b'{"threads": "1; true"}',
    "many threads": b'{"threads": 1e99}',
    "status": b'{"status": {}}',
    "empty": b"",
    "nan": b"NaN",
    "number": b"1" * 5000,
    "numbers": b'{"mean": "1", "spread": [], "x": {}}',
    "great": b'{"mean": 1e999}',
    "greater": b'{"mean": ' + b"9" * 4000 + b"}",
    "sha256": b'{"sha256": []}',
    "versions": b'{"versions": 3, "hardware": [], "weights": 1}',
}


def test_a_forecast_takes_what_is_in_the_folder(tmp_path):
    plan = sweep.read(write(tmp_path, seeds=[0, 1]))
    for seconds in ("1", None, [], 1e999, 10**400, -1, {}):
        run_folder = tmp_path / "out" / "seed=0"
        run_folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"status": "done", "seconds": seconds})
        (run_folder / "status.json").write_text(text)
        assert "0 done, 2 to do" in sweep.forecast(plan, tmp_path / "out")


def test_what_a_record_says_reaches_the_terminal_as_words_only():
    repeat = Repeat([("\x1b[31mred", 1.0, 1.0, True)], 0.0, ["other\nline \u202e"])
    assert str(repeat).count("\n") == 3 and all(map(str.isprintable, str(repeat).splitlines()))


@pytest.mark.parametrize("file", ["status", "metrics", "run"])
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_record_is_one_line(file, kind, stranger, tmp_path, monkeypatch, capsys):
    done = {"status": "done", "seconds": 0.0, "error": None}
    monkeypatch.setattr("mtrestore.lab.repeat.execute", lambda _: done)
    monkeypatch.setattr("mtrestore.lab.record.hardware", lambda: {})
    record = stranger(stranger.record / "mine.ipynb")
    again = tmp_path / "again"
    again.mkdir()
    write_json(again / "run.json", provenance({}))
    write_json(again / "metrics.json", {"mean": 1.0})
    (record / f"{file}.json").write_bytes(DAMAGED[kind])
    code = main(["rerun", str(record), "-o", str(again)])
    told = capsys.readouterr()
    assert "Traceback" not in told.err and told.err.isascii()
    if file != "status" and not told.err:  # what is wrong is not asked for, or is no number of then
        assert "agree" in told.out
    else:
        assert code == 1 and told.err.count("\n") == 1 and "cannot be repeated" in told.err
