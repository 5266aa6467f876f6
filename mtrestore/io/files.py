"""Bytes from disk and to disk, and the one error for what is wrong with a file.

read:   name -> open without waiting -> a regular file? -> not too large? -> bytes
write:  temporary name -> fsync -> read back -> rename -> fsync of the folder
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from .text import one_line, shown

MAX_BYTES = 256 << 20
STATE = ".mtrestore"  # what a folder run keeps inside its output folder; never an input
ASSETS = Path(__file__).parents[1] / "assets"
ODD = (RecursionError, ValueError, LookupError, TypeError, AttributeError)  # of odd YAML tags
UNFINISHED: set[Path] = set()  # temporary files of this process, for whoever has to end it


class ImageError(ValueError):
    """A file or an array that is no usable picture.

    `.code` is for programs, `str(error)` is one line for people.

    Codes: E_MISSING E_NAME E_NOT_A_FILE E_PERMISSION E_EMPTY E_TRUNCATED E_FORMAT E_TOO_LARGE
    E_NONFINITE E_WRITE.
    """

    def __init__(self, code: str, message: str):
        super().__init__(code, shown(message))  # both in args: it has to pickle
        self.code = code

    def __str__(self) -> str:
        return self.args[1]


def filename(path: str | bytes | os.PathLike) -> str:
    """The path as str.

    Bytes that are no UTF-8 become surrogates (os.fsdecode), which is how Python opens such names.
    """
    try:
        name = os.fsdecode(path)
        if b"\0" not in os.fsencode(name):
            return name
        reason = "it holds a null byte"
    except (TypeError, UnicodeError) as e:
        reason = str(e)
    raise ImageError("E_NAME", f"{path!r:.80} is no file name: {reason}; give a str, bytes or Path")


@contextlib.contextmanager
def _opened(path: str | bytes | os.PathLike) -> Iterator[tuple[int, os.stat_result]]:
    """(descriptor, facts) of a file that is read, opened without waiting for a pipe."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        yield fd, os.fstat(fd)
    finally:
        os.close(fd)


