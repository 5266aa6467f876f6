"""A folder run: every input once in the report, nothing lost, nothing overwritten, nothing torn, however it ends."""

import csv
import errno
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import faults
import numpy as np
import pytest
from faults import Here
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrestore import batch, gallery, image, task, workers
from mtrestore.journal import Journal
from mtrestore.outputs import STATE, alike, keep_apart, plan

SETTINGS = task.Settings(tuple(faults.IDENTITY.items()), made_by="identity")


def put(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return image.write(path, np.random.default_rng(seed).random((24, 32, 3), np.float32))


@pytest.fixture
def album(tmp_path) -> Path:
    """Three good pictures, one of them in a sub-folder, and a text."""
    for i, name in enumerate(["a.jpg", "b.png", "sub/c.png"]):
        put(tmp_path / "in" / name, i)
    (tmp_path / "in" / "d.jpg").write_text("not a picture")
    return tmp_path / "in"


@pytest.fixture
def here(monkeypatch):
    """Folder runs without processes."""
    monkeypatch.setattr(workers, "Local", Here)
    Here.made = 0


def restore(source: Path, out: Path, settings: task.Settings = SETTINGS, **options) -> dict[str, dict]:
    """name -> row of a folder run."""
    rows = batch.folder(plan([str(source)], str(out)), settings, **options)
    assert json.loads((out / STATE / "report.json").read_text())["files"] == rows
    return {row["name"]: row for row in rows}


def pictures(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and STATE not in p.parts and p.name != "index.html"}


# ---------------------------------------------------------------- names

NAMES = st.text(st.sampled_from("aAéE\u0301ßſ.~1"), min_size=1, max_size=6).filter(lambda s: s not in (".", ".."))
ENDINGS = st.sampled_from(["", ".jpg", ".JPG", ".png", ".gif", ".gif.png"])
PLACES = st.lists(st.tuples(st.lists(NAMES, max_size=2), NAMES, ENDINGS).map(lambda t: Path(*t[0], t[1] + t[2])), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(PLACES)
def test_no_two_outputs_are_alike(places):
    out = keep_apart(places)
    keys = [alike(p) for p in out]
    assert len(set(keys)) == len(places)
    assert not set(keys) & {alike(parent) for p in out for parent in p.parents}, "an output is where another one needs a folder"
    assert all(p.parent == place.parent and p.suffix.lower() in image.SUFFIXES for p, place in zip(out, places))
    assert keep_apart(places) == out


@settings(deadline=None, max_examples=60)
@given(st.lists(NAMES.map(lambda n: Path(n + ".jpg")), min_size=1, max_size=8, unique=True), st.randoms())
def test_names_do_not_depend_on_the_order(places, random):
    mixed = random.sample(places, len(places))
    assert dict(zip(mixed, keep_apart(mixed))) == dict(zip(places, keep_apart(places)))


def test_plain_names_are_kept_and_long_ones_are_cut():
    names = ["same.jpg", "same.png", "Case.jpg", "case.jpg", "a.gif", "a.gif.png", "e\u0301.jpg", "\u00e9.jpg", "x" * 255, "x.PNG", ".jpg"]
    out = dict(zip(names, map(str, keep_apart([Path(n) for n in names]))))
    for name in ("same.jpg", "same.png", "case.jpg", "a.gif.png", "\u00e9.jpg", "x.PNG"):
        assert out[name] == name
    assert out["Case.jpg"].startswith("Case~") and out["a.gif"].startswith("a.gif~") and out["e\u0301.jpg"].startswith("e\u0301~")
    assert len(out["x" * 255]) == 255 and out["x" * 255].endswith(".png") and out[".jpg"] == ".jpg.png"


def test_a_walk_ends_and_meets_everything_once(tmp_path):
    put(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "loop").symlink_to(".")
    (tmp_path / "in" / "gone.jpg").symlink_to("nowhere.jpg")
    put(tmp_path / "in" / "out" / "old.jpg")
    put(tmp_path / "in" / STATE / "thumbs" / "t.jpg")
    deep = tmp_path / "in" / "/".join("d" * 100)
    put(deep / "deep.jpg")
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 60)  # as if the folders were nested a thousand deep
    try:
        jobs = plan([str(tmp_path / "in"), str(tmp_path / "in" / "a.jpg")], str(tmp_path / "in" / "out"))
    finally:
        sys.setrecursionlimit(before)
    assert sorted(job.source.name for job in jobs) == ["a.jpg", "deep.jpg", "gone.jpg", "loop"]


def test_a_folder_onto_itself_is_refused(album):
    with pytest.raises(image.ImageError, match="own restoration"):
        plan([str(album)], str(album / ".." / "in"))


# ---------------------------------------------------------------- the report

def test_every_input_is_accounted_for(album, tmp_path, here, capsys):
    rows = restore(album, tmp_path / "out", report=tmp_path / "new" / "r.json")
    assert {n: (r["status"], r["code"]) for n, r in rows.items()} == {
        "a.jpg": ("restored", None), "b.png": ("restored", None), "d.jpg": ("failed", "E_FORMAT"), "sub/c.png": ("restored", None)}  # fmt: skip
    assert set(pictures(tmp_path / "out")) == {"a.jpg", "b.png", "sub/c.png"}
    for name in ("a.jpg", "b.png", "sub/c.png"):
        assert rows[name]["input_sha256"] == task.digest(album / name) and rows[name]["output_sha256"] == task.digest(tmp_path / "out" / name)
    table = list(csv.DictReader((tmp_path / "new" / "r.csv").open()))
    assert [(r["name"], r["status"]) for r in json.loads((tmp_path / "new" / "r.json").read_text())["files"]] == [
        (Path(r["output"]).relative_to(tmp_path / "out").as_posix(), r["status"]) for r in table]  # fmt: skip
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1 and "3 restored, 0 skipped, 1 failed" in captured.out.splitlines()[3]
    assert not list((tmp_path / "out").rglob("*.tmp")) and not (tmp_path / "out" / STATE / "staging").exists()


def test_the_gallery_escapes_names_and_replaces_only_itself(tmp_path, here, capsys):
    name = "<img src=x onerror=alert(1)>\n&.jpg"
    put(tmp_path / "in" / name)
    (tmp_path / "in" / "<b>bad.jpg").touch()
    restore(tmp_path / "in", tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    assert "<img src=x" not in text and "<b>" not in text and "&lt;img src=x" in text and "E_EMPTY" in text
    assert gallery.thumb_path(tmp_path / "out", name).stat().st_size < 20000 and gallery.thumb_path(Path(), name).as_posix() in text
    (tmp_path / "out" / "index.html").write_text("my own page")
    restore(tmp_path / "in", tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "index.html").read_text() == "my own page" and "no gallery" in capsys.readouterr().err


def test_pages_of_like_names_are_two(tmp_path, here):
    put(tmp_path / "in" / "a.jpg")
    put(tmp_path / "in" / "a.png", 1)
    restore(tmp_path / "in", tmp_path / "out", replace(SETTINGS, html=True))
    assert (tmp_path / "out" / "a.jpg.html").exists() and (tmp_path / "out" / "a.png.html").exists()


def test_odd_names_in_every_report(tmp_path, here):
    for name in (b"bad\xff\xfeutf8.png", b"new\nline.png", b"=1+1.png"):
        put(Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/" + name)))
    rows = restore(tmp_path / "in", tmp_path / "out")
    assert {r["status"] for r in rows.values()} == {"restored"}
    assert len((tmp_path / "out" / STATE / "report.csv").read_text().splitlines()) == 4
    assert {r["status"] for r in restore(tmp_path / "in", tmp_path / "out", resume=True).values()} == {"skipped"}


# ---------------------------------------------------------------- again

def test_resume_does_what_is_left_and_nothing_else(album, tmp_path, here):
    out = tmp_path / "out"
    restore(album, out)
    before = pictures(out)
    (out / "b.png").unlink()
    put(album / "e.png", 9)
    Here.made = 0
    rows = restore(album, out, resume=True)
    assert {n: r["status"] for n, r in rows.items()} == {
        "a.jpg": "skipped", "b.png": "restored", "d.jpg": "failed", "e.png": "restored", "sub/c.png": "skipped"}  # fmt: skip
    assert Here.made == 2 and {n: d for n, d in pictures(out).items() if n != "e.png"} == before
    assert rows["a.jpg"]["output_sha256"] == task.digest(out / "a.jpg")


def test_resume_goes_by_content_not_by_name(album, tmp_path, here):
    out = tmp_path / "out"
    restore(album, out)
    first = pictures(out)
    (album / "a.jpg").rename(album / "x.jpg")
    put(album / "a.jpg", 7)  # another picture under the old name
    stamp = (album / "b.png").stat()
    os.utime(album / "b.png", (1, 1))
    rows = restore(album, out, resume=True)
    assert rows["a.jpg"]["status"] == "restored" and rows["b.png"]["status"] == "skipped" and rows["x.jpg"]["status"] == "restored"
    assert pictures(out)["x.jpg"] == first["a.jpg"] != pictures(out)["a.jpg"] and stamp.st_mtime > 1


def test_other_options_or_weights_are_done_again(album, tmp_path, here):
    restore(album, tmp_path / "out")
    rows = restore(album, tmp_path / "out", replace(SETTINGS, made_by="other"), resume=True)
    assert {r["status"] for r in rows.values()} == {"restored", "failed"}
    assert restore(album, tmp_path / "out", replace(SETTINGS, made_by="other"), resume=True)["a.jpg"]["status"] == "skipped"


def test_made_by_follows_options_and_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("MTRESTORE_YUNET", str(tmp_path / "none.onnx"))
    base = task.made_by({"scale": 1.0})
    assert task.made_by({"scale": 1.0}) == base != task.made_by({"scale": 2.0})
    (tmp_path / "n.onnx").write_bytes(b"one")
    one = task.made_by({"scale": 1.0, "face": str(tmp_path / "n.onnx")})
    (tmp_path / "n.onnx").write_bytes(b"two")
    assert len({base, one, task.made_by({"scale": 1.0, "face": str(tmp_path / "n.onnx")})}) == 3
    (tmp_path / "none.onnx").write_bytes(b"detector")
    assert task.made_by({"scale": 1.0}) != base


def test_nothing_is_overwritten_unasked(album, tmp_path, here):
    out = tmp_path / "out"
    restore(album, out)
    (out / "a.jpg").write_text("my own work on it")
    first = pictures(out)
    assert {r["code"] for r in restore(album, out).values()} == {"E_WRITE", "E_FORMAT"}
    rows = restore(album, out, resume=True)
    assert rows["a.jpg"]["code"] == "E_WRITE" and "changed since" in rows["a.jpg"]["message"] and rows["b.png"]["status"] == "skipped"
    assert pictures(out) == first
    assert restore(album, out, replace(SETTINGS, overwrite=True), resume=True)["a.jpg"]["status"] == "restored"
    assert image.read(out / "a.jpg").shape == (24, 32, 3)


def test_a_file_that_appears_meanwhile_is_not_replaced(album, tmp_path, here, monkeypatch):
    work = task.work

    def meanwhile(job, *rest):
        (tmp_path / "out" / "a.jpg").write_text("somebody else's")
        return work(job, *rest)

    monkeypatch.setattr(task, "work", meanwhile)
    jobs = [job for job in plan([str(album)], str(tmp_path / "out")) if job.rel.name == "a.jpg"]
    assert [row["code"] for row in batch.folder(jobs, SETTINGS)] == ["E_WRITE"]
    assert (tmp_path / "out" / "a.jpg").read_text() == "somebody else's"


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_an_input_is_never_written_over_or_through(album, tmp_path, here, link):
    out = tmp_path / "out"
    out.mkdir()
    link(album / "b.png", out / "a.jpg")
    before = pictures(album)
    rows = restore(album, out, replace(SETTINGS, overwrite=True))
    assert rows["a.jpg"]["code"] == "E_WRITE" and rows["b.png"]["status"] == "restored" and pictures(album) == before


def test_links_out_of_the_output_folder_are_not_followed(album, tmp_path, here):
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    (out / "sub").symlink_to(other)
    rows = restore(album, out, replace(SETTINGS, overwrite=True))
    assert rows["sub/c.png"]["code"] == "E_WRITE" and "link" in rows["sub/c.png"]["message"] and not any(other.iterdir())
    shutil.rmtree(out / STATE)
    (out / STATE).symlink_to(other)
    with pytest.raises(image.ImageError, match="link"):
        restore(album, out)


def test_an_input_that_changes_or_vanishes(album, tmp_path, here, monkeypatch):
    load = image.load

    def changing(path):
        picture = load(path)
        if Path(path).name == "a.jpg":
            with open(path, "ab") as file:
                file.write(b"more")
        return picture

    monkeypatch.setattr(image, "load", changing)
    jobs = plan([str(album)], str(tmp_path / "out"))
    (album / "b.png").unlink()
    rows = {row["name"]: row["code"] for row in batch.folder(jobs, SETTINGS)}
    assert rows == {"a.jpg": "E_CHANGED", "b.png": "E_MISSING", "d.jpg": "E_FORMAT", "sub/c.png": None}
    assert set(pictures(tmp_path / "out")) == {"sub/c.png"}


# ---------------------------------------------------------------- disks

def test_a_torn_or_mad_journal_is_read_as_far_as_it_goes(tmp_path):
    path = tmp_path / "journal.jsonl"
    row = {"name": "a.jpg", "status": "restored", "output_sha256": "1"}
    good = json.dumps(row).encode() + b"\n"
    path.write_bytes(b"\xff\x00{]\n[1]\n7\n" + b"[" * 100000 + b"\n" + good + good[:30])
    journal = Journal(path)
    assert journal.past == {"a.jpg": {"1": row}}
    journal.add(row | {"output_sha256": "2"})
    journal.close()
    again = Journal(path)
    assert set(again.past["a.jpg"]) == {"1", "2"}
    again.close()


def test_a_full_disk_fails_files_and_leaves_nothing_torn(album, tmp_path, here, monkeypatch):
    real, out = os.write, tmp_path / "out"

    def full(fd, data):
        if b'"restored"' in bytes(data) and b"b.png" in bytes(data):
            real(fd, bytes(data)[:10])  # a part still fits
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    rows = restore(album, out)
    assert rows["b.png"]["code"] == "E_WRITE" and "No space" in rows["b.png"]["message"]
    assert set(pictures(out)) == {"a.jpg", "sub/c.png"}
    monkeypatch.undo()
    lines = (out / STATE / "journal.jsonl").read_text().splitlines()
    assert len(lines) == 4 and all(map(json.loads, lines))


def test_an_output_folder_that_vanishes_is_said(album, tmp_path, here, monkeypatch, capsys):
    out, work = tmp_path / "out", task.work

    def vanish(job, *rest):
        row = work(job, *rest)
        if job.source.name == "b.png":
            shutil.rmtree(out)
        return row

    monkeypatch.setattr(task, "work", vanish)
    rows = batch.folder(plan([str(album)], str(out)), SETTINGS, report=tmp_path / "r.json")
    assert [row["status"] for row in rows].count("failed") >= 2 and "vanished" in capsys.readouterr().err
    assert json.loads((tmp_path / "r.json").read_text())["files"] == rows and not out.exists()


def test_left_overs_of_dead_runs_go(album, tmp_path, here):
    out = tmp_path / "out"
    (out / STATE / "staging").mkdir(parents=True)
    for path in (out / STATE / "staging" / "x.png", out / STATE / ".mtrestore-1.tmp", out / ".mtrestore-2.tmp", out / ".mtrestore-3.tmp"):
        path.write_text("part")
    os.utime(out / ".mtrestore-2.tmp", (1, 1))
    restore(album, out)
    assert [p.name for p in out.rglob("*.tmp")] == [".mtrestore-3.tmp"], "one that another program may be writing stays"
    assert not (out / STATE / "staging").exists()


def test_an_output_that_cannot_be_used_is_one_error(album, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(image.ImageError, match="cannot be used"):
        batch.folder(plan([str(album)], str(tmp_path / "file")), SETTINGS)


# ---------------------------------------------------------------- processes

def colour(path: Path, red: float) -> None:
    image.write(path, np.full((24, 32, 3), [red, 0.5, 0.5], np.float32))


def test_crashes_hangs_and_faults_stop_nobody_else(tmp_path):
    (tmp_path / "in").mkdir()
    for name, red in faults.COLOURS.items():
        colour(tmp_path / "in" / f"{name}.png", red)
    for i in range(6):
        colour(tmp_path / "in" / f"good{i}.png", 0.1)
    with_faults = task.Settings(tuple({**faults.IDENTITY, "restorer": faults.by_colour}.items()), made_by="x", threads=1)
    began = time.monotonic()
    rows = restore(tmp_path / "in", tmp_path / "out", with_faults, workers=2, timeout=6)
    codes = {Path(n).stem: r["code"] for n, r in rows.items()}
    faulty = {"crash": "E_CRASH", "hang": "E_TIMEOUT", "memory": "E_MEMORY", "nan": "E_NONFINITE", "exit": "E_CRASH"}
    assert codes == faulty | {f"good{i}": None for i in range(6)}
    assert "SIGSEGV" in rows["crash.png"]["message"] and "6 s" in rows["hang.png"]["message"]
    assert len(pictures(tmp_path / "out")) == 6 and time.monotonic() - began < 120


def test_models_that_cannot_be_made_are_one_error(album, tmp_path):
    with pytest.raises(task.SetUpError, match="scale must lie"):
        restore(album, tmp_path / "out", replace(SETTINGS, options=(*SETTINGS.options, ("scale", 99))))


PROGRAM = """
import sys, faults
from pathlib import Path
from mtrestore import batch, cli, outputs, task
settings = task.Settings(tuple({**faults.IDENTITY, "restorer": faults.slow}.items()), made_by="slow", threads=1)
def run(args):
    batch.folder(outputs.plan(sys.argv[1:2], sys.argv[2]), settings, workers=1, resume=True)
    return 0
cli.restore = run
if __name__ == "__main__":
    sys.exit(cli.main(["restore", "x", "-o", "y"]))
"""


def start(tmp_path: Path, source: Path, out: Path) -> subprocess.Popen:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    listen = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job, and what it starts, begins with it ignored
    return subprocess.Popen([sys.executable, program, source, out], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment,
                            start_new_session=True, preexec_fn=listen)  # fmt: skip


def group(pid: int) -> list[int]:
    """The processes of a session that are still alive."""
    alive = []
    for entry in Path("/proc").iterdir():
        try:
            state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if entry.name.isdigit() and int(session) == pid and state != "Z":
            alive.append(int(entry.name))
    return alive


def until(condition, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return value


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds orphans through /proc, which this system lacks")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_orphan_and_is_finished_by_the_next(tmp_path, here, number):
    for i in range(8):
        put(tmp_path / "in" / f"{i}.png", i)
    out = tmp_path / "out"
    process = start(tmp_path, tmp_path / "in", out)
    assert until(lambda: len(pictures(out)) >= 1 if out.exists() else False, 120), process.communicate()
    with pytest.raises(image.ImageError, match="another run"):
        restore(tmp_path / "in", out)
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(60) == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    busy = max(1, os.getloadavg()[0] / os.cpu_count())  # on a machine that others use, five seconds of it take longer
    assert time.monotonic() - began < 5 * busy and until(lambda: not group(process.pid), 3 * busy)
    assert b"Traceback" not in process.stderr.read()
    done = pictures(out)
    assert 1 <= len(done) < 8
    if number != signal.SIGKILL:
        report = json.loads((out / STATE / "report.json").read_text())
        assert not report["complete"] and {row["name"] for row in report["files"]} == set(done)
    rows = restore(tmp_path / "in", out, replace(SETTINGS, made_by="slow"), resume=True)
    assert {n for n, r in rows.items() if r["status"] == "skipped"} == set(done) and len(rows) == 8
    restore(tmp_path / "in", tmp_path / "unbroken", replace(SETTINGS, made_by="slow"))
    assert pictures(out) == pictures(tmp_path / "unbroken")


def test_dask_gives_the_same_rows(album, tmp_path, here):
    distributed = pytest.importorskip("distributed", reason="needs the extra `dask`")
    options = {"dashboard_address": None, "n_workers": 1, "threads_per_worker": 1, "processes": True, "silence_logs": 50}
    with distributed.LocalCluster(**options) as cluster:
        rows = restore(album, tmp_path / "out", SETTINGS, dask=cluster.scheduler_address)
    alone = restore(album, tmp_path / "alone")
    told = ("name", "status", "code", "faces_found", "notes", "input_sha256", "output_sha256")
    assert {n: [r.get(k) for k in told] for n, r in rows.items()} == {n: [r.get(k) for k in told] for n, r in alone.items()}
    with pytest.raises(task.SetUpError, match="no Dask cluster"):
        restore(album, tmp_path / "late", dask="tcp://127.0.0.1:9")
