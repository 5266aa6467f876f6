"""Inputs that once did harm, each as it was sent in, through the command: what is right now.

The kinds behind them have tests of their own (test_safe, test_bombs, test_hostile, test_batch).
"""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtrestore.guard import safe

COMMAND = Path(sys.executable).with_name("mtrestore")


@pytest.fixture
def case(shared, tmp_path, request) -> Path:
    """A copy of the case's folder, with a small good picture a.png in it."""
    source = shared / "cases" / request.param
    if not source.is_dir():
        pytest.skip(f"needs the case {request.param}, and there is none at {source}")
    folder = tmp_path / "case"
    shutil.copytree(source, folder, copy_function=shutil.copyfile)
    shutil.copyfile(shared / "cases" / "trust" / "01" / "a.png", folder / "a.png")
    return folder


def of(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", names, indirect=True)


def mtrestore(folder: Path, *args: object, **options: object) -> subprocess.CompletedProcess:
    """The command inside `folder`, without the switches that these tests set for themselves."""
    ours = {"PYTHONSAFEPATH", *safe.SWITCHES}
    env = {k: v for k, v in os.environ.items() if k not in ours} | options.pop("env", {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    program = [str(COMMAND), *map(str, args)]
    return subprocess.run(program, cwd=folder, env=env, text=True, timeout=300, **pipes)


def refused(done: subprocess.CompletedProcess) -> str:
    """The one line of a refusal; no traceback, exit 1 or 2."""
    assert done.returncode in (1, 2), (done.stdout, done.stderr)
    (line,) = done.stderr.strip().splitlines()
    return line


@of("trust/01")
def test_a_module_in_the_album_does_not_run(case):
    done = mtrestore(case, "restore", ".", "-o", "out", "--no-faces")
    assert done.returncode in (0, 3) and "1 restored" in done.stdout
    assert not list(case.rglob("canary*"))


@of("trust/02")
@pytest.mark.parametrize("name", ["idat4g.png"])
def test_a_chunk_longer_than_its_file_is_refused(case, name):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    line = refused(mtrestore(case, "restore", name, "-o", "o.png", "--no-faces"))
    assert "E_TRUNCATED" in line or "cut" in line or "truncated" in line
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 4


@of("trust/03")
def test_strips_that_unpack_to_the_whole_are_refused(case):
    assert "strips_1x100.tif" in refused(
        mtrestore(case, "restore", "strips_1x100.tif", "-o", "o.png", "--no-faces")
    )


@of("trust/04")
def test_a_model_reads_no_other_file(case):
    done = mtrestore(case, "restore", "a.png", "-o", "y.png", "--no-faces", "--restorer", "e.onnx")
    assert "e.onnx" in refused(done) and not (case / "y.png").exists()


@of("trust/05")
def test_reports_replace_nothing(case):
    (case / "in").mkdir()
    shutil.copyfile(case / "a.png", case / "in" / "x.png")
    refused(mtrestore(case, "restore", "in", "-o", "out", "--no-faces", "--report", "out/x.png"))
    journal = "o3/.mtrestore/journal.jsonl"
    refused(mtrestore(case, "restore", "in", "-o", "o3", "--no-faces", "--report", journal))
    (case / "important.json").write_text("[1]")
    options = ("-o", "c.png", "--no-faces", "--report", "important.json")
    refused(mtrestore(case, "restore", "a.png", *options))
    assert (case / "important.json").read_text() == "[1]" and not (case / "important.csv").exists()
    (case / "bundle.json").write_text("{}")
    refused(mtrestore(case, "report", "bundle.json", "-o", "bundle.json"))
    assert (case / "bundle.json").read_text() == "{}"


@of("trust/06")
def test_pages_replace_nothing(case):
    (case / "notes.html").write_text("NOTES")
    refused(mtrestore(case, "restore", "a.png", "-o", "notes.png", "--no-faces", "--html"))
    assert (case / "notes.html").read_text() == "NOTES"
    for name in ("s/a.png", "o/a.png.html"):
        (case / name).parent.mkdir()
        shutil.copyfile(case / "a.png", case / name)
    picture = (case / "o/a.png.html").read_bytes()
    inputs = ("s/a.png", "o/a.png.html", "-o", "o")
    mtrestore(case, "restore", *inputs, "--no-faces", "--html", "--overwrite")
    assert (case / "o/a.png.html").read_bytes() == picture


@of("trust/07")
def test_a_path_of_1200_folders_is_one_row(case):
    picture = (case / "a.png").read_bytes()
    (case / "d").mkdir()
    (case / "d" / "zz.png").write_bytes(picture)
    folder = os.open(case / "d", 0)
    for _ in range(1200):
        os.mkdir("a", dir_fd=folder)
        deeper = os.open("a", 0, dir_fd=folder)
        os.close(folder)
        folder = deeper
    file = os.open("x.png", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
    os.write(file, picture)
    os.close(file)
    os.close(folder)
    try:
        done = mtrestore(case, "restore", "d", "-o", "o", "--no-faces")
        assert done.returncode in (0, 3) and "Traceback" not in done.stderr
        assert (case / "o" / "zz.png").is_file()
    finally:
        subprocess.run(["rm", "-rf", case / "d", case / "o"], check=True)


@of("trust/09")
@pytest.mark.parametrize("stream", [1, 2])
def test_a_closed_stream_ends_nothing(case, stream):
    (case / "in").mkdir()
    for name in ("x.png", "y.png"):
        shutil.copyfile(case / "a.png", case / "in" / name)
    shell = f'exec "$0" restore in -o o --no-faces {stream}>&-'
    done = subprocess.run(
        ["bash", "-c", shell, COMMAND], cwd=case, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert {p.name for p in (case / "o").glob("*.png")} == {"x.png", "y.png"}


@of("trust/10")
def test_a_journal_of_another_shape_is_read_as_far_as_it_goes(case):
    (case / "in5").mkdir()
    shutil.copyfile(case / "a.png", case / "in5" / "a.png")
    (case / "o9" / ".mtrestore").mkdir(parents=True)
    shutil.copyfile(case / "journal.jsonl", case / "o9" / ".mtrestore" / "journal.jsonl")
    done = mtrestore(case, "restore", "in5", "-o", "o9", "--no-faces", "--resume")
    assert done.returncode == 0 and "1 restored" in done.stdout and done.stderr == ""
    assert (case / "o9" / ".mtrestore" / "report.json").is_file()


@of("trust/11")
@pytest.mark.parametrize(
    "name",
    ["f64_25mp_shared.tif", "png16_50mp_padded.png", "prog_50mp_190scans_padded.jpg"],
)
def test_padding_makes_no_picture_of_a_bomb(case, name):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert name in refused(mtrestore(case, "restore", name, "-o", "o.png", "--no-faces"))
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 4


@of("trust/13")
def test_a_record_names_no_program_and_a_run_folder_lends_none(case):
    refused(mtrestore(case, "rerun", "rec/a=1"))
    assert not list(case.rglob("canary*"))
    planted = case / "out" / "a=1" / "psutil.py"
    planted.parent.mkdir(parents=True)
    planted.write_text('open("canary.txt", "w")')
    (case / "sw.yaml").write_text("notebook: ./plain.ipynb\ngrid: {a: [1]}\n")
    shutil.copyfile(Path(__file__).parent / "notebooks" / "tiny.ipynb", case / "plain.ipynb")
    mtrestore(case, "sweep", "sw.yaml", "-o", "out")
    assert not list(case.rglob("canary*"))


@of("trust/14")
def test_a_sweep_without_end_is_refused(case):
    assert "10,000" in refused(mtrestore(case, "sweep", "grid.yaml", "--dry-run"))


@of("trust/16")
def test_a_fork_after_use_says_what_to_do(case):
    done = subprocess.run(
        [sys.executable, "fk.py"], cwd=case, capture_output=True, text=True, timeout=120
    )
    assert "spawn" in done.stdout + done.stderr


@of("01_telemetry_device_id")
def test_nothing_is_kept_about_the_machine(case, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    env = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    assert mtrestore(case, "restore", "a.png", "-o", "out.png", env=env).returncode == 0
    assert not [p for p in home.rglob("*") if p.is_file() and "numba" not in str(p)]


@of("16_unwritable_home_noise")
def test_a_home_that_cannot_be_written_makes_no_noise(case):
    env = {"HOME": "/proc/nohome", "XDG_CACHE_HOME": "/proc/nohome"}
    done = mtrestore(case, "restore", "a.png", "-o", "out.png", env=env)
    assert done.returncode == 0 and done.stderr == ""