def read_bytes(path: str | bytes | os.PathLike, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of at most `max_bytes`.

    Pipes, devices, sockets and folders are refused without waiting for them.
    """
    name = filename(path)
    try:
        with _opened(name) as (fd, info):
            if not stat.S_ISREG(info.st_mode):
                why = "is not a regular file; give the path of a file"
                raise ImageError("E_NOT_A_FILE", f"{name!r} {why}")
            with open(fd, "rb", closefd=False) as file:  # one more than allowed: a file may grow
                data = file.read(max_bytes + 1) if info.st_size <= max_bytes else None
    except OSError as e:
        rights = "may not be read; check its permissions"
        code, why = {
            errno.ELOOP: ("E_MISSING", "is a link that leads to itself"),
            errno.ENAMETOOLONG: ("E_NAME", "is too long for a name"),
            errno.EACCES: ("E_PERMISSION", f"{rights} and those of its folder"),
            errno.EPERM: ("E_PERMISSION", rights),
            errno.ENXIO: ("E_NOT_A_FILE", "is not a regular file"),
        }.get(e.errno or 0, ("E_MISSING", f"cannot be read: {e.strerror}; check the path"))
        raise ImageError(code, f"{name if len(name) < 300 else name[:60] + '...'!r} {why}") from e
    if data is None or len(data) > max_bytes:
        why = f"has {info.st_size} bytes, more than the limit of {max_bytes}"
        raise ImageError("E_TOO_LARGE", f"{name!r} {why}")
    return data


def head(path: str | bytes | os.PathLike, count: int) -> bytes:
    """The first bytes of a regular file of any size; none of what is no such file."""
    with contextlib.suppress(OSError, ValueError), _opened(path) as (fd, info):
        return os.read(fd, count) if stat.S_ISREG(info.st_mode) else b""
    return b""


def make_folders(folder: str | os.PathLike) -> None:
    """A folder and those above it, made where they are missing; raises OSError.

    Not Path.mkdir(parents=True) nor os.makedirs, which call themselves for each level: a path of
    4,096 bytes has more levels than Python's stack.
    """
    missing, here = [], Path(folder)
    with contextlib.suppress(FileNotFoundError):
        os.stat(here)  # a path that is too long is refused before any part of it is made
    while not os.path.isdir(here) and here != here.parent:
        missing.append(here)
        here = here.parent
    for place in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(place)


def write_bytes(path: str | bytes | os.PathLike, data: bytes, overwrite: bool = True) -> Path:
    """Write a file in one step: under its name is the old file or the whole new one, never a part.

    Temporary name in the same folder, fsync, read back, rename, fsync of the folder.
    overwrite=False never replaces a file, not even one that appears meanwhile. A link is replaced,
    not followed. Raises ImageError E_WRITE (E_NAME, E_NOT_A_FILE); leaves no temporary file.
    """
    path = Path(filename(path))
    name = repr(str(path))
    try:
        if path.exists() and not path.is_file():
            why = "exists and is not a regular file; choose another name"
            raise ImageError("E_NOT_A_FILE", f"{name} {why}")
        # Short: the final name may be as long as names go.
        temp = path.with_name(f".mtrestore-{secrets.token_hex(8)}.tmp")
        UNFINISHED.add(temp)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            with open(os.open(temp, flags, 0o666), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if read_bytes(temp, len(data)) != data:
                why = "came back changed from the disk; check the disk"
                raise ImageError("E_WRITE", f"{name} {why}")
            if overwrite:
                os.replace(temp, path)
            else:
                _claim(temp, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temp)
            UNFINISHED.discard(temp)
        with contextlib.suppress(OSError):  # not every system can fsync a folder
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except FileExistsError as e:
        why = "exists; choose another name or pass overwrite=True"
        raise ImageError("E_WRITE", f"{name} {why}") from e
    except OSError as e:
        why = f"cannot be written: {e.strerror or e}; check folder, rights and space"
        raise ImageError("E_WRITE", f"{name} {why}") from e
    return path


def _claim(temp: Path, path: Path) -> None:
    """Give `temp` its final name only if that name is free.

    The file system decides, so two writers cannot both win.
    """
    try:
        os.link(temp, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links here: take the name with an empty file, then replace that
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(temp, path)


def move(source: Path, target: Path, overwrite: bool) -> None:
    """Give a finished file its name, and never another one's unless `overwrite`.

    Raises ImageError.
    """
    try:
        if overwrite:
            os.replace(source, target)
        else:
            os.link(source, target)  # unlike rename, this fails where a file is there
            os.unlink(source)
    except FileExistsError as e:
        why = f"{target} exists already; give another output or --overwrite"
        raise ImageError("E_WRITE", why) from e
    except OSError:  # another file system, or one without hard links
        write_bytes(target, read_whole(source), overwrite)


def read_whole(path: Path) -> bytes:
    """A file of ours, of any size; raises ImageError."""
    return read_bytes(path, os.path.getsize(path) if os.path.isfile(path) else 0)


def clear(folder: Path) -> None:
    """Remove a folder that holds files alone; raises OSError where it does not.

    Not shutil.rmtree, which calls itself for each level of what somebody may have planted there.
    """
    if os.path.isdir(folder):
        for entry in os.scandir(folder):
            os.unlink(entry)
        os.rmdir(folder)


def fresh(folder: Path) -> None:
    """`clear`, and an empty folder in its place."""
    clear(folder)
    os.mkdir(folder)


def remove_unfinished(folders: Iterable[Path], older: float) -> None:
    """Remove temporary files that killed runs left, if they are older than so many seconds."""
    for folder in folders:
        with contextlib.suppress(OSError):  # also of a folder whose name is too long
            for temp in folder.glob(".mtrestore-*.tmp"):
                with contextlib.suppress(OSError):
                    if time.time() - temp.stat().st_mtime >= older:
                        temp.unlink()


class Log:
    """A file that is only appended to.

    Raises ImageError E_WRITE, also for a link, a file of two names, and what is no file.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.what = what
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            self.file = os.open(path, flags, 0o666)
        except OSError as e:
            raise self.refusal(f"{path} cannot be used: {e.strerror}") from e
        info = os.fstat(self.file)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
            os.close(self.file)
            regular = stat.S_ISREG(info.st_mode)
            what = "a file with another name too" if regular else "not a regular file"
            raise self.refusal(f"{path} is {what}")

    def refusal(self, why: str) -> ImageError:
        return ImageError("E_WRITE", f"{self.what} {why}; remove it or give another output")

    def lines(self, longest: int) -> Iterator[tuple[bytes, bool]]:
        """(line, whether it is whole and at most `longest` bytes); a torn last line is ended."""
        torn = False
        with open(self.file, "rb", closefd=False) as lines:
            while line := lines.readline(longest):
                rest, torn = torn, not line.endswith(b"\n")
                yield line, not rest and not torn
        if torn:
            os.write(self.file, b"\n")

    def add(self, line: bytes) -> None:
        """Put a line on the disk, or raise ImageError E_WRITE and leave the file as it was."""
        size = os.fstat(self.file).st_size
        try:
            if os.write(self.file, line) < len(line):
                raise OSError(0, "the disk is full")
            os.fsync(self.file)
        except OSError as e:
            with contextlib.suppress(OSError):
                os.ftruncate(self.file, size)
            raise ImageError("E_WRITE", f"{self.what} cannot be written: {e.strerror}") from e

    def close(self) -> None:
        os.close(self.file)


def below(
    folder: Path, leave_out: tuple[int, int] | None
) -> Iterator[tuple[Path, ImageError | None]]:
    """(path, problem) of everything below a folder that is no folder itself, sorted.

    A folder that cannot be listed is a problem. Not os.walk, which calls itself for each level in
    Python 3.11: a hostile nest is deeper than Python's stack.
    """
    pending = [folder]
    while pending:
        here = pending.pop()
        try:
            with os.scandir(here) as entries:
                listed = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries)
        except OSError as e:
            code = "E_PERMISSION" if isinstance(e, PermissionError) else "E_NAME"
            why = f"the folder {str(here)[:300]!r} cannot be listed: {e.strerror}"
            yield here, ImageError(code, why)
            continue
        folders = [here / name for name, is_folder in listed if is_folder and name != STATE]
        pending += [f for f in reversed(folders) if leave_out is None or inode(f) != leave_out]
        yield from ((here / name, None) for name, is_folder in listed if not is_folder)


