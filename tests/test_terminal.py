"""A run does what it should, with the right exit code, whoever listens to it and in whatever
alphabet.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mtrestore import image

pytestmark = pytest.mark.slow
COMMAND = Path(sys.executable).with_name("mtrestore")
ENDS = [
    ">&-",
    "2>&-",
    ">&- 2>&-",
    "<&- >&- 2>&-",
    ">/dev/full",
    "2>/dev/full",
    ">/dev/full 2>/dev/full",
]


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "\U0001f600.png", "\udcff.png"):
        image.write(tmp_path / "in" / name, np.full((8, 8, 3), 0.5, np.float32))
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    return tmp_path


def ran(place: Path, words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["sh", "-c", f"'{COMMAND}' {words}"],
        cwd=place,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("end", ENDS)
def test_a_folder_is_restored_whoever_listens(place, end):
    """Three pictures of four, so exit 3.

    A closed descriptor is nobody's file: the journal holds rows and nothing else.
    """
    done = ran(place, f"restore in -o out --no-faces --jobs 1 {end}")
    assert done.returncode == 3 and sorted(os.listdir(place / "out")) == sorted(
        [".mtrestore", "a.png", "\U0001f600.png", "\udcff.png", "index.html"]
    )
    lines = (place / "out" / ".mtrestore" / "journal.jsonl").read_text("utf-8").splitlines()
    assert lines and all(line.startswith("{") for line in lines)
    assert b"Traceback" not in done.stdout + done.stderr
    listed = b"3 restored, 0 skipped, 1 failed" in done.stdout
    assert listed == (end in ("2>&-", "2>/dev/full"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("words, code", [
    ("--help", 0), ("restore --help", 0), ("models", 0),
    ("restore in/a.png -o b.png --no-faces", 0), ("restore in/bad.png -o b.png", 1),
    ("report nothing", 1), ("sweep nothing.yaml", 1), ("restore", 2), ("unknown", 2),
])  # fmt: skip
def test_every_command_keeps_its_exit_code(place, words, code):
    for end in (">&- 2>&-", ">/dev/full 2>/dev/full"):
        done = ran(place, f"{words} {end}")
        assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")
        (place / "b.png").unlink(missing_ok=True)


@pytest.mark.parametrize("environment", [
    {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "ascii:strict"}, {"PYTHONIOENCODING": "cp1252:strict"},
])  # fmt: skip
def test_names_that_the_terminal_cannot_write(place, environment):
    done = ran(place, "restore in -o out --no-faces --jobs 1", **environment)
    assert done.returncode == 3 and done.stdout.isascii() and len(done.stdout.splitlines()) == 4
    assert done.stderr.splitlines() == [
        line for line in done.stderr.splitlines() if line.startswith(b"failed in/bad.png: ")
    ]
    assert sorted(p for p in os.listdir(place / "out") if p.endswith(".png")) == sorted(
        p for p in os.listdir(place / "in") if p != "bad.png"
    )


def test_a_pipe_that_nobody_reads_any_more(place):
    reader, writer = os.pipe()
    os.close(reader)
    command = [COMMAND, "restore", "in", "-o", "out", "--no-faces", "--jobs", "1"]
    done = subprocess.run(command, cwd=place, stdout=writer, stderr=writer, timeout=120)
    os.close(writer)
    assert done.returncode == 3 and len(list((place / "out").glob("*.png"))) == 3


def test_a_pipe_that_does_not_wait_gets_every_word(place):
    """A non-blocking pipe that is full for a while: help is longer than it takes at once."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.write(writer, b"x" * 65536)  # full
    process = subprocess.Popen(
        [COMMAND, "restore", "--help"], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    with open(reader, "rb") as pipe:
        words = pipe.read()
    assert process.wait(60) == 0 and b"--timeout SECONDS" in words and process.stderr.read() == b""
    process.stderr.close()
