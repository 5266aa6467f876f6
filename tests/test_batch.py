"""A folder run: every input once in the report, nothing lost, nothing overwritten, nothing torn,
however it ends.
"""

import csv
import errno
import html
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urljoin

import faults
import numpy as np
import pytest
from faults import Here
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrestore import image
from mtrestore.folder import gallery
from mtrestore.folder import one_file as task
from mtrestore.folder import pool as workers
from mtrestore.folder import run as batch
from mtrestore.folder.journal import Journal
from mtrestore.folder.names import STATE, alike, keep_apart, plan
from mtrestore.io.text import cell

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


def restore(
    source: Path, out: Path, settings: task.Settings = SETTINGS, **options
) -> dict[str, dict]:
    """name -> row of a folder run."""
    rows = batch.folder(plan([str(source)], str(out)), settings, **options)
    assert json.loads((out / STATE / "report.json").read_text())["files"] == rows
    return {row["name"]: row for row in rows}


def pictures(out: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in out.rglob("*")
        if p.is_file() and STATE not in p.parts and p.name != "index.html"
    }


# ---------------------------------------------------------------- names

NAMES = st.text(st.sampled_from("aAéE\u0301ßſ.~1"), min_size=1, max_size=6).filter(
    lambda s: s not in (".", "..")
)
ENDINGS = st.sampled_from(["", ".jpg", ".JPG", ".png", ".gif", ".gif.png"])
PLACES = st.lists(
    st.tuples(st.lists(NAMES, max_size=2), NAMES, ENDINGS).map(lambda t: Path(*t[0], t[1] + t[2])),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(PLACES)
def test_no_two_outputs_are_alike(places):
    out = keep_apart(places)
    keys = [alike(p) for p in out]
    assert len(set(keys)) == len(places)
    assert not set(keys) & {alike(parent) for p in out for parent in p.parents}, (
        "an output is where another one needs a folder"
    )
    assert all(
        p.parent == place.parent and p.suffix.lower() in image.SUFFIXES
        for p, place in zip(out, places)
    )
    assert keep_apart(places) == out


@settings(deadline=None, max_examples=60)
@given(
    st.lists(NAMES.map(lambda n: Path(n + ".jpg")), min_size=1, max_size=8, unique=True),
    st.randoms(),
)
def test_names_do_not_depend_on_the_order(places, random):
    mixed = random.sample(places, len(places))
    assert dict(zip(mixed, keep_apart(mixed))) == dict(zip(places, keep_apart(places)))


def test_plain_names_are_kept_and_long_ones_are_cut():
    names = [
        "same.jpg",
        "same.png",
        "Case.jpg",
        "case.jpg",
        "a.gif",
        "a.gif.png",
        "e\u0301.jpg",
        "\u00e9.jpg",
        "x" * 255,
        "x.PNG",
        ".jpg",
    ]
    out = dict(zip(names, map(str, keep_apart([Path(n) for n in names]))))
    for name in ("same.jpg", "same.png", "case.jpg", "a.gif.png", "\u00e9.jpg", "x.PNG"):
        assert out[name] == name
    assert (
        out["Case.jpg"].startswith("Case~")
        and out["a.gif"].startswith("a.gif~")
        and out["e\u0301.jpg"].startswith("e\u0301~")
    )
    assert (
        len(out["x" * 255]) == 255 and out["x" * 255].endswith(".png") and out[".jpg"] == ".jpg.png"
    )


def test_a_walk_ends_and_meets_everything_once(tmp_path):
    put(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "loop").symlink_to(".")
    (tmp_path / "in" / "gone.jpg").symlink_to("nowhere.jpg")
    put(tmp_path / "in" / "out" / "old.jpg")
    put(tmp_path / "in" / STATE / "thumbs" / "t.jpg")
    deep = tmp_path / "in" / "/".join("d" * 100)
    put(deep / "deep.jpg")
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(
        len(inspect.stack(0)) + 60
    )  # as if the folders were nested a thousand deep
    try:
        jobs = plan(
            [str(tmp_path / "in"), str(tmp_path / "in" / "a.jpg")], str(tmp_path / "in" / "out")
        )
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
        "a.jpg": ("restored", None), "b.png": ("restored", None), "d.jpg": ("failed", "E_FORMAT"),
        "sub/c.png": ("restored", None)}  # fmt: skip
    assert set(pictures(tmp_path / "out")) == {"a.jpg", "b.png", "sub/c.png"}
    for name in ("a.jpg", "b.png", "sub/c.png"):
        assert rows[name]["input_sha256"] == task.digest(album / name) and rows[name][
            "output_sha256"
        ] == task.digest(tmp_path / "out" / name)
    table = list(csv.DictReader((tmp_path / "new" / "r.csv").open()))
    assert [(r["name"],
        r["status"]) for r in json.loads((tmp_path / "new" / "r.json").read_text())["files"]] == [
        (Path(r["output"]).relative_to(tmp_path / "out").as_posix(),
        r["status"]) for r in table]  # fmt: skip
    captured = capsys.readouterr()
    assert (
        len(captured.err.splitlines()) == 1
        and "3 restored, 0 skipped, 1 failed" in captured.out.splitlines()[3]
    )
    assert (
        not list((tmp_path / "out").rglob("*.tmp"))
        and not (tmp_path / "out" / STATE / "staging").exists()
    )


