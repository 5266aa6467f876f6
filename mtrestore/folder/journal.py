"""What became of each input: a journal that survives anything, and the report that is made of it.

The journal is one JSON object on each line, only ever appended to, and on the disk (fsync) before
an output gets its name: so every output that a run made is in it, however the run ended, and a line
that was torn by a crash, or is not of this shape, is skipped. A row says

    input, output       paths as they were given; `name`: the output's place below its folder
    status, code        restored, skipped (done before), ignored (no photo) or failed; E_... of a
                        failure, see `run`
    message             one line for people
    faces...            `faces` (the status of each), faces_found, faces_restored, faces_failed; a
                        face too small to restore is found only
    boxes, flags        x0,y0,x1,y1 of each face, px; what to look at: no face, soft, blurred
    notes, seconds      what was changed or left out; how long it took
    input_sha256, output_sha256         contents
    made_by             digest of options, weights and version (`one_file.made_by`)
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..io import files
from ..io.text import cell
from ..lab.record import plain

Row = dict[str, Any]
COLUMNS = (
    *("input", "output", "status", "code", "message", "faces_found", "faces_restored"),
    *("faces_failed", "notes", "seconds", "input_sha256", "output_sha256", "made_by"),
    *("flags", "boxes"),
)
TEXTS = {"input", "output", "name", "status", "message", "input_sha256", "output_sha256", "made_by"}
LISTS = {"faces", "boxes", "flags", "notes"}
COUNTS = {"faces_found", "faces_restored", "faces_failed"}
LINE = 1 << 20  # bytes; a row has a few hundred


class Journal:
    """`Journal(path).add(row)`.

    past: name -> sha256 of what was made there -> its row, from earlier runs.
    """

    def __init__(self, path: Path, names: Collection[str] | None = None) -> None:
        """Open or begin a journal.

        Raises ImageError E_WRITE, also for a link, a file of two names, and what is no file.

        names: the outputs whose rows are wanted, None for all.
        """
        self.log = files.Log(path, "the journal")
        self.past: dict[str, dict[str, Row]] = defaultdict(dict)
        try:
            for line, whole in self.log.lines(LINE):
                row = known(line) if whole else None
                if row is None or names is not None and row["name"] not in names:
                    continue
                if row["status"] == "restored":
                    self.past[row["name"]][row["output_sha256"]] = row
        except BaseException:
            self.close()
            raise

    def add(self, row: Mapping[str, Any]) -> None:
        """Put a row on the disk, or raise ImageError E_WRITE and leave the journal as it was."""
        self.log.add(json.dumps(row).encode() + b"\n")

    def close(self) -> None:
        self.log.close()


def known(line: bytes) -> Row | None:
    """The fields that we use of a journal's line.

    None where one of them is missing, or not of its kind, or the line is no JSON.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    ours = TEXTS | LISTS | COUNTS | {"code", "seconds"}
    row = {k: v for k, v in row.items() if k in ours} if isinstance(row, dict) else {}
    whole = {"name", "status", "output_sha256"} <= row.keys()
    return row if whole and all(fits(name, value) for name, value in row.items()) else None


def fits(name: str, value: Any) -> bool:
    """Whether a field's value is of its kind."""
    if name in LISTS:
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    if name in COUNTS:
        return type(value) is int and 0 <= value < 1 << 31
    if name == "seconds":
        return type(value) in (int, float) and 0 <= value < 1e9  # a NaN is neither
    return isinstance(value, str) or name == "code" and value is None


def text_of(value: Any) -> str:
    """A field as a cell of the table."""
    if value is None:
        return ""
    return cell("; ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value))


def report_paths(path: Path) -> tuple[Path, Path]:
    """Where a report is written as JSON and as CSV."""
    return path.with_suffix(".json") if path.suffix == ".csv" else path, path.with_suffix(".csv")


def write_reports(
    path: Path, rows: Sequence[Row], replace: Mapping[Path, bool] | None = None, **about: Any
) -> None:
    """The rows as JSON at `path` and as CSV beside it.

    Names in the CSV are made printable, and no cell is a formula.

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
    content = json.dumps(plain(report), indent=1, default=repr).encode()
    files.write_bytes(as_json, content, replace[as_json])
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for row in rows:
        table.writerow([text_of(row.get(name)) for name in COLUMNS])
    files.write_bytes(as_csv, text.getvalue().encode(), replace[as_csv])
