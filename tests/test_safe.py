"""No folder that a command works in is imported from, whatever lies there, and nothing is kept
about this machine or sent.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from mtrestore import image
from mtrestore.guard import safe
from mtrestore.lab import execute, sweep

TINY = Path(__file__).parent / "notebooks" / "tiny.ipynb"
COMMAND = Path(sys.executable).with_name("mtrestore")
DOORS = {"command": [str(COMMAND)], "module": [sys.executable, "-m", "mtrestore"]}
DEPENDENCIES = {
    "IPython", "PIL", "anywidget", "cv2", "distributed", "evil", "filelock", "ipykernel",
    "ipykernel_launcher", "jupyter_client", "jupyterlab", "lazy_loader", "lightning_fabric",
    "matplotlib", "matplotlib_inline", "mtcnnruntime", "nbclient", "nbformat", "numba", "numpy",
    "onnxruntime", "pandas", "papermill", "pebble", "psutil", "pytest", "safetensors", "scipy",
    "sitecustomize", "skimage", "submitit", "tifffile", "torch", "tornado", "tqdm", "traitlets",
    "usercustomize", "yaml", "zmq",
}  # fmt: skip
CONFIGS = (
    "ipython_config.py",
    "ipython_kernel_config.py",
    "jupyter_config.py",
    "jupyter_lab_config.py",
    "jupyter_server_config.py",
)


def plant(folder: Path, canary: Path) -> Path:
    """A file or a package for each name that Python or our dependencies may import.

    Each says so in `canary`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(sorted(sys.stdlib_module_names | DEPENDENCIES)):
        code = f"open({str(canary)!r}, 'a').write('{name} of {folder.name}\\n')\n"
        file = folder / f"{name}.py"
        if number % 2:
            (folder / name).mkdir(exist_ok=True)
            file = folder / name / "__init__.py"
        file.write_text(code)
    for name in CONFIGS:
        (folder / name).write_text(
            f"open({str(canary)!r}, 'a').write('{name} of {folder.name}\\n')\n"
        )
    (folder / "matplotlibrc").write_text("backend: module://evil\n")
    (folder / ".numba_config.yaml").write_text("cache_dir: pickles\n")
    return folder


@pytest.fixture
def canary(tmp_path) -> Path:
    return tmp_path / "canary.txt"


@pytest.fixture
def album(tmp_path, canary) -> Path:
    """A folder with one tiny picture and hundreds of modules."""
    folder = plant(tmp_path / "album", canary)
    image.write(folder / "a.png", np.full((8, 8, 3), 0.5, np.float32))
    return folder


def ran(
    folder: Path, *args: object, codes: tuple[int, ...] = (0,), **environment: str
) -> subprocess.CompletedProcess:
    """A program run inside `folder`."""
    ours = {"PYTHONSAFEPATH", *safe.SWITCHES}  # which these tests have set for themselves
    env = {k: v for k, v in os.environ.items() if k not in ours} | environment
    done = subprocess.run(
        [*map(str, args)], cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in codes, done.stderr
    return done


def said(canary: Path) -> str:
    return canary.read_text() if canary.exists() else ""


def test_what_is_planted_would_run(album, canary):
    """The same modules are imported by a program that takes no care."""
    ran(album, sys.executable, "-c", "import psutil, evil")
    assert said(canary).split("\n")[:2] == ["psutil of album", "evil of album"]


@pytest.mark.parametrize("door", DOORS)
def test_an_album_is_not_imported_from(album, canary, door, tmp_path):
    """Neither by the command, nor by its two workers, nor by what Python starts beside them.

    Nor is the output folder.
    """
    image.write(album / "b.png", np.full((8, 8, 3), 0.25, np.float32))
    plant(album / "out", canary)
    done = ran(
        album, *DOORS[door], "restore", "a.png", "b.png", "-o", "out", "--no-faces", "--jobs", 2
    )
    assert "2 restored, 0 skipped, 0 failed" in done.stdout and done.stderr == ""
    assert said(canary) == ""


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "command",
    [
        ("models",),
        ("restore", "a.png", "-o", "b.png", "--html"),
        ("evaluate", "data", "--seeds", "1", "--no-nlm"),
    ],
)
def test_no_command_imports_from_where_it_starts(album, canary, astronaut, door, command):
    (album / "data" / "photos_clean").mkdir(parents=True)
    image.write(album / "data" / "photos_clean" / "a.png", astronaut[::8, ::8])
    assert ran(album, *DOORS[door], *command).stderr == ""
    assert said(canary) == ""