def test_the_gallery_escapes_names_and_replaces_only_itself(tmp_path, here, capsys):
    name = "<img src=x onerror=alert(1)>\n&.jpg"
    put(tmp_path / "in" / name)
    (tmp_path / "in" / "<b>bad.jpg").touch()
    restore(tmp_path / "in", tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    assert (
        "<img src=x" not in text
        and "<b>" not in text
        and "&lt;img src=x" in text
        and "E_EMPTY" in text
    )
    assert (
        gallery.thumb_path(tmp_path / "out", name).stat().st_size < 20000
        and gallery.thumb_path(Path(), name).as_posix() in text
    )
    (tmp_path / "out" / "index.html").write_text("my own page")
    restore(tmp_path / "in", tmp_path / "out", resume=True)
    assert (
        tmp_path / "out" / "index.html"
    ).read_text() == "my own page" and "no gallery" in capsys.readouterr().err


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
    assert {
        r["status"] for r in restore(tmp_path / "in", tmp_path / "out", resume=True).values()
    } == {"skipped"}


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
        "a.jpg": "skipped", "b.png": "restored", "d.jpg": "failed", "e.png": "restored",
        "sub/c.png": "skipped"}  # fmt: skip
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
    assert (
        rows["a.jpg"]["status"] == "restored"
        and rows["b.png"]["status"] == "skipped"
        and rows["x.jpg"]["status"] == "restored"
    )
    assert pictures(out)["x.jpg"] == first["a.jpg"] != pictures(out)["a.jpg"] and stamp.st_mtime > 1


def test_other_options_or_weights_are_done_again(album, tmp_path, here):
    restore(album, tmp_path / "out")
    rows = restore(album, tmp_path / "out", replace(SETTINGS, made_by="other"), resume=True)
    assert {r["status"] for r in rows.values()} == {"restored", "failed"}
    assert (
        restore(album, tmp_path / "out", replace(SETTINGS, made_by="other"), resume=True)["a.jpg"][
            "status"
        ]
        == "skipped"
    )


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
    assert (
        rows["a.jpg"]["code"] == "E_WRITE"
        and "changed since" in rows["a.jpg"]["message"]
        and rows["b.png"]["status"] == "skipped"
    )
    assert pictures(out) == first
    assert (
        restore(album, out, replace(SETTINGS, overwrite=True), resume=True)["a.jpg"]["status"]
        == "restored"
    )
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
    assert (
        rows["a.jpg"]["code"] == "E_WRITE"
        and rows["b.png"]["status"] == "restored"
        and pictures(album) == before
    )


