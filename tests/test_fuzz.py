"""The fuzzer: its seeds are good, its targets run without atheris, and it finds what is wrong."""

import argparse
import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mtrestore import image, pipeline, weights
from mtrestore.folder import journal
from mtrestore.lab import execute, report, statistics
from mtrestore.training import settings as plan

TARGETS = ("reader", "weights", "onnx", "yaml", "notebook", "runs", "bundle", "journal")


@pytest.fixture(scope="module")
def fuzz(root):
    spec = importlib.util.spec_from_file_location("fuzz", root / "tests/long/fuzz.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


def read(fuzz, target: str, path) -> list[str]:
    """What each reader of a target says of a file: "" or its error."""
    said = []
    readers, _ = fuzz.TARGETS[target]()
    for reader in readers:
        try:
            said.append(reader(path) or "")
        except ValueError as e:
            said.append(str(e))
    return said


def test_all_targets_have_seeds_and_they_are_small(fuzz):
    assert tuple(fuzz.TARGETS) == TARGETS
    files = [path for target in TARGETS for path in (fuzz.SEEDS / target).iterdir()]
    assert len(files) > 40 and sum(path.stat().st_size for path in files) < 64 << 10


# How many of the good files each reader takes: weights.load ours, adopt the others; and so on.
@pytest.mark.parametrize(
    ("target", "good"),
    [
        ("reader", [28]),
        ("weights", [2, 3]),
        ("onnx", [4]),
        ("yaml", [3, 2, 1]),
        ("notebook", [1]),
        ("runs", [1]),
        ("bundle", [1]),
        ("journal", [1]),
    ],
)
def test_the_good_files_are_read(fuzz, tmp_path, target, good):
    said = []
    for data in fuzz.seeds(target):
        (tmp_path / "case.bin").write_bytes(data)
        said.append(read(fuzz, target, tmp_path / "case.bin"))
    assert [sum(not text for text in column) for column in zip(*said)] == good


@pytest.mark.parametrize("target", TARGETS)
def test_three_hundred_cases_of_each_target(fuzz, tmp_path, target):
    tried, wrong = fuzz.fuzz(target, 5, 0, tmp_path, cases=300)
    assert tried == 300 and wrong == []


@pytest.mark.parametrize("target", TARGETS)
def test_cases_repeat_and_differ(fuzz, target):
    cases = [fuzz.case(target, 3, n) for n in range(120)]
    assert cases == [fuzz.case(target, 3, n) for n in range(120)]
    assert len(set(cases)) > 100 and all(len(data) <= fuzz.LONGEST + 4096 for data in cases)
    assert cases != [fuzz.case(target, 4, n) for n in range(120)]


@pytest.mark.parametrize(
    ("target", "module", "name"),
    [
        ("reader", image, "load"),
        ("weights", weights, "adopt"),
        ("onnx", pipeline, "onnx_net"),
        ("yaml", plan, "read_settings"),
        ("notebook", execute, "inspect"),
        ("runs", statistics, "gather"),
        ("bundle", report, "page"),
        ("journal", journal.Journal, "add"),
    ],
)
def test_a_fault_in_any_reader_is_found(fuzz, tmp_path, monkeypatch, target, module, name):
    def broken(*_, **__):
        return {}["no such key"]

    monkeypatch.setattr(module, name, broken)
    _, wrong = fuzz.fuzz(target, 0, 0, tmp_path, cases=len(fuzz.seeds(target)))
    assert [text for text in wrong if "KeyError: 'no such key' (test_fuzz.py:" in text]


def test_time_memory_and_unclear_words_are_found(fuzz, tmp_path, monkeypatch):
    """A reader that works for ever is interrupted, also where every Exception is kept."""

    def works(path, max_pixels):
        try:
            while True:
                pass
        except Exception:
            return None

    def spends(path, max_pixels):
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        return good

    def claims(path, max_pixels):
        np.ones(330 << 17).sum()
        return good

    def mumbles(path, max_pixels):
        raise image.ImageError("E_FORMAT", "no")

    (tmp_path / "x.bmp").write_bytes(fuzz.seeds("reader")[0])
    good, said = image.load(tmp_path / "x.bmp"), {}
    for reader, late, seconds in (
        (works, 0.2, 2.0),
        (spends, 8.0, 0.25),
        (claims, 8.0, 2.0),
        (mumbles, 8.0, 2.0),
    ):
        monkeypatch.setattr(image, "load", reader)
        monkeypatch.setattr(fuzz, "LATE", late)
        monkeypatch.setattr(fuzz, "SECONDS", seconds)
        said[reader.__name__] = fuzz.fault("reader", b"", tmp_path / "case.bin")
    assert said["works"].startswith("Late: more than 0.2 s of the processor (test_fuzz.py:")
    assert said["spends"] == "0.3 s of the processor"
    assert said["claims"].endswith(" MiB") and 320 <= int(said["claims"][:-4]) < 360
    assert said["mumbles"].startswith("no clear line: 'no' (")


def test_one_finding_of_a_kind_is_told(fuzz):
    a, b = "KeyError: 'a' (x.py:12)", "KeyError: 'b' (x.py:12)"
    assert fuzz.kind(a) == fuzz.kind(b) != fuzz.kind("KeyError: 'a' (x.py:13)")
    assert (
        fuzz.kind("2.4 s of the processor")
        == fuzz.kind("13.1 s of the processor")
        != fuzz.kind("301 MiB")
    )


def test_a_finding_is_told_with_the_file_that_shows_it_again(fuzz, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "FOUND", tmp_path / "found")
    path = fuzz.keep("reader", b"abc")
    assert path.read_bytes() == b"abc" and path.name == "reader-ba7816bf8f01.bin"


def test_the_program_runs_without_atheris_and_says_so(fuzz, root):
    words = ["--target", "journal", "--seconds", "1", "--seed", "3"]
    done = subprocess.run(
        [sys.executable, root / "tests/long/fuzz.py", *words, "--plain"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (count,) = re.findall(r"^journal  seed 3: (\d+) cases, 0 wrong", done.stdout, re.MULTILINE)
    assert int(count) >= 1


def test_without_atheris_a_line_says_what_is_missing(fuzz, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "atheris", None)  # its import fails
    monkeypatch.setattr(fuzz, "outside", lambda target, args: [] if args.plain else ["guided"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["fuzz.py"])
    assert fuzz.main() == 0
    assert (
        capsys.readouterr().out
        == "atheris is not installed: the seeded mutator goes on alone, without coverage\n"
    )


@pytest.mark.parametrize("plain", [True, False])
def test_a_process_that_crashes_is_named_and_its_file_is_kept(
    fuzz, tmp_path, monkeypatch, capsys, plain
):
    """Whatever tries the file anew crashes too, so it stays a finding."""

    def crashes(target, folder, args, *more):
        (Path(folder) / "case.bin").write_bytes(b"abc")
        return subprocess.CompletedProcess([], -signal.SIGSEGV, "", "deep in C")

    monkeypatch.setattr(fuzz, "FOUND", tmp_path)
    monkeypatch.setattr(fuzz, "start", crashes)
    args = argparse.Namespace(seed=0, seconds=0.1, plain=plain, file=None, case=None)
    kept = tmp_path / "reader-ba7816bf8f01.bin"
    assert fuzz.outside("reader", args) == [
        f"--target reader --file {kept}: the process ended with SIGSEGV: 'deep in C'"
    ]
    assert (
        kept.read_bytes() == b"abc"
        and f"WRONG --target reader --file {kept}" in capsys.readouterr().out
    )


def test_what_only_the_watched_process_finds_is_no_finding(fuzz, tmp_path, monkeypatch, capsys):
    def slow(target, folder, args, *more):
        if "--file" in more:
            return subprocess.CompletedProcess([], 0, "[1, []]\n", "")
        (tmp_path / "x.bin").write_bytes(b"abc")
        (Path(folder) / "wrong").write_text(json.dumps([str(tmp_path / "x.bin"), "2.1 s"]) + "\n")
        return subprocess.CompletedProcess(
            [], 0, "", "#12 DONE cov: 7 ft: 9\nstat::number_of_executed_units: 12\n"
        )

    monkeypatch.setattr(fuzz, "start", slow)
    args = argparse.Namespace(seed=0, seconds=0.1, plain=False, file=None, case=None)
    assert fuzz.outside("reader", args) == []
    assert "reader   seed 0: 12 cases, 0 wrong (atheris, cov: 7)" in capsys.readouterr().out
