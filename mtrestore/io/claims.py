"""Which files a run may write: one answer for pictures, pages, reports, tables, weights and
figures, given before any work is done.

    claims = Claims(overwrite=False)
    claims.reads("album/a.jpg", "an input")    # never replaced, whatever it is called
    claims.claim("report.json", "the report")  # raises ImageError where a file must stay

A file that is there is replaced only with `overwrite`, or where it bears our mark: a gallery, page
or report that we wrote ourselves, which begins with one. An input, a net in use, another output of
the same run and whatever lies in a folder .mtrestore are never replaced. A file is the same under
any name: a link, a hard link, ./x and x/../x; and what a run writes itself is kept apart also in
case and Unicode form, which some file systems do not tell apart.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Iterator
from pathlib import Path

from .files import STATE, ImageError, alike, below, filename, head, inode, make_folders

GALLERY = "<!-- made by mtrestore restore -->"  # marks stand near the beginning of what bears them
COMPARISON = "<!-- made by mtrestore compare -->"
PAGE = "<!-- made by mtrestore report -->"
REPORT = '"made_with": "mtrestore restore"'


class Claims:
    """What a run reads and writes.

    overwrite: files that are there may be replaced, if they are none of these.
    """

    def __init__(self, overwrite: bool = False) -> None:
        self.overwrite = overwrite
        self.read: dict[Hashable, str] = {}  # name or inode -> what it is
        self.written: dict[Hashable, str] = {}
        self.folders: dict[Path, str] = {}

    def reads(self, path: str | os.PathLike, what: str) -> None:
        """A file that the run reads."""
        for name in self.names(Path(filename(path))):
            self.read.setdefault(name, what)

    def reads_below(self, folder: str | os.PathLike, what: str) -> None:
        """Every file below a folder."""
        for path, _ in below(Path(filename(folder)), None):
            self.reads(path, what)

    def writes(self, path: str | os.PathLike, what: str) -> None:
        """What the run writes; no other output may take its place."""
        for name in self.names(Path(filename(path))):
            self.written.setdefault(folded(name), what)

    def check(self, path: str | os.PathLike, *, mark: str = "", replace: bool = False) -> bool:
        """Whether a file is there that may be replaced.

        Raises ImageError E_WRITE (E_NOT_A_FILE) where it may not.

        mark: what a file of ours begins with. replace: this one may be replaced, if the run does
        not read it.
        """
        path = Path(filename(path))
        if what := next((self.read[name] for name in self.names(path) if name in self.read), None):
            why = f"is {what} and would be overwritten by its own restoration, or another's"
            raise ImageError("E_WRITE", f"{path} {why}; give another output")
        try:
            os.lstat(path)
        except FileNotFoundError:
            return False
        except OSError as e:
            why = f"{str(path)[:300]} cannot be written: {e.strerror}; give another output"
            raise ImageError("E_WRITE", why) from e
        if os.path.exists(path) and not os.path.isfile(path):
            why = f"{path} exists and is not a regular file; give another output"
            raise ImageError("E_NOT_A_FILE", why)
        if not (replace or self.overwrite or mark and mark.encode() in head(path, 100)):
            why = f"{path} exists already; give another output or --overwrite"
            raise ImageError("E_WRITE", why)
        return True

    def claim(
        self, path: str | os.PathLike, what: str, *, mark: str = "", replace: bool = False
    ) -> bool:
        """`check` of a file that a user names, which may be no other output either.

        Its folder is made.
        """
        path = Path(filename(path))
        if not path.name:
            raise ImageError("E_NAME", f"{what} {str(path)!r} names no file; give the path of one")
        if STATE in map(alike, Path(self.place(path)).parts):
            why = f"lies in a folder {STATE}, which belongs to a folder run; give another name"
            raise ImageError("E_WRITE", f"{what} {path} {why}")
        names = list(self.names(path))
        if other := next((self.read[name] for name in names if name in self.read), None):
            raise ImageError("E_WRITE", f"{what} {path} would overwrite {other}; give another name")
        shapes = map(folded, names)
        if other := next((self.written[name] for name in shapes if name in self.written), None):
            why = f"would overwrite {other} of the same run; give another name"
            raise ImageError("E_WRITE", f"{what} {path} {why}")
        there = self.check(path, mark=mark, replace=replace)
        try:
            make_folders(path.parent)
        except OSError as e:
            why = f"{what} {path} cannot be written: {e.strerror}; check the folder"
            raise ImageError("E_WRITE", why) from e
        if not os.access(path.parent, os.W_OK | os.X_OK):
            why = "cannot be written: its folder takes no files; check its permissions"
            raise ImageError("E_WRITE", f"{what} {path} {why}")
        self.writes(path, what)
        return there

    def names(self, path: Path) -> Iterator[Hashable]:
        """All that a file goes by: its place, where a link leads, and the number that the file
        system gave it.
        """
        yield self.place(path)
        if os.path.lexists(path):
            with contextlib.suppress(
                OSError, RecursionError
            ):  # realpath calls itself for each link of a chain
                yield os.path.realpath(path)
            if number := inode(path):
                yield number

    def place(self, path: Path) -> str:
        """The path with its folder's links followed, but not its own, which a write replaces."""
        if path.parent not in self.folders:
            try:
                folder = os.path.realpath(path.parent)
            except (OSError, RecursionError):
                folder = os.path.abspath(path.parent)
            self.folders[path.parent] = folder
        return os.path.join(self.folders[path.parent], path.name)


def folded(name: Hashable) -> Hashable:
    return alike(name) if isinstance(name, str) else name


def check_folder(
    folder: str | os.PathLike, marks: tuple[str, ...], overwrite: bool = False
) -> None:
    """Raises ImageError E_WRITE where a folder holds something and none of the files that tell that
    we filled it.
    """
    folder = Path(filename(folder))
    if os.path.lexists(folder) and not folder.is_dir():
        raise ImageError("E_WRITE", f"{folder} exists and is no folder; give another one")
    if overwrite or not folder.is_dir() or not os.listdir(folder):
        return
    if not any((folder / mark).is_file() for mark in marks):
        raise ImageError(
            "E_WRITE",
            f"{folder} holds files that no run of ours made; give another folder or --overwrite",
        )
