"""A folder of photos: every input is restored, skipped or failed with a code, whatever the others
do and however the run ends.

    jobs = names.plan(inputs, output)    # which file becomes which
    rows = folder(jobs, settings)        # claim the folder; workers; journal; reports; gallery
        worker:  one_file.work(job)      # restored into .mtrestore/staging, or skipped, or failed
        parent:  publish(job, row)       # row -> journal, on the disk -> the output gets its name

Only the parent gives an output its name, and only after the journal knows its sha256. So a worker
that dies or hangs leaves nothing in the output folder, and a run killed at any moment leaves no
output that the next one does not know for its own. OUT/.mtrestore/ holds journal.jsonl,
report.json, report.csv, thumbs/ and the lock; OUT/index.html is the gallery.

Codes: those of `image.ImageError`, and E_MEMORY, E_CRASH (the worker ended, or something
unforeseen), E_TIMEOUT, E_CHANGED (the input changed meanwhile), E_FACE (see `choice`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .. import __version__
from ..guard import watchdog
from ..guard.lock import locked
from ..guard.signals import undivided
from ..image import SUFFIXES, ImageError
from ..io import claims, files
from ..io.claims import Claims
from ..io.files import clear, fresh, make_folders, move, remove_unfinished
from ..io.text import one_line, shown
from . import gallery
from .journal import COLUMNS, Journal, Row, report_paths, write_reports
from .names import LONGEST, STATE, Job, key
from .one_file import Settings, code_of, failed, nets, work

TIMEOUT = 900.0  # seconds for one file; 200 megapixels take about 200
REMOVE = "remove it or give another output"
STALE = 600.0  # seconds after which a temporary file beside an output is a dead run's


class Rows(list):
    """What became of each job, in their order.

    lost: a sentence for each report that was asked for and could not be written.
    """

    lost: tuple[str, ...] = ()


def single(
    jobs: Job | Sequence[Job],
    settings: Settings,
    report: Path | None = None,
    timeout: float = TIMEOUT,
) -> Rows:
    """Restore one file, or its pages, in this process, where a bad file is refused before torch is
    imported.

    After `timeout` seconds for a page the process ends. Raises SetUpError, and ImageError where the
    report cannot be written, before any work is done.
    """
    jobs = [replace(job, alone=True) for job in ([jobs] if isinstance(jobs, Job) else jobs)]
    run = claims_of(jobs, settings)
    replace_report = claim_report(report, run)
    rows = Rows()

    def finish(row: Row) -> Rows:
        tell(row)
        rows.append(row)
        if report and (row["code"] == "E_TIMEOUT" or len(rows) == len(jobs)):
            about = about_of(settings) | {"complete": len(rows) == len(jobs)}
            rows.lost = write(report, rows, replace_report, about)
        return rows

    try:
        for job in jobs:
            why = f"{job.source} took more than {timeout:g} s and was stopped"
            late = failed(job, "E_TIMEOUT", why)
            with watchdog.limit(timeout, lambda row=late: finish(row)):
                row = refusal(job, settings, run) or work(job, settings)
            finish(row)
    except (KeyboardInterrupt, SystemExit) as stop:  # now: Python would wait for the nets' threads
        say("mtrestore: interrupted", sys.stderr)
        code = stop.code if isinstance(stop, SystemExit) else 130
        os._exit(code if isinstance(code, int) else 1)
    return rows


def folder(
    jobs: Sequence[Job],
    settings: Settings,
    *,
    workers: int = 1,
    timeout: float = TIMEOUT,
    resume: bool = False,
    dask: str | None = None,
    report: Path | None = None,
) -> Rows:
    """Restore many files in worker processes: their rows, in the order of the jobs.

    workers: processes on this machine; dask: the address of a cluster instead. timeout: seconds for
    one file. resume: skip what an earlier run made from the same bytes with the same options,
    weights and version. report: a JSON file beside the one in the output folder. Raises SetUpError,
    and ImageError E_WRITE where output folder or report cannot be used; at a signal, once reports
    are written, what its handler raised.
    """
    from .pool import Cluster, Local, results

    root, rows = jobs[0].root, Rows()
    done: dict[Job, Row] = {}
    about = about_of(settings) | {"made_by": settings.made_by, "inputs": len(jobs)}
    jobs = [absolute(job) for job in jobs] if dask else jobs  # its workers stand elsewhere
    run = claims_of(jobs, settings)
    replace_report = claim_report(report, run)
    bar = tqdm(total=len(jobs), unit="photo", disable=not sys.stderr.isatty(), dynamic_ncols=True)
    with claimed(root) as state, journal_of(jobs, state) as journal, bar:
        remove_unfinished({job.target.parent for job in jobs}, STALE)
        past = journal.past if resume else {}

        def account(job: Job, row: Row) -> None:
            if row["status"] == "restored":
                row = publish(job, row, journal, run)
            elif row["status"] == "failed":
                with contextlib.suppress(ImageError):  # a full disk; the report may still find room
                    journal.add(row)
            done[job] = row
            tell(row)
            bar.update()

        def tasks() -> Iterator[tuple[Any, ...]]:
            for job in jobs:
                if row := refusal(job, settings, run, past, state):
                    account(job, row)
                else:
                    yield job, settings, staged(job), past.get(os.fsdecode(job.rel))

        pool = Cluster(dask, timeout) if dask else Local(settings, workers, timeout)
        try:
            for job, row in results(pool, tasks()):
                account(job, row)
        finally:
            with undivided(late=False):
                pool.close()
                clear_quietly(state / "staging")
                rows.extend(done[job] for job in jobs if job in done)
                rows.lost = conclude(root, rows, report, replace_report, run, about)
    return rows


def beside(source: str, word: str, again: bool = False) -> Path:
    """Where a result goes that nobody named: `photo_restored.jpg`, `photo_restored_2.jpg`, ...

    Nothing is there yet. A format that cannot be written becomes PNG. again: the first name, also
    where something is there; so for a folder, `album_restored`, whose files are asked one by one.
    """
    path = Path(source)
    path = path if path.name not in ("", "..") else Path(os.path.abspath(source))
    takes = not path.parent.is_dir() or os.access(path.parent, os.W_OK | os.X_OK)
    if not (path.name and takes):
        raise ImageError("E_WRITE", f"nothing can be written beside {source}; give -o OUT")
    stem, suffix = (path.name, "") if path.is_dir() else (path.stem, path.suffix)
    suffix = suffix if path.is_dir() or suffix.lower() in SUFFIXES else ".png"
    for number in itertools.count(1):
        ending = f"_{word}{suffix}" if number == 1 else f"_{word}_{number}{suffix}"
        if len(os.fsencode(stem + ending)) > LONGEST:
            stem = os.fsencode(stem)[: LONGEST - len(ending)].decode("utf-8", "ignore")
        place = path.with_name(stem + ending)
        if again or path.is_dir() or not os.path.lexists(place):
            return place
    raise AssertionError


def absolute(job: Job) -> Job:
    """The same job for a process that starts in another folder."""
    source, root = (Path(os.path.abspath(path)) for path in (job.source, job.root))
    return replace(job, source=source, root=root)


def journal_of(jobs: Sequence[Job], state: Path) -> contextlib.closing[Journal]:
    """The journal of an output folder, as far as it speaks of these jobs."""
    names = {os.fsdecode(job.rel) for job in jobs}
    return contextlib.closing(Journal(state / "journal.jsonl", names))


def about_of(settings: Settings) -> dict[str, Any]:
    """What a report says of a run."""
    return {"version": __version__, "options": dict(settings.options)}


def claims_of(jobs: Sequence[Job], settings: Settings) -> Claims:
    """What a run reads, and the outputs that it may write."""
    run = Claims(settings.overwrite)
    for job in jobs:
        run.reads(job.source, "an input")
    for path in nets(settings.options):
        run.reads(path, "a net in use")
    for job in jobs:
        if job.ignored:
            continue
        run.writes(job.target, "an output")
        if settings.html:
            run.writes(job.page, "a page")
    if not jobs[0].alone:
        run.writes(jobs[0].root / "index.html", "the gallery")
    return run


def claim_report(report: Path | None, run: Claims) -> dict[Path, bool]:
    """Of JSON and CSV of a report whether a file is replaced, one of ours or with --overwrite.

    Raises ImageError where it must not be.
    """
    if not report:
        return {}
    marks = dict(zip(report_paths(report), (claims.REPORT, ",".join(COLUMNS)[:90])))
    return {path: run.claim(path, "the report", mark=mark) for path, mark in marks.items()}


# ---------------------------------------------------------------- outputs


def staged(job: Job) -> Path:
    """Where a worker writes an output before it gets its name."""
    return job.root / STATE / "staging" / f"{key(os.fsdecode(job.rel))}{job.rel.suffix}"


def refusal(
    job: Job, settings: Settings, run: Claims, past: Collection[str] = (), state: Path | None = None
) -> Row | None:
    """The row of a job that must not even be tried; None for all others.

    past: the outputs that a resumed run may replace.
    """
    if job.ignored:
        return failed(job, None, job.ignored) | {"status": "ignored"}
    try:
        if job.problem:
            raise job.problem
        check_place(job, state)
        run.check(job.target, replace=os.fsdecode(job.rel) in past)
        if settings.html:
            run.check(job.page, mark=claims.COMPARISON)
    except Exception as e:  # the others go on
        return failed(job, code_of(e), one_line(e))
    return None


def check_place(job: Job, state: Path | None) -> None:
    """Raises ImageError E_WRITE when the output folder has gone, or a link leads an output away."""
    if state and not state.is_dir():
        why = "has vanished; nothing can be written there"
        raise ImageError("E_WRITE", f"the output folder {job.root} {why}")
    place = os.path.normpath(os.path.join(os.path.realpath(job.root), job.rel.parent))
    if os.path.realpath(job.target.parent) != place:
        why = "is reached through a link that leads elsewhere; remove the link"
        raise ImageError("E_WRITE", f"{job.target} {why} or give another output")


def publish(job: Job, row: Row, journal: Journal, run: Claims) -> Row:
    """Give an output, and its page, their names after the journal knows them.

    The row, or that of a failure.
    """
    made = staged(job)
    replace = run.overwrite or row.pop("replaces", False)
    try:
        check_place(job, made.parent)
        journal.add(row)
        make_folders(job.target.parent)
        if (page := Path(f"{made}.html")).exists():
            move(page, job.page, run.check(job.page, mark=claims.COMPARISON))
        move(made, job.target, replace)
    except Exception as e:  # the others go on
        code = "E_WRITE" if isinstance(e, (ImageError, OSError)) else code_of(e)
        row = failed(job, code, one_line(e))
        with contextlib.suppress(ImageError):
            journal.add(row)
    return row


# ---------------------------------------------------------------- the output folder


@contextlib.contextmanager
def claimed(root: Path) -> Iterator[Path]:
    """The state folder of an output folder: made, locked for this process alone, and free of what
    dead runs left.

    Raises ImageError E_WRITE.
    """
    state = root / STATE
    staging = state / "staging"
    busy = f"another run is working in {root}; wait for it, or give another output"
    with contextlib.ExitStack() as stack:
        try:
            make_folders(state / "thumbs")
            check_state(root, state)
            stack.enter_context(locked(state / "lock", ImageError("E_WRITE", busy)))
        except OSError as e:
            why = f"the output folder {root} cannot be used: {e.strerror or e}"
            raise ImageError("E_WRITE", why) from e
        stack.callback(clear_quietly, staging)
        remove_unfinished([state, state / "thumbs"], 0)
        try:
            fresh(staging)
        except OSError as e:
            raise ImageError("E_WRITE", f"{staging} holds what is not ours; {REMOVE}") from e
        yield state


def check_state(root: Path, state: Path) -> None:
    """Raises ImageError E_WRITE where something planted in the state folder leads elsewhere."""
    for name in ("thumbs", "staging", "lock"):
        if os.path.realpath(state / name) != os.path.join(os.path.realpath(root), STATE, name):
            why = f"{state / name} is, or is reached through, a link; {REMOVE}"
            raise ImageError("E_WRITE", why)
    lock = state / "lock"
    if os.path.lexists(lock) and os.lstat(lock).st_nlink > 1 or lock.is_fifo():
        raise ImageError("E_WRITE", f"{lock} is not a lock of ours; {REMOVE}")


def clear_quietly(staging: Path) -> None:
    """On a full disk the reports need the room of unfinished outputs."""
    with contextlib.suppress(OSError):
        clear(staging)


def write(
    path: Path, rows: Sequence[Row], replace: dict[Path, bool], about: dict[str, Any]
) -> tuple[str, ...]:
    """Write a report as far as the disk allows.

    What could not be written, in a sentence that is said too.
    """
    try:
        write_reports(path, rows, replace, **about)
    except Exception as e:  # the pictures are there all the same
        say(lost := f"no report: {one_line(e)}", sys.stderr)
        return (lost,)
    return ()


def conclude(
    root: Path,
    rows: Sequence[Row],
    report: Path | None,
    replace: dict[Path, bool],
    run: Claims,
    about: dict[str, Any],
) -> tuple[str, ...]:
    """Write reports and gallery, each as far as the disk allows; what is lost of them is said.

    replace: of `report`, as in `write_reports`.
    """
    state, index = root / STATE, root / "index.html"
    about |= {"complete": len(rows) == about["inputs"]}
    lost = write(state / "report.json", rows, {}, about) if state.is_dir() else ()
    lost += write(report, rows, replace, about) if report else ()
    try:
        run.check(index, mark=gallery.MARK)
    except ImageError as e:
        say(f"no gallery: {e}; it stays as it is", sys.stderr)
    else:
        try:
            if state.is_dir():
                page = files.write_bytes(state / "index.html", gallery.page(root, rows).encode())
                move(page, index, True)
        except Exception as e:
            say(text := f"no gallery: {one_line(e)}", sys.stderr)
            lost += (text,)
    count = Counter(row["status"] for row in rows)
    words = [f"{count[status]} {status}" for status in ("restored", "skipped", "failed")]
    if count["ignored"]:
        kinds = Counter(row["message"] for row in rows if row["status"] == "ignored")
        words.append(f"{count['ignored']} ignored ({', '.join(sorted(kinds))})")
    if not about["complete"]:
        words.append(f"{about['inputs'] - len(rows)} not tried")
    say(f"{', '.join(words)}; see {index} and {state / 'report.json'}", sys.stdout)
    return lost


def tell(row: Row) -> None:
    """One line about a file: to stdout when it was restored, to stderr when it failed."""
    if row["status"] == "restored":
        say(f"restored {row['input']} -> {row['output']}: {row['message']}", sys.stdout)
    elif row["status"] == "failed":
        say(f"failed {row['input']}: {row['message']}", sys.stderr)
        if "traceback" in row:
            sys.stderr.write(row["traceback"])


def say(text: str, file: Any) -> None:
    """Print a line above the progress bar.

    Where nobody can read it any more (a closed pipe, a full disk) the run goes on.
    """
    try:
        tqdm.write(shown(text), file=file)
        file.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
