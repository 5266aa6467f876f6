"""Which file each input becomes: one output for each input, the same in every run, and never two
alike.

An output keeps its input's name and its place below the folder; a format that cannot be written
becomes PNG (`a.gif` -> `a.gif.png`). Two outputs are alike when they differ at most in case or in
Unicode form, which some file systems do not tell apart. Then the one whose name is plain already
(small letters, NFC) keeps it, and each other gets `~` and eight digits of its own name's sha256:
`Case~5f1c09aa.jpg`.

What lies in a folder and is no photo, neither by its name nor by its content, is no failure either:
`no_photo` says what it is, and its row says `ignored`.
"""

from __future__ import annotations

import codecs
import itertools
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ..image import SUFFIXES, is_picture, pages
from ..io.files import STATE as STATE
from ..io.files import ImageError, alike, below, head, inode

LONGEST = 255  # bytes in a file name
MOST_PAGES = 1000  # of one file with --pages all
PICTURES = {  # a file of such a name that cannot be read is a failure
    *SUFFIXES,
    *(".jpe", ".jfif", ".mpo", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".dib", ".apng", ".svg"),
    *(".heic", ".heif", ".hif", ".avifs", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".psd"),
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".orf", ".rw2"),
    *(".raf", ".pef", ".srw", ".x3f", ".3fr", ".erf", ".kdc", ".dcr", ".mrw", ".iiq", ".rwl"),
    *(".tga", ".pcx", ".exr", ".hdr", ".pfm", ".jxr", ".ico", ".eps"),
}
SYSTEM = {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "folder.htt"}
SYSTEM |= {"icon\r", "picasa.ini", "zbthumbnail.info", "iconcache.db", "pspbrwse.jbf"}
SIDE_CARS = {".xmp", ".aae", ".json", ".thm", ".pp3", ".dop", ".on1", ".xml", ".ini", ".dat"}
SIDE_CARS |= {".yaml", ".yml", ".toml", ".exif", ".iptc", ".icc", ".icm", ".cube", ".cos", ".db"}
SIDE_CARS |= {".sha256", ".sqlite", ".lrcat", ".lrdata", ".url", ".lnk", ".log", ".md5", ".par2"}
SIDE_CARS |= {".gpx"}
TEXTS = {".txt", ".md", ".csv", ".tsv", ".html", ".htm", ".css", ".js", ".rtf", ".pdf", ".doc"}
TEXTS |= {".docx", ".odt", ".ods", ".xls", ".xlsx", ".ppt", ".pptx", ".nfo", ".tex", ".py", ".sh"}
FILMS = {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".3gp", ".mts", ".m2ts", ".wmv", ".mpg"}
FILMS |= {".mpeg", ".flv", ".lrv", ".insv", ".mp3", ".wav", ".m4a", ".aac", ".ogg", ".flac", ".amr"}
ARCHIVES = {".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".iso"}
FILM_MARKS = (b"\x1aE\xdf\xa3", b"ID3", b"OggS", b"fLaC")
KINDS = {"a side-car": SIDE_CARS, "a text": TEXTS, "a video or sound": FILMS}
KINDS |= {"an archive": ARCHIVES}
HIDDEN_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information"}
FILM = re.compile(rb"....(?:ftyp|moov|mdat|wide|skip)|RIFF|\x00\x00\x01[\xba\xb3]", re.DOTALL)
MARKS = {  # of files without a telling name
    **{b"\0\5\x16\7": "a Mac's resource fork", b"\0\5\x16\0": "a Mac's resource fork"},
    **{b"%PDF": "a text", b"PK\3\4": "an archive", b"SQLite format 3": "a database"},
    **{b"\xd0\xcf\x11\xe0": "a database", **dict.fromkeys(FILM_MARKS, "a video or sound")},
}


@dataclass(frozen=True)
class Job:
    """One input and its output, root / rel.

    problem: why the input cannot even be opened, where that is known already.

    ignored: what it is, if no photo. sheet: the page of a TIFF, from 1; None: of one page.

    alone: no folder run, which has a gallery and where pages must not share a name.
    """

    source: Path
    root: Path
    rel: Path
    problem: ImageError | None = None
    alone: bool = False
    ignored: str = ""
    sheet: int | None = None

    @property
    def target(self) -> Path:
        return self.root / self.rel

    @property
    def page(self) -> Path:
        """The before/after page beside the output: a.html of a picture alone.

        Else the suffix stays, as a.jpg and a.png must not share one.
        """
        name = f"{self.rel.stem if self.alone else self.rel.name}.html"
        name = name if len(os.fsencode(name)) <= LONGEST else f"{key(name)}.html"
        return self.target.with_name(name)


def plan(inputs: Sequence[str], output: str, every_page: bool = False) -> list[Job]:
    """A job for each input: a file, or every file below a folder; every_page: for each of a TIFF.

    Links to folders are not followed; what lies in the output folder is no input.

    Raises ImageError where a folder would be restored onto itself (E_WRITE), and where the only
    input is a folder that holds no photo.
    """
    out = Path(output)
    places: dict[str, Place] = {}  # by absolute path: what is named twice is one input
    for name in inputs:
        source = Path(name)
        if not os.path.isdir(name):
            place = Place(source, Path(source.name or "unnamed"))
            places[os.path.abspath(source)] = place  # named, a file is a photo
            continue
        if inode(source) == inode(out):
            why = "would be overwritten by its own restoration; give another output"
            raise ImageError("E_WRITE", f"{source} {why}")
        before = set(places)
        for path, problem in below(source, inode(out)):
            rel = Path(source.name or "folder") if path == source else path.relative_to(source)
            ignored = "" if problem else no_photo(path, rel)
            places.setdefault(os.path.abspath(path), Place(path, rel, problem, ignored))
        fresh = [place for where, place in places.items() if where not in before]
        if all(place.ignored for place in fresh):
            what = f"no photo, only {len(fresh)} other files" if fresh else "no file"
            problem = ImageError("E_MISSING", f"the folder {source} holds {what}")
            place = Place(source, Path(source.name or "folder"), problem)
            places[os.path.abspath(source)] = place
    photos = [place for place in places.values() if not place.ignored]
    if len(photos) == 1 and photos[0].problem:
        raise photos[0].problem
    rows = [row for place in places.values() for row in paged(place, every_page)]
    if len(inputs) == 1 and not os.path.isdir(inputs[0]) and out.suffix and not out.is_dir():
        name = Path(out.name if out.suffix.lower() in SUFFIXES else f"{out.name}.png")
        return [Job(p.source, out.parent, numbered(name, p.sheet), sheet=p.sheet) for p in rows]
    rels = keep_apart([numbered(place.rel, place.sheet) for place in rows])
    return [Job(p.source, out, r, p.problem, False, p.ignored, p.sheet) for p, r in zip(rows, rels)]


class Place(NamedTuple):
    """An input, or a page of it, and its place below the output folder."""

    source: Path
    rel: Path
    problem: ImageError | None = None
    ignored: str = ""
    sheet: int | None = None


def no_photo(path: Path, rel: Path) -> str:
    """What a file in a folder is, if by name and content it is known to be no photo; else ""."""
    name, suffix = rel.name.casefold(), rel.suffix.casefold()
    if name in SYSTEM or any(part.casefold() in HIDDEN_FOLDERS for part in rel.parts[:-1]):
        return "a file of the system"
    if any(part.startswith(".") for part in rel.parts):
        return "a Mac's resource fork" if name.startswith("._") else "hidden"
    if suffix in PICTURES or not path.is_file():
        return ""
    begin = head(path, 4096)
    if suffix != ".thm" and is_picture(begin):
        return ""
    kinds = [kind for kind, suffixes in KINDS.items() if suffix in suffixes]
    kinds += [kind for mark, kind in MARKS.items() if begin.startswith(mark)]
    kinds += ["a video or sound"] if FILM.match(begin) else []
    kinds += ["a text"] if is_text(begin) else []
    return kinds[0] if kinds else ""


def is_text(begin: bytes) -> bool:
    """Whether a file that begins so is text in UTF-8 or UTF-16."""
    if begin[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    try:
        words = codecs.getincrementaldecoder("utf-8")().decode(begin)
    except UnicodeDecodeError:
        return False
    return bool(words) and all(c.isprintable() or c.isspace() for c in words)


def paged(place: Place, every_page: bool) -> list[Place]:
    """The place for each page of its file, if there are several and they are asked for."""
    if not every_page or place.problem or place.ignored:
        return [place]
    try:
        count = pages(place.source)
    except ImageError:  # it is said when the file is read
        return [place]
    if count > MOST_PAGES:
        why = f"has {count} pages, the limit is {MOST_PAGES}; divide it"
        return [place._replace(problem=ImageError("E_TOO_LARGE", f"{place.source} {why}"))]
    return [place._replace(sheet=i) for i in range(1, count + 1)] if count > 1 else [place]


def numbered(path: Path, page: int | None) -> Path:
    """`scan.tif` -> `scan_p2.tif`."""
    return path if page is None else path.with_name(f"{path.stem}_p{page}{path.suffix}")


def key(name: str) -> str:
    """A short file name for what belongs to an output of any name."""
    return sha256(os.fsencode(name)).hexdigest()[:24]


def keep_apart(places: Sequence[Path]) -> list[Path]:
    """An output path for each place, with a suffix that can be written, no two alike and none alike
    to a folder that another one needs.
    """
    wanted = [p if p.suffix.lower() in SUFFIXES else p.with_name(f"{p.name}.png") for p in places]
    folders: set[Path] = set()
    for p in wanted:
        for parent in p.parents:
            if parent in folders:  # and so are all above it; a hostile nest has thousands
                break
            folders.add(parent)
    taken = set(map(alike, folders))
    rank = [
        (p != place, alike(p) != str(p), os.fsencode(p), i)
        for i, (p, place) in enumerate(zip(wanted, places))
    ]
    out: list[Path | None] = [None] * len(places)
    for *_, i in sorted(
        rank
    ):  # first all who keep their name, so that no made-up name can take a real one
        if alike(wanted[i]) not in taken and len(os.fsencode(wanted[i].name)) <= LONGEST:
            out[i] = wanted[i]
            taken.add(alike(wanted[i]))
    seen: Counter[Path] = Counter()
    for i, place in enumerate(places):
        seen[place] += 1
        if out[i] is None:
            digest = sha256(os.fsencode(place) + b"\0" * seen[place]).hexdigest()
            tags = itertools.chain(
                (digest[:n] for n in (8, 16, 64)), (f"{digest}-{n}" for n in itertools.count())
            )
            names = (
                tagged(wanted[i], tag) for tag in tags
            )  # without end: others may bear just these names
            free = next(p for p in names if alike(p) not in taken)
            out[i] = free
            taken.add(alike(free))
    return [path for path in out if path is not None]


def tagged(path: Path, tag: str) -> Path:
    """`folder/name.jpg` -> `folder/name~tag.jpg`, the name cut where it would become too long."""
    ending = f"~{tag}{path.suffix}"
    stem = os.fsencode(path.stem)[: LONGEST - len(ending)]
    return path.with_name(stem.decode("utf-8", "ignore") + ending)