def test_links_out_of_the_output_folder_are_not_followed(album, tmp_path, here):
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    (out / "sub").symlink_to(other)
    rows = restore(album, out, replace(SETTINGS, overwrite=True))
    assert (
        rows["sub/c.png"]["code"] == "E_WRITE"
        and "link" in rows["sub/c.png"]["message"]
        and not any(other.iterdir())
    )
    shutil.rmtree(out / STATE)
    (out / STATE).symlink_to(other)
    with pytest.raises(image.ImageError, match="link"):
        restore(album, out)


def test_an_input_that_changes_or_vanishes(album, tmp_path, here, monkeypatch):
    load = image.load

    def changing(path, **options):
        picture = load(path, **options)
        if Path(path).name == "a.jpg":
            with open(path, "ab") as file:
                file.write(b"more")
        return picture

    monkeypatch.setattr(image, "load", changing)
    jobs = plan([str(album)], str(tmp_path / "out"))
    (album / "b.png").unlink()
    rows = {row["name"]: row["code"] for row in batch.folder(jobs, SETTINGS)}
    assert rows == {
        "a.jpg": "E_CHANGED",
        "b.png": "E_MISSING",
        "d.jpg": "E_FORMAT",
        "sub/c.png": None,
    }
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
    assert [row["status"] for row in rows].count(
        "failed"
    ) >= 2 and "vanished" in capsys.readouterr().err
    assert json.loads((tmp_path / "r.json").read_text())["files"] == rows and not out.exists()


def test_left_overs_of_dead_runs_go(album, tmp_path, here):
    out = tmp_path / "out"
    (out / STATE / "staging").mkdir(parents=True)
    for path in (
        out / STATE / "staging" / "x.png",
        out / STATE / ".mtrestore-1.tmp",
        out / ".mtrestore-2.tmp",
        out / ".mtrestore-3.tmp",
    ):
        path.write_text("part")
    os.utime(out / ".mtrestore-2.tmp", (1, 1))
    restore(album, out)
    assert [p.name for p in out.rglob("*.tmp")] == [".mtrestore-3.tmp"], (
        "one that another program may be writing stays"
    )
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
    with_faults = task.Settings(
        tuple({**faults.IDENTITY, "restorer": faults.by_colour}.items()), made_by="x", threads=1
    )
    began = time.monotonic()
    rows = restore(tmp_path / "in", tmp_path / "out", with_faults, workers=2, timeout=6)
    codes = {Path(n).stem: r["code"] for n, r in rows.items()}
    faulty = {
        "crash": "E_CRASH",
        "hang": "E_TIMEOUT",
        "memory": "E_MEMORY",
        "nan": "E_NONFINITE",
        "exit": "E_CRASH",
    }
    assert codes == faulty | {f"good{i}": None for i in range(6)}
    assert "SIGSEGV" in rows["crash.png"]["message"] and "6 s" in rows["hang.png"]["message"]
    assert len(pictures(tmp_path / "out")) == 6 and time.monotonic() - began < 120


def test_models_that_cannot_be_made_are_one_error(album, tmp_path):
    with pytest.raises(task.SetUpError, match="scale must lie"):
        restore(
            album, tmp_path / "out", replace(SETTINGS, options=(*SETTINGS.options, ("scale", 99)))
        )


