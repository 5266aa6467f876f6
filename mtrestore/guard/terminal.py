"""Standard output and error that never stop a run: closed, full, gone, or with an encoding that
lacks a file's letters.
"""

import io
import os
import select
import sys


class Patient(io.FileIO):
    """A file descriptor that takes every write.

    Where nobody can read it any more (a closed pipe, a full disk) the words are dropped.
    """

    def write(self, data) -> int:  # noqa: ANN001
        try:
            while (count := super().write(data)) is None:  # a pipe that does not block, and is full
                select.select([], [self], [])
            return count
        except (OSError, ValueError):
            return len(data)


def steady() -> None:
    """Put such streams in the place of this program's own.

    A closed descriptor is opened on the null device first: else the next file that is opened would
    get its number, and every word printed, here or by a process that is started, would stand in
    that file. Streams that somebody else has put there stay.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free: this one
            os.set_inheritable(number, True)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue
        encoding = getattr(stream, "encoding", None) or "utf-8"
        raw = Patient(number, "w", closefd=False)
        lines = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding,
            "backslashreplace",
            line_buffering=number == 2 or raw.isatty(),
        )
        setattr(sys, name, lines)
        setattr(sys, f"__{name}__", lines)
