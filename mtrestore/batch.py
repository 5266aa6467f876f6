"""A folder of photos: every input is restored, skipped or failed with a code, whatever the others do and however the run ends.

    jobs = outputs.plan(inputs, output)        # which file becomes which
    rows = folder(jobs, settings)              # claim the folder; workers; journal; reports; gallery
        worker:  task.work(job)                # restored into OUT/.mtrestore/staging, or skipped, or failed
        parent:  publish(job, row)             # row -> journal, on the disk -> the output gets its name

Only the parent gives an output its name, and only after the journal knows its sha256. So a worker that dies or hangs leaves nothing in the
output folder, and a run killed at any moment leaves no output that the next one does not know for its own. OUT/.mtrestore/ holds
journal.jsonl, report.json, report.csv, thumbs/ and the lock; OUT/index.html is the gallery.

Codes: those of `image.ImageError`, and E_MEMORY, E_CRASH (the worker ended, or something unforeseen), E_TIMEOUT, E_CHANGED (the input
changed meanwhile).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import __version__, gallery, image, watchdog
from .image import ImageError
from .journal import Journal, Row, write_reports
from .lines import one_line, shown
from .outputs import STATE, Job, inode, key
from .task import Settings, failed, read_made, work

TIMEOUT = 900.0  # seconds for one file; 200 megapixels take about 200
STALE = 600.0  # seconds after which a temporary file beside an output is a dead run's


def single(job: Job, settings: Settings, report: Path | None = None, timeout: float = TIMEOUT) -> list[Row]:
    """Restore one file in this process, where a bad file is refused before torch is imported; after `timeout` seconds the process ends.

    Raises SetUpError.
    """
    def finish(row: Row) -> None:
        tell(row)
        if report:
            write_reports(report, [row], version=__version__, options=dict(settings.options), complete=True)

    try:
        late = failed(job, "E_TIMEOUT", f"{job.source} took more than {timeout:g} s and was stopped")
        with watchdog.limit(timeout, lambda: finish(late)):
            row = refusal(job, settings, {inode(job.source)}) or work(job, settings)
    except (KeyboardInterrupt, SystemExit) as stop:  # leave now: Python would wait for the nets' threads
        say("mtrestore: interrupted", sys.stderr)
        os._exit(130 if isinstance(stop, KeyboardInterrupt) else stop.code)
    finish(row)
    return [row]


def folder(jobs: Sequence[Job], settings: Settings, *, workers: int = 1, timeout: float = TIMEOUT, resume: bool = False,
           dask: str | None = None, report: Path | None = None) -> list[Row]:  # fmt: skip
    """Restore many files in worker processes and account for each: their rows, in the order of the jobs.

    workers: processes on this machine; dask: the address of a cluster instead. timeout: seconds for one file. resume: skip what an earlier
    run made from the same bytes with the same options, weights and version. report: a JSON file beside the one in the output folder.
    Raises SetUpError, and ImageError E_WRITE where the output folder cannot be used; at a signal, once reports are written, what its handler raised.
    """
    from .workers import Cluster, Local, results

    root, inputs, done = jobs[0].root, {inode(job.source) for job in jobs} - {None}, {}
    about = {"version": __version__, "options": dict(settings.options), "made_by": settings.made_by, "inputs": len(jobs)}
    if dask:  # its workers stand elsewhere
        jobs = [replace(job, source=Path(os.path.abspath(job.source)), root=Path(os.path.abspath(root))) for job in jobs]
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=len(jobs), unit="photo", disable=not sys.stderr.isatty(), dynamic_ncols=True)
    with claimed(root) as state, contextlib.closing(Journal(state / "journal.jsonl")) as journal, bar:
        sweep({job.target.parent for job in jobs}, STALE)
        past = journal.past if resume else {}

        def account(job: Job, row: Row) -> None:
            if row["status"] == "restored":
                row = publish(job, row, journal, settings.overwrite)
            elif row["status"] == "failed":
                with contextlib.suppress(ImageError):  # a full disk; the report may still find room
                    journal.add(row)
            done[job] = row
            tell(row)
            bar.update()

        def tasks() -> Iterator[tuple[Any, ...]]:
            for job in jobs:
                if row := refusal(job, settings, inputs, past, state):
                    account(job, row)
                else:
                    yield job, settings, staged(job), past.get(os.fsdecode(job.rel))

        pool = Cluster(dask, timeout) if dask else Local(settings, workers, timeout)
        try:
            for job, row in results(pool, tasks()):
                account(job, row)
        finally:
            with undisturbed():
                pool.close()
                shutil.rmtree(state / "staging", ignore_errors=True)  # on a full disk the reports need room
                conclude(root, [done[job] for job in jobs if job in done], report, about)
    return [done[job] for job in jobs]


# ---------------------------------------------------------------- outputs

def staged(job: Job) -> Path:
    """Where a worker writes an output before it gets its name."""
    return job.root / STATE / "staging" / f"{key(os.fsdecode(job.rel))}{job.rel.suffix}"


def refusal(job: Job, settings: Settings, inputs: Collection[Any], past: Collection[str] = (), state: Path | None = None) -> Row | None:
    """The row of a job that must not even be tried; None for all others. inputs: what no output may replace; past: what a resumed run may."""
    try:
        if job.problem:
            raise job.problem
        check_place(job, state)
        if os.path.lexists(job.target):
            if (there := inode(job.target)) and there in inputs:
                raise ImageError("E_WRITE", f"{job.target} is an input and would be overwritten by its own restoration, or another's; give another output")
            if not settings.overwrite and os.fsdecode(job.rel) not in past:
                raise ImageError("E_WRITE", f"{job.target} exists already; give another output or --overwrite")
    except ImageError as e:
        return failed(job, e.code, str(e))
    return None


def check_place(job: Job, state: Path | None) -> None:
    """Raises ImageError E_WRITE when the output folder has gone, or a link below it leads an output elsewhere."""
    if state and not state.is_dir():
        raise ImageError("E_WRITE", f"the output folder {job.root} has vanished; nothing can be written there")
    if os.path.realpath(job.target.parent) != os.path.normpath(os.path.join(os.path.realpath(job.root), job.rel.parent)):
        raise ImageError("E_WRITE", f"{job.target} is reached through a link that leads elsewhere; remove the link or give another output")


def publish(job: Job, row: Row, journal: Journal, overwrite: bool) -> Row:
    """Give an output, and its page, their names after the journal knows them; the row, or that of a failure."""
    made = staged(job)
    overwrite |= row.pop("replaces", False)
    try:
        check_place(job, made.parent)
        journal.add(row)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        if (page := Path(f"{made}.html")).exists():
            rename(page, job.page, overwrite or row["name"] in journal.past)
        rename(made, job.target, overwrite)
    except (ImageError, OSError) as e:
        row = failed(job, "E_WRITE", one_line(e))
        with contextlib.suppress(ImageError):
            journal.add(row)
    return row


def rename(made: Path, target: Path, overwrite: bool) -> None:
    """Move a finished file to its name; never onto another one unless `overwrite`. Raises ImageError."""
    try:
        if overwrite:
            os.replace(made, target)
        else:
            os.link(made, target)  # unlike rename, this fails where a file is there
            os.unlink(made)
    except FileExistsError as e:
        raise ImageError("E_WRITE", f"{target} exists already; give another output or --overwrite") from e
    except OSError:  # another file system, or one without hard links
        image.write_bytes(target, read_made(made), overwrite)


# ---------------------------------------------------------------- the output folder

@contextlib.contextmanager
def claimed(root: Path) -> Iterator[Path]:
    """The state folder of an output folder: made, locked for this process alone, and free of what dead runs left. Raises ImageError E_WRITE."""
    from filelock import FileLock, Timeout

    state = root / STATE
    try:
        (state / "thumbs").mkdir(parents=True, exist_ok=True)
        if os.path.realpath(state / "thumbs") != os.path.join(os.path.realpath(root), STATE, "thumbs"):
            raise ImageError("E_WRITE", f"{state} is a link; remove it or give another output")
        lock = FileLock(state / "lock")
        lock.acquire(timeout=0)
    except Timeout as e:
        raise ImageError("E_WRITE", f"another run is working in {root}; wait for it, or give another output") from e
    except OSError as e:
        raise ImageError("E_WRITE", f"the output folder {root} cannot be used: {e.strerror or e}") from e
    try:
        sweep([state, state / "thumbs"], 0)
        shutil.rmtree(state / "staging", ignore_errors=True)
        (state / "staging").mkdir()
        yield state
    finally:
        shutil.rmtree(state / "staging", ignore_errors=True)
        lock.release()


def sweep(folders: Iterable[Path], older: float) -> None:
    """Remove the temporary files that `image.write_bytes` of a killed run left, if they are older than so many seconds."""
    for place in folders:
        for temp in place.glob(".mtrestore-*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - temp.stat().st_mtime >= older:
                    temp.unlink()


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals are ignored inside: it takes a moment, and the run ends with it."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def conclude(root: Path, rows: Sequence[Row], report: Path | None, about: dict[str, Any]) -> None:
    """Write reports and gallery, each as far as the disk allows; what cannot be written is said."""
    state, index = root / STATE, root / "index.html"
    about |= {"complete": len(rows) == about["inputs"]}
    for path in [state / "report.json", *([report] if report else [])]:
        try:
            if state.is_dir() or path == report:
                write_reports(path, rows, **about)
        except ImageError as e:
            say(f"no report: {e}", sys.stderr)
    try:
        if os.path.lexists(index) and gallery.MARK.encode() not in image.read_bytes(index)[:100]:
            raise ImageError("E_WRITE", f"{index} is not a gallery of ours and stays as it is")
        if state.is_dir():
            os.replace(image.write_bytes(state / "index.html", gallery.page(root, rows).encode()), index)
    except (ImageError, OSError) as e:
        say(f"no gallery: {one_line(e)}", sys.stderr)
    count = Counter(row["status"] for row in rows)
    left = f", {about['inputs'] - len(rows)} not tried" * (not about["complete"])
    say(f"{count['restored']} restored, {count['skipped']} skipped, {count['failed']} failed{left}; see {index} and {state / 'report.json'}", sys.stdout)


def tell(row: Row) -> None:
    """One line about a file: to stdout when it was restored, to stderr when it failed."""
    if row["status"] == "restored":
        say(f"restored {row['input']} -> {row['output']}: {row['message']}", sys.stdout)
    elif row["status"] == "failed":
        say(f"failed {row['input']}: {row['message']}", sys.stderr)
        if "traceback" in row:
            sys.stderr.write(row["traceback"])


def say(text: str, file: Any) -> None:
    """Print a line above the progress bar; where nobody can read it any more (a closed pipe, a full disk) the run goes on."""
    try:
        tqdm.write(shown(text), file=file)
        file.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