def inode(path: Path) -> tuple[int, int] | None:
    """What tells one file from another, whatever it is called, links followed; None for none."""
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return None
    return info.st_dev, info.st_ino


def alike(path: str | Path) -> str:
    """The same text for paths that some file system takes for one: without case, Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())


@cache
def asset(name: str) -> str:
    """The text of a file of mtrestore/assets: scripts, styles, pages."""
    return (ASSETS / name).read_text("utf-8")


def page(name: str, **words: object) -> str:
    """The page `name` of mtrestore/assets with its $words filled in, as they are: escape them."""
    return Template(asset(name)).substitute(words)


def read_yaml(path: str | bytes | os.PathLike, max_bytes: int = 1 << 16) -> Any:
    """What a YAML file says, in plain values whose keys are text.

    Tags run no code; aliases, which let a few lines stand for billions, are not taken. A word has
    at most 512 printable characters, so that it fits into a line that says what is wrong with it.
    """
    import yaml

    data, depth = read_bytes(path, max_bytes), 0
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times as fast
    try:
        for event in yaml.parse(data, loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > 20:
                why = "it nests too deeply, or has an alias (*name); write that value out"
                raise ValueError(why)
            if isinstance(event, yaml.ScalarEvent):
                _check_word(event.value)
        values = loader(data).get_single_data()
        _check_keys(values)
        return values
    except (yaml.YAMLError, *ODD) as e:
        why = f"is not YAML that can be read: {one_line(e)[:200]}"
        raise ValueError(shown(f"{filename(path)!r} {why}")) from e


def _check_word(word: str) -> None:
    if len(word) > 512:
        raise ValueError(f"a word in it is {len(word):,} characters long, and 512 are the most")
    if odd := next((c for c in word if not c.isprintable() and c not in "\n\t"), None):
        raise ValueError(f"a word in it holds the character {odd!r}; write plain text")


def _check_keys(values: Any) -> None:
    """Raises ValueError where a key is no text, at whatever depth."""
    if isinstance(values, dict):
        for key in values:
            if not isinstance(key, str):
                why = "is no name; a name is text, in quotes if need be"
                raise ValueError(f"{str(key)[:40]!r} {why}")
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            _check_keys(value)
