"""One file has a time limit in the command's own process: one line, exit 1, the report written, no
temporary file.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mtrestore import image

PROGRAM = """
import ctypes, os, sys, time
import faults
from pathlib import Path
from mtrestore.folder import names as outputs
from mtrestore.folder import one_file as task
from mtrestore.folder import run as batch
from mtrestore.guard import watchdog
watchdog.GRACE = 1.0
nets = {**faults.IDENTITY, "restorer": faults.by_colour}
settings = task.Settings(tuple(nets.items()), made_by="x")
task.models(settings)
FAULT
job = outputs.plan(["in.png"], "out.png")[0]
rows = batch.single(job, settings, Path("report.json"), timeout=float(sys.argv[1]))
print(rows[0]["status"], os.listdir())
"""
FAULTS = {
    "net": (0.4, ""),
    "disk": (
        0.5,
        "sync, main = os.fsync, __import__('threading').current_thread()\n"
        "os.fsync = lambda fd: time.sleep(600) if __import__('threading').current_thread() is "
        "main else sync(fd)",
    ),
    "decoder": (0.5, "task.image.load = lambda path, **_: time.sleep(600)"),
    "busy": (0.5, "def forever(path, **_):\n    while True: pass\ntask.image.load = forever"),
    "never lets Python run": (
        0.5,
        "task.image.load = lambda path, **_: ctypes.PyDLL(None).sleep(600)",
    ),
}


def ran(folder: Path, red: float, fault: str, seconds: float) -> subprocess.CompletedProcess:
    image.write(folder / "in.png", np.full((8, 8, 3), red, np.float32))
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    program = PROGRAM.replace("FAULT", fault)
    return subprocess.run(
        [sys.executable, "-c", program, str(seconds)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_takes_for_ever_is_stopped(tmp_path, name):
    done = ran(tmp_path, *FAULTS[name], 1.0)
    assert done.returncode == 1 and done.stdout == ""
    if name == "never lets Python run":
        assert done.stderr == "" and os.listdir(tmp_path) == ["in.png"]
        return
    assert done.stderr == "failed in.png: in.png took more than 1 s and was stopped\n"
    assert sorted(os.listdir(tmp_path)) == ["in.png", "report.csv", "report.json"]
    assert [row["code"] for row in json.loads((tmp_path / "report.json").read_text())["files"]] == [
        "E_TIMEOUT"
    ]


def test_a_file_in_time_is_restored(tmp_path):
    done = ran(tmp_path, 0.5, "", 100.0)
    assert (
        done.returncode == 0
        and done.stderr == ""
        and "restored" in done.stdout.splitlines()[-1]
        and (tmp_path / "out.png").is_file()
    )


def test_the_command_takes_a_limit_for_one_file(tmp_path):
    """Importing torch alone takes longer than this."""
    image.write(tmp_path / "in.png", np.full((8, 8, 3), 0.5, np.float32))
    command = [
        Path(sys.executable).with_name("mtrestore"),
        "restore",
        "in.png",
        "-o",
        "out.png",
        "--timeout",
        "0.05",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (
        1,
        "failed in.png: in.png took more than 0.05 s and was stopped\n",
    )
    assert os.listdir(tmp_path) == ["in.png"]
