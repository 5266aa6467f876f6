"""What became of each input: a journal that survives anything, and the report that is made of it.

The journal is one JSON object on each line, only ever appended to, and on the disk (fsync) before an output gets its name: so every output
that a run made is in it, however the run ended, and a line that was torn by a crash, or is not of this shape, is skipped. A row says

    input, output       paths as they were given; `name` is the output's place below the output folder
    status, code        restored, skipped (done before) or failed; E_... of a failure, see `batch`
    message             one line for people
    faces...            `faces` (the status of each), faces_found, faces_restored, faces_failed; a face too small to restore is found only
    notes, seconds      what was changed or left out; how long it took
    input_sha256, output_sha256, made_by    contents, and the digest of options, weights and version (`batch.made_by`)
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import image
from ..io.text import cell
from ..lab.record import plain

Row = dict[str, Any]
COLUMNS = ("input", "output", "status", "code", "message", "faces_found", "faces_restored", "faces_failed", "notes", "seconds",
           "input_sha256", "output_sha256", "made_by")  # fmt: skip
TEXTS = {"input", "output", "name", "status", "message", "input_sha256", "output_sha256", "made_by"}
LISTS = {"faces", "notes"}
COUNTS = {"faces_found", "faces_restored", "faces_failed"}
LINE = 1 << 20  # bytes; a row has a few hundred


class Journal:
    """`Journal(path).add(row)`. past: name -> sha256 of what was made there -> its row, from earlier runs."""

    def __init__(self, path: Path, names: Collection[str] | None = None) -> None:
        """Open or begin a journal; raises ImageError E_WRITE, also for a link, a file of two names, and what is no file.

        names: the outputs whose rows are wanted, None for all.
        """
        flags = (
            os.O_RDWR
            | os.O_CREAT
            | os.O_APPEND
            | getattr(os, "O_NOFOLLOW", 0)
            | getattr(os, "O_NONBLOCK", 0)
        )
        try:
            self.file = os.open(path, flags, 0o666)
        except OSError as e:
            raise image.ImageError(
                "E_WRITE",
                f"the journal {path} cannot be used: {e.strerror}; remove it or give another output",
            ) from e
        try:
            info = os.fstat(self.file)
            if not stat.S_ISREG(info.st_mode):
                raise image.ImageError(
                    "E_WRITE",
                    f"the journal {path} is not a regular file; remove it or give another output",
                )
            if info.st_nlink > 1:
                raise image.ImageError(
                    "E_WRITE",
                    f"the journal {path} is a file with another name too; remove it or give another output",
                )
            self.past: dict[str, dict[str, Row]] = defaultdict(dict)
            torn = False
            with open(self.file, "rb", closefd=False) as lines:
                while line := lines.readline(LINE):
                    whole, torn = not torn, not line.endswith(b"\n")
                    row = known(line) if whole and not torn else None
                    if (
                        row
                        and row["status"] == "restored"
                        and (names is None or row["name"] in names)
                    ):
                        self.past[row["name"]][row["output_sha256"]] = row
            if torn:
                os.write(self.file, b"\n")
        except BaseException:
            os.close(self.file)
            raise

    def add(self, row: Mapping[str, Any]) -> None:
        """Put a row on the disk, or raise ImageError E_WRITE and leave the journal as it was."""
        line, size = json.dumps(row).encode() + b"\n", os.fstat(self.file).st_size
        try:
            if os.write(self.file, line) < len(line):
                raise OSError(0, "the disk is full")
            os.fsync(self.file)
        except OSError as e:
            with contextlib.suppress(OSError):
                os.ftruncate(self.file, size)
            raise image.ImageError("E_WRITE", f"the journal cannot be written: {e.strerror}") from e

    def close(self) -> None:
        os.close(self.file)


def known(line: bytes) -> Row | None:
    """The fields that we use of a journal's line; None where one of them is missing, or not of its kind, or the line is no JSON."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not all(
        isinstance(row.get(name), str) for name in ("name", "status", "output_sha256")
    ):
        return None
    row = {
        name: value
        for name, value in row.items()
        if name in TEXTS | LISTS | COUNTS | {"code", "seconds"}
    }
    return row if all(fits(name, value) for name, value in row.items()) else None


def fits(name: str, value: Any) -> bool:
    """Whether a field's value is of its kind."""
    if name in LISTS:
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    if name in COUNTS:
        return type(value) is int and 0 <= value < 1 << 31
    if name == "seconds":
        return type(value) in (int, float) and 0 <= value < 1e9  # a NaN is neither
    return isinstance(value, str) or name == "code" and value is None


def report_paths(path: Path) -> tuple[Path, Path]:
    """Where a report is written as JSON and as CSV."""
    return path.with_suffix(".json") if path.suffix == ".csv" else path, path.with_suffix(".csv")


def write_reports(
    path: Path, rows: Sequence[Row], replace: Mapping[Path, bool] | None = None, **about: Any
) -> None:
    """The rows as JSON at `path` and as CSV beside it; names in the CSV are made printable, and no cell is a formula.

    replace: whether each of both may replace a file, by default yes. Raises ImageError E_WRITE.
    """
    as_json, as_csv = report_paths(path)
    replace = replace or {as_json: True, as_csv: True}
    report = {
        "made_with": "mtrestore restore",
        **about,
        "counts": Counter(row["status"] for row in rows),
        "files": rows,
    }
    image.write_bytes(
        as_json, json.dumps(plain(report), indent=1, default=repr).encode(), replace[as_json]
    )
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for row in rows:
        cells = (row.get(name) for name in COLUMNS)
        table.writerow(
            [
                ""
                if c is None
                else cell("; ".join(map(str, c)) if isinstance(c, (list, tuple)) else str(c))
                for c in cells
            ]
        )
    image.write_bytes(as_csv, text.getvalue().encode(), replace[as_csv])