def test_a_relative_pythonpath_is_not_handed_on(album, canary, tmp_path):
    """Python itself imports from it as it starts: a folder of ours holds that back here, and the
    workers have none of it.
    """
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\nfrom mtrestore.guard import safe\n"
        "with safe.imports():\n    print(os.environ['PYTHONPATH'], os.environ['PYTHONSAFEPATH'], "
        "os.getcwd() in sys.path, '' in sys.path)\n"
        "print(os.environ['PYTHONPATH'], os.environ.get('PYTHONSAFEPATH'), os.getcwd() in "
        "sys.path)\n"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    given = f":.:{tmp_path}/lib:../{empty.name}"
    out = ran(empty, sys.executable, program, PYTHONPATH=given).stdout.splitlines()
    assert out == [f"{tmp_path}/lib 1 False False", f"{given} None True"]


def test_numba_keeps_no_pickles_in_the_current_folder(album):
    program = (
        "import sys; sys.path.pop(0); import mtrestore, numba; print(repr(numba.config.CACHE_DIR))"
    )
    assert ran(album, sys.executable, "-c", program).stdout == "''\n"
    assert (
        ran(album, sys.executable, "-c", program.replace("mtrestore, ", "")).stdout == "'pickles'\n"
    ), "so it would be without"


@pytest.fixture
def place(tmp_path, canary) -> Path:
    """A folder with a sweep's file and its notebook, among hundreds of modules.

    So are the folders of its runs.
    """
    folder = plant(tmp_path / "place", canary)
    shutil.copy(TINY, folder / "tiny.ipynb")
    (folder / "tiny.yaml").write_text(
        yaml.safe_dump({"notebook": "tiny.ipynb", "grid": {"join": ["add"]}})
    )
    plant(folder / "out" / "join=add", canary)
    return folder


@pytest.mark.parametrize("door", DOORS)
def test_a_sweep_and_its_repetition_import_from_no_folder_of_theirs(place, canary, door):
    assert (
        "1 done, 0 failed"
        in ran(place, *DOORS[door], "sweep", "tiny.yaml", "-o", "out", "--jobs", 1).stdout
    )
    shutil.copy(place / "tiny.ipynb", place / "out")  # a record runs none but one beside it
    again = ran(place, *DOORS[door], "rerun", "out/join=add", "-o", "again").stdout
    assert "agree, to the last bit" in again
    ran(place, *DOORS[door], "report", "out", "-o", "page.html")
    assert said(canary) == ""