PROGRAM = """
import sys, faults
from pathlib import Path
from mtrestore import cli
from mtrestore.folder import names as outputs
from mtrestore.folder import one_file as task
from mtrestore.folder import run as batch
nets = {**faults.IDENTITY, "restorer": faults.slow}
settings = task.Settings(tuple(nets.items()), made_by="slow", threads=1)
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
    listen = lambda: signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # a background job, and what it starts, begins with it ignored
    return subprocess.Popen(
        [sys.executable, program, source, out],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
        preexec_fn=listen,
    )


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


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(),
    reason="finds orphans through /proc, which this system lacks",
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_orphan_and_is_finished_by_the_next(tmp_path, here, number):
    for i in range(8):
        put(tmp_path / "in" / f"{i}.png", i)
    out = tmp_path / "out"
    process = start(tmp_path, tmp_path / "in", out)
    assert until(lambda: len(pictures(out)) >= 1 if out.exists() else False, 120), (
        process.communicate()
    )
    with pytest.raises(image.ImageError, match="another run"):
        restore(tmp_path / "in", out)
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(60) == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    busy = max(
        1, os.getloadavg()[0] / os.cpu_count()
    )  # on a machine that others use, five seconds of it take longer
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
    options = {
        "dashboard_address": None,
        "n_workers": 1,
        "threads_per_worker": 1,
        "processes": True,
        "silence_logs": 50,
    }
    with distributed.LocalCluster(**options) as cluster:
        rows = restore(album, tmp_path / "out", SETTINGS, dask=cluster.scheduler_address)
    alone = restore(album, tmp_path / "alone")
    told = ("name", "status", "code", "faces_found", "notes", "input_sha256", "output_sha256")
    assert {n: [r.get(k) for k in told] for n, r in rows.items()} == {
        n: [r.get(k) for k in told] for n, r in alone.items()
    }
    with pytest.raises(task.SetUpError, match="no Dask cluster"):
        restore(album, tmp_path / "late", dask="tcp://127.0.0.1:9")


# ---------------------------------------------------------------- what a run may write


def test_a_report_replaces_nothing_that_the_run_reads_or_writes(album, tmp_path, here):
    out = tmp_path / "out"
    restore(album, out)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != "lock"}
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(out)
    net = tmp_path / "net.onnx"
    net.write_bytes(b"a net")
    os.link(album / "a.jpg", tmp_path / "hard.json")
    (tmp_path / "soft.json").symlink_to(album / "a.jpg")
    jobs = plan([str(album)], str(out))
    with_net = replace(
        SETTINGS, options=(*SETTINGS.options, ("face", str(net))), overwrite=True, html=True
    )
    for report in (album / "a.jpg", tmp_path / "hard.json", tmp_path / "soft.json", net,
        tmp_path / "x" / ".." / "net.onnx", out / "b.png",
                   out / "B.PNG", tmp_path / "link" / "b.png", out / "a.jpg.html",
                   out / "index.html", out / "sub" / ".." / "INDEX.HTML",
                   out / STATE / "journal.jsonl", out / STATE / "new.json",
                   tmp_path / "link" / STATE / "lock"):  # fmt: skip
        with pytest.raises(image.ImageError, match="would overwrite|lies in a folder"):
            batch.folder(jobs, with_net, report=report)
    assert (
        all(path.read_bytes() == data for path, data in before.items())
        and net.read_bytes() == b"a net"
    )


@pytest.mark.parametrize("name", ["r.json", "r.csv"])
def test_a_report_that_cannot_be_written_is_said_before_any_work(album, tmp_path, here, name):
    (tmp_path / name).write_text("important")
    with pytest.raises(image.ImageError, match=rf"{name} exists already.*--overwrite"):
        batch.folder(
            plan([str(album)], str(tmp_path / "out")), SETTINGS, report=tmp_path / "r.json"
        )
    with pytest.raises(image.ImageError, match="Not a directory"):
        batch.folder(
            plan([str(album)], str(tmp_path / "out")), SETTINGS, report=tmp_path / name / "r.json"
        )
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(image.ImageError, match="not a regular file"):
        batch.folder(
            plan([str(album)], str(tmp_path / "out")), SETTINGS, report=tmp_path / "pipe.json"
        )
    assert (tmp_path / name).read_text() == "important" and not (tmp_path / "out").exists()
    restore(album, tmp_path / "out", replace(SETTINGS, overwrite=True), report=tmp_path / "r.json")
    restore(
        album, tmp_path / "out", resume=True, report=tmp_path / "r.json"
    )  # an earlier report of ours
    assert json.loads((tmp_path / "r.json").read_text())["counts"] == {"skipped": 3, "failed": 1}


def test_a_page_replaces_no_input_and_no_page_of_others(tmp_path, here):
    put(tmp_path / "in" / "a.png")
    put(tmp_path / "out" / "a.png.html.png", 1)
    os.rename(
        tmp_path / "out" / "a.png.html.png", tmp_path / "out" / "a.png.html"
    )  # a picture, and an input
    before = (tmp_path / "out" / "a.png.html").read_bytes()
    pages = replace(SETTINGS, html=True, overwrite=True)
    inputs = [str(tmp_path / "in" / "a.png"), str(tmp_path / "out" / "a.png.html")]
    rows = {row["name"]: row for row in batch.folder(plan(inputs, str(tmp_path / "out")), pages)}
    assert rows["a.png"]["code"] == "E_WRITE" and "is an input" in rows["a.png"]["message"]
    assert (tmp_path / "out" / "a.png.html").read_bytes() == before and not (
        tmp_path / "out" / "a.png"
    ).exists()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "a.png.html").write_text("my notes")
    rows = restore(tmp_path / "in", tmp_path / "two", replace(SETTINGS, html=True))
    assert (
        rows["a.png"]["code"] == "E_WRITE"
        and (tmp_path / "two" / "a.png.html").read_text() == "my notes"
    )
    assert not (tmp_path / "two" / "a.png").exists(), "the refusal comes before the work"
    restore(tmp_path / "in", tmp_path / "two", pages)
    (tmp_path / "two" / "a.png").unlink()
    assert (
        restore(tmp_path / "in", tmp_path / "two", replace(SETTINGS, html=True))["a.png"]["status"]
        == "restored"
    ), "our own page"


def test_a_gallery_replaces_no_input(album, tmp_path, here, capsys):
    restore(album, tmp_path / "out")
    index = tmp_path / "out" / "index.html"
    before = index.read_bytes()
    batch.folder(
        plan([str(album / "a.jpg"), str(index)], str(tmp_path / "out")), SETTINGS, resume=True
    )
    assert index.read_bytes() == before and "no gallery" in capsys.readouterr().err


def test_a_report_that_is_lost_is_told(album, tmp_path, here, monkeypatch, capsys):
    real = batch.write_reports

    def full(path, *rest, **about):
        if path == tmp_path / "r.json":
            raise image.ImageError("E_WRITE", "the disk is full")
        real(path, *rest, **about)

    monkeypatch.setattr(batch, "write_reports", full)
    rows = batch.folder(
        plan([str(album)], str(tmp_path / "out")), SETTINGS, report=tmp_path / "r.json"
    )
    assert (
        rows.lost == ("no report: the disk is full",)
        and "the disk is full" in capsys.readouterr().err
    )
    assert batch.folder(plan([str(album)], str(tmp_path / "out")), SETTINGS).lost == ()


# ---------------------------------------------------------------- one file, one row


@pytest.fixture
def deep(tmp_path):
    """A place for folders too deep for Python to remove."""
    yield tmp_path
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)


def test_paths_deeper_than_the_stack_and_longer_than_the_system(deep, here):
    put(deep / "in" / "z.png")
    data, folder = (deep / "in" / "z.png").read_bytes(), os.open(deep / "in", os.O_RDONLY)
    for level in range(2100):  # 4,200 bytes: below, no path reaches
        os.mkdir("a", dir_fd=folder)
        below = os.open("a", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
        if level in (1200, 2099):
            file = os.open("x.png", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
            os.write(file, data)
            os.close(file)
    os.close(folder)
    rows = restore(deep / "in", deep / "out")
    assert (
        rows["z.png"]["status"] == "restored"
        and rows["a/" * 1201 + "x.png"]["status"] == "restored"
    )
    assert [row["code"] for row in rows.values() if row["status"] == "failed"] == ["E_NAME"]


@pytest.mark.parametrize(
    "error",
    [
        RecursionError("too deep"),
        ValueError("odd"),
        OSError(36, "File name too long"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("where", ["check_place", "make_folders"])
def test_whatever_one_file_raises_is_its_row(album, tmp_path, here, monkeypatch, error, where):
    real = getattr(batch, where)

    def fails(what, *rest):
        if "sub" in str(getattr(what, "rel", what)):
            raise error
        return real(what, *rest)

    monkeypatch.setattr(batch, where, fails)
    rows = restore(album, tmp_path / "out")
    assert rows["sub/c.png"]["status"] == "failed" and rows["sub/c.png"]["message"]
    assert rows["a.jpg"]["status"] == rows["b.png"]["status"] == "restored"


def test_names_made_to_meet_ours_end_nothing():
    places = [Path("Case.jpg"), Path("case.jpg")]
    for _ in range(4):  # whoever knows how we name can put that name there
        out = keep_apart(places)
        assert len(set(map(alike, out))) == len(places)
        places.append(out[0])


def put_row(path: Path, **changes) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert "a.jpg" in [row["name"] for row in rows]
    path.write_text(
        "".join(json.dumps(row | changes if row["name"] == "a.jpg" else row) + "\n" for row in rows)
    )


@pytest.mark.parametrize("changes", [
    {"notes": [1, {"a": 2}]}, {"notes": "text"}, {"notes": None}, {"faces": [[]]},
    {"seconds": float("nan")}, {"seconds": float("inf")}, {"seconds": "1"}, {"seconds": -1},
    {"seconds": True}, {"faces_found": 1e300}, {"faces_found": "2"}, {"faces_restored": [3]},
    {"code": 7}, {"faces_failed": 10**4000}, {"message": {}}, {"input_sha256": 1}, {"made_by": []},
    {"name": ["a.jpg"]}, {"output_sha256": None}, {"status": {}}, {"notes": ["x" * (1 << 21)]},
    {"status": "odd"},
], ids=repr)  # fmt: skip
def test_a_row_of_another_shape_is_none(album, tmp_path, here, changes):
    restore(album, tmp_path / "out")
    put_row(tmp_path / "out" / STATE / "journal.jsonl", **changes)
    rows = restore(album, tmp_path / "out", resume=True)
    assert rows["a.jpg"]["code"] == "E_WRITE" and "exists already" in rows["a.jpg"]["message"]
    assert rows["b.png"]["status"] == rows["sub/c.png"]["status"] == "skipped"
    rows = restore(album, tmp_path / "out", replace(SETTINGS, overwrite=True), resume=True)
    assert {n: r["status"] for n, r in rows.items() if n != "d.jpg"} == {
        "a.jpg": "restored",
        "b.png": "skipped",
        "sub/c.png": "skipped",
    }


def test_what_a_journal_says_beside_our_fields_goes_nowhere(album, tmp_path, here):
    restore(album, tmp_path / "out")
    evil = {
        "code": "<b>",
        "notes": ["<script>", "=1+1", "\ud800\x1b[2J"],
        "extra": {"deep": [1]},
        "message": "\n<i>",
        "input": "=cmd()",
    }
    put_row(tmp_path / "out" / STATE / "journal.jsonl", **evil)
    rows = restore(album, tmp_path / "out", resume=True)
    assert (
        rows["a.jpg"]["status"] == "skipped"
        and rows["a.jpg"]["input"] == str(album / "a.jpg")
        and "extra" not in rows["a.jpg"]
    )
    assert "<script>" not in (tmp_path / "out" / "index.html").read_text()
    assert "\x1b" not in (tmp_path / "out" / STATE / "report.csv").read_text()


def test_a_journal_that_is_no_file_of_ours_is_refused_untouched(album, tmp_path, here):
    path, other = tmp_path / "out" / STATE / "journal.jsonl", tmp_path / "other"
    other.write_text("precious")
    path.parent.mkdir(parents=True)
    for make in (
        lambda: os.link(other, path),
        lambda: os.symlink(other, path),
        lambda: os.mkfifo(path),
        path.mkdir,
    ):
        make()
        with pytest.raises(image.ImageError, match="journal"):
            batch.folder(plan([str(album)], str(tmp_path / "out")), SETTINGS)
        path.rmdir() if path.is_dir() else path.unlink()
    assert other.read_text() == "precious"


def test_a_journal_of_many_bytes_costs_little_memory(tmp_path):
    resource = pytest.importorskip("resource")
    assert resource
    path = tmp_path / "journal.jsonl"
    row = json.dumps({"name": "b.png", "status": "restored", "output_sha256": "1"}).encode()
    with path.open("wb") as file:
        file.write(b"[" * (60 << 20) + b"\n")
        for i in range(1000):
            file.write(row.replace(b'"1"', b'"%d"' % i).replace(b"b.png", b"%d.png" % i) + b"\n")
        file.write(row + b"\n" + b"x" * (30 << 20))
    program = (
        "import resource, sys; from pathlib import Path; from mtrestore.folder.journal import "
        "Journal; most = lambda: resource.getrusage("
        "resource.RUSAGE_SELF).ru_maxrss; before = most(); journal = Journal(Path(sys.argv[1]), "
        "{'b.png'}); print(most() - before, len(journal.past))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=True
    )
    more, names = map(int, done.stdout.split())
    assert names == 1 and more < 40 << 10  # KiB


def test_what_is_planted_in_the_folder_of_a_run_leads_nowhere(album, deep, here):
    state, other = deep / "out" / STATE, deep / "other"
    other.write_text("precious")
    (deep / "there").mkdir()
    (deep / "there" / "x").write_text("precious")
    state.mkdir(parents=True)
    for name, make in {
        "lock": os.symlink,
        "lock ": os.link,
        "staging": os.symlink,
        "thumbs": os.symlink,
    }.items():
        place = state / name.strip()
        if place.is_dir():
            place.rmdir()
        make(deep / "there" if name in ("staging", "thumbs") else other, place)
        with pytest.raises(image.ImageError, match="link|lock of ours"):
            batch.folder(plan([str(album)], str(deep / "out")), SETTINGS)
        place.unlink()
    folder = state / "staging" / "/".join("d" * 1100)
    batch.make_folders(folder)
    with pytest.raises(image.ImageError, match="not ours"):
        batch.folder(plan([str(album)], str(deep / "out")), SETTINGS)
    assert other.read_text() == "precious" and (deep / "there" / "x").read_text() == "precious"


# ---------------------------------------------------------------- hostile names


def test_links_of_a_gallery_stay_in_its_folder(tmp_path, here):
    names = [
        "javascript:alert(1).png",
        "%2e%2e%2fx.png",
        "x\\..\\..\\x.png",
        "data:text,x.png",
        "#a.png",
        "?b.png",
        "&quot;>.png",
    ]
    for i, name in enumerate(names):
        put(tmp_path / "in" / name, i)
    restore(tmp_path / "in", tmp_path / "out")
    links = re.findall(r'(?:href|src)="([^"]*)"', (tmp_path / "out" / "index.html").read_text())
    assert len(links) == 3 * len(names)  # the picture of both, its link, and the output
    for link in links:
        url = urljoin("file:///out/index.html", html.unescape(link))
        assert (
            url.startswith("file:///out/")
            and (tmp_path / "out" / unquote(url.removeprefix("file:///out/"))).is_file()
        )


@pytest.mark.parametrize("text, in_a_table", [
    ("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@x", "'@x"), ("\t=1", "'\\t=1"),
    ("\r=1", "'\\r=1"), ("\ttext", "'\\ttext"), ("  =1", "'  =1"), ("\u00a0@x", "'\\xa0@x"),
    ("\uff1d1", "'\uff1d1"), ("a=b", "a=b"), ("plain.png", "plain.png"), ("", ""), (" ", " "),
])  # fmt: skip
def test_no_cell_of_a_table_is_a_formula(text, in_a_table):
    assert cell(text) == in_a_table


def test_no_name_becomes_a_formula_in_the_report(tmp_path, here, monkeypatch):
    for name in ("=1+1.png", "@x.png", "-2.png", "+3.png"):
        put(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    batch.folder(plan(["=1+1.png", "@x.png", "-2.png", "+3.png"], "out"), SETTINGS)
    rows = list(csv.reader((tmp_path / "out" / STATE / "report.csv").open()))[1:]
    assert [row[0] for row in rows] == ["'=1+1.png", "'@x.png", "'-2.png", "'+3.png"]
