"""What became of each input: a journal that survives anything, and the report that is made of it.

The journal is one JSON object on each line, only ever appended to, and on the disk (fsync) before an output gets its name: so every output
that a run made is in it, however the run ended, and a line that was torn by a crash is skipped. A row says

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
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import image
from .lines import shown

Row = dict[str, Any]
COLUMNS = ("input", "output", "status", "code", "message", "faces_found", "faces_restored", "faces_failed", "notes", "seconds",
           "input_sha256", "output_sha256", "made_by")  # fmt: skip


class Journal:
    """`Journal(path).add(row)`. past: name -> sha256 of what was made there -> its row, from earlier runs."""

    def __init__(self, path: Path) -> None:
        """Open or begin a journal; raises OSError. A link in its place is refused."""
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o666)
        self.past: dict[str, dict[str, Row]] = defaultdict(dict)
        torn = False
        with open(self.file, "rb", closefd=False) as lines:
            for line in lines:
                torn = not line.endswith(b"\n")
                with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                    row = json.loads(line)
                    if row["status"] == "restored":
                        self.past[str(row["name"])][str(row["output_sha256"])] = row
        if torn:
            os.write(self.file, b"\n")

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


def write_reports(path: Path, rows: Sequence[Row], **about: Any) -> None:
    """The rows as JSON at `path` and as CSV beside it (names in the CSV are made printable). Raises ImageError E_WRITE."""
    json_path = path.with_suffix(".json") if path.suffix == ".csv" else path
    report = {**about, "counts": Counter(row["status"] for row in rows), "files": rows}
    image.write_bytes(json_path, json.dumps(report, indent=1, default=repr).encode())
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for row in rows:
        cells = (row.get(name) for name in COLUMNS)
        table.writerow(["" if c is None else shown("; ".join(c) if isinstance(c, (list, tuple)) else str(c)) for c in cells])
    image.write_bytes(path.with_suffix(".csv"), text.getvalue().encode())