def test_a_notebook_imports_neither_from_its_run_nor_from_its_folder(place, canary):
    """Also from Python: the kernel's path holds no folder but those of the installation."""
    cells = json.loads((place / "tiny.ipynb").read_text())
    cells["cells"].append(
        {
            "cell_type": "code",
            "id": "path",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": "import sys; print('PATH', [p for p in sys.path if p == '' "
            "or str(out) in p])",
        }
    )
    (place / "tiny.ipynb").write_text(json.dumps(cells))
    table = sweep.run(sweep.read(place / "tiny.yaml"), place / "out", jobs=1)
    assert (
        list(table["status"]) == ["done"]
        and "PATH []" in (place / "out" / "join=add" / "run.ipynb").read_text()
    )
    assert said(canary) == ""


def test_slurm_jobs_import_from_no_folder_of_theirs(place, canary):
    pytest.importorskip("submitit", reason="needs the extra `slurm`")
    assert (
        "1 done, 0 failed"
        in ran(place, *DOORS["command"], "sweep", "tiny.yaml", "-o", "out", "--slurm").stdout
    )
    assert said(canary) == ""


def test_a_cluster_imports_from_no_folder_of_theirs(place, canary):
    """Neither the command that hands out the work, nor what a worker in that folder starts."""
    distributed = pytest.importorskip("distributed", reason="needs the extra `dask`")
    image.write(place / "a.png", np.full((8, 8, 3), 0.5, np.float32))
    (place / "in").mkdir()
    shutil.copy(place / "a.png", place / "in" / "a.png")
    options = {"dashboard_address": None, "n_workers": 1, "threads_per_worker": 1}
    with distributed.LocalCluster(**options, processes=True, silence_logs=50) as cluster:
        with distributed.Client(cluster) as client:
            client.run(os.chdir, str(place))
        to = ("--dask", cluster.scheduler_address)
        command = DOORS["command"]
        assert "1 done" in ran(place, *command, "sweep", "tiny.yaml", "-o", "out", *to).stdout
        done = ran(place, *command, "restore", "in", "-o", "restored", "--no-faces", *to)
        assert "1 restored" in done.stdout
    assert said(canary) == ""


def test_the_environment_of_a_user_is_given_back(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "lib")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    before = list(sys.path)
    with safe.imports():
        assert os.environ["PYTHONSAFEPATH"] == "1" and os.environ["PYTHONPATH"] == ""
    assert (
        "PYTHONSAFEPATH" not in os.environ
        and os.environ["PYTHONPATH"] == "lib"
        and sys.path == before
    )


def test_a_user_of_the_package_keeps_the_folder_of_the_program(tmp_path):
    """Only our own programs leave it out: `python -m theirs`, which imports us, still finds its own
    modules.
    """
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("import mtrestore")
    (tmp_path / "theirs" / "__main__.py").write_text("import beside")
    (tmp_path / "beside.py").write_text("print('mine')")
    assert ran(tmp_path, sys.executable, "-m", "theirs").stdout == "mine\n"


# ---- what dependencies keep about this machine, or say without being asked -----------------------

RESTORE = "import sys, mtrestore as mt; mt.restore(sys.argv[1]).save(sys.argv[2])"


@pytest.fixture
def home(tmp_path) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    return {
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "home" / ".cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "home" / ".config"),
    }


@pytest.mark.parametrize("way", ["one file", "workers", "package"])
def test_nothing_is_kept_in_the_home_of_who_restores(tmp_path, astronaut, home, way):
    """No device number, no queue of events, no list of fonts.

    A face is looked for, so onnxruntime has run.
    """
    image.write(tmp_path / "in.png", astronaut[:256, 128:384])
    args = {
        "one file": [*DOORS["command"], "restore", "in.png", "-o", "out.png"],
        "package": [sys.executable, "-c", RESTORE, "in.png", "out.png"],
        "workers": [*DOORS["command"], "restore", "in.png", "-o", "out", "--resume"],
    }[way]
    done = ran(tmp_path, *args, **home)
    assert done.stderr == "" and list((tmp_path / "home").rglob("*")) == []
    assert ("1 face" in done.stdout) == (way != "package")


def test_a_users_own_switch_wins(home):
    program = "import os, mtrestore; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert [
        ran(Path(home["HOME"]), sys.executable, "-c", program, **given).stdout
        for given in ({}, {"ORT_DISABLE_TELEMETRY": "0"})
    ] == ["1\n", "0\n"]


def test_a_notebook_has_the_switches_too(tmp_path, monkeypatch):
    """What `execute` hands to the process of a run, which its kernel inherits."""
    given = {}
    monkeypatch.setattr(execute, "run_process", lambda task, env: (given.update(env), (1, ""))[1])
    execute.execute(execute.task_of(tmp_path / "run", TINY, "0", {}, 1))
    assert given["ORT_DISABLE_TELEMETRY"] == "1" and given["PYTHONSAFEPATH"] == "1"


def test_without_a_home_only_our_own_lines_are_printed(tmp_path, astronaut):
    image.write(tmp_path / "in.png", astronaut[:256, 128:384])
    nowhere = {
        "HOME": "/proc/nohome",
        "XDG_CACHE_HOME": "/proc/nohome",
        "XDG_CONFIG_HOME": "/proc/nohome",
    }
    done = ran(
        tmp_path, *DOORS["command"], "restore", "in.png", "-o", "out.png", "--html", **nowhere
    )
    assert done.stderr == "" and done.stdout.startswith("restored in.png -> out.png: 1 face")


def test_restoring_imports_no_matplotlib(tmp_path, astronaut):
    image.write(tmp_path / "in.png", astronaut[::8, ::8])
    program = RESTORE + "; print([m for m in sys.modules if m.startswith('matplotlib')])"
    assert ran(tmp_path, sys.executable, "-c", program, "in.png", "out.png").stdout == "[]\n"


def test_the_lab_asks_no_server_for_news_or_updates(monkeypatch):
    from jupyterlab.labapp import LabApp

    from mtrestore import cli

    called = []
    monkeypatch.setattr(
        cli.os, "execv", lambda program, args: called.append((args, os.environ["PYTHONSAFEPATH"]))
    )
    cli.main(["lab"])
    args, safe_path = called[0]
    app = LabApp()
    app.parse_command_line([a for a in args[3:] if a.startswith("--LabApp")])
    assert (
        app.news_url is None
        and app.check_for_updates_class.__name__ == "NeverCheckForUpdate"
        and safe_path == "1"
    )


def test_no_semaphore_is_said_to_be_leaked(tmp_path):
    """Also where a worker was stopped in the middle of a file.

    The tracker says such things once the program has ended.
    """
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, faults\nfrom mtrestore.folder import names as outputs, one_file as task, run "
        "as batch\n"
        "if __name__ == '__main__':\n"
        "    settings = task.Settings(tuple({**faults.IDENTITY, 'restorer': "
        "faults.by_colour}.items()), made_by='x', threads=1)\n"
        "    rows = batch.folder(outputs.plan(['in'], 'out'), settings, workers=1, timeout=8)\n"
        "    print(sorted(r['code'] if r['status'] == 'failed' else r['status'] for r in rows))\n"
    )
    (tmp_path / "in").mkdir()
    for name, red in {"a": 0.1, "b": 0.2, "c": 0.4, "d": 0.5}.items():
        image.write(tmp_path / "in" / f"{name}.png", np.full((8, 8, 3), red, np.float32))
    done = ran(tmp_path, sys.executable, program, PYTHONPATH=str(Path(__file__).parent))
    assert done.stdout.splitlines()[-1] == "['E_CRASH', 'E_TIMEOUT', 'restored', 'restored']"
    assert "leaked" not in done.stderr and len(done.stderr.splitlines()) == 2
