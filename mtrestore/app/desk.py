"""The photos of a session: each in a folder of its own, one worked on at a time.

waiting -> looking -> restoring -> done, or failed, or stopped. Work is done by one process that
has the models; a photo that crashes it, takes too long or is stopped costs that process alone.
All of this runs in the server's one thread, so nothing here is locked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
import zipfile
from collections.abc import Iterable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from pebble import ProcessExpired

from .. import degrade, image
from ..folder.names import no_photo
from ..folder.one_file import Settings, SetUpError
from ..folder.pool import Local, ending
from ..folder.run import beside
from ..io.claims import Claims
from ..io.files import MAX_BYTES, ImageError, alike, clear, make_folders, read_bytes, read_whole
from ..io.text import one_line, shown
from ..tile import out_of_memory
from .asked import Asked

MOST_PHOTOS = 1000
MOST_BYTES = 16 * MAX_BYTES  # of all photos of a session
BUSY = ("waiting", "looking", "restoring")
TRIES = 3  # for a photo whose process ended before it could say anything
RECIPE = Path(__file__).parents[1] / "sample_recipe.json"


@dataclass
class Photo:
    """A photo of a session. facts: what `work` said of it; version: counts its results."""

    number: int
    name: str
    folder: Path
    bytes: int
    asked: Asked = field(default_factory=Asked)
    state: str = "waiting"
    error: str = ""
    seen: list[dict[str, Any]] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    version: int = 0
    again: bool = False  # asked anew while it was restored
    saved: str = ""

    @property
    def source(self) -> Path:
        return self.folder / "photo"

    @property
    def suffix(self) -> str:
        """Of the restored picture: the photo's own, or .png where that cannot be written."""
        suffix = Path(plain(self.name)).suffix.lower()
        return suffix if suffix in image.SUFFIXES else ".png"

    @property
    def restored(self) -> Path:
        return self.folder / f"restored{self.suffix}"

    @property
    def title(self) -> str:
        """The name under which its result is saved."""
        return f"{Path(plain(self.name)).stem}_restored{self.suffix}"

    def expect(self) -> None:
        """Show the faces as they are asked for, also before that is done."""
        before = self.facts.get("faces", ())
        wishes = self.asked.faces
        if wishes is None:
            usual = self.asked.face_strength
            faces = [face | {"strength": usual} for face in before]
        else:
            states = {tuple(face["box"]): face["status"] for face in before}
            faces = [asdict(w) | {"status": states.get(w.box, "new")} for w in wishes]
        if "faces" in self.facts:
            self.facts = self.facts | {"faces": faces}

    def json(self) -> dict[str, Any]:
        """What the page is told."""
        names = ("number", "name", "state", "error", "version", "saved")
        words = {name: getattr(self, name) for name in names}
        return words | self.facts | {"asked": self.asked.json(), "title": self.title}


def plain(name: str) -> str:
    """A name from outside as a file name anywhere: its last part, without what would be a path,
    markup or a command there.
    """
    last = re.split(r"[/\\]", name)[-1]
    words = re.sub(r"[^\w .,()+@&=~#'-]", "_", last).lstrip(". -").rstrip(". ")
    stem, suffix = os.path.splitext(words)
    while len(os.fsencode(stem)) > 120:
        stem = stem[:-1]
    return f"{stem or 'photo'}{suffix[:10]}"


class Desk:
    """The photos, and who works on them. folder: of the session; out: where `save` writes."""

    def __init__(self, folder: Path, out: Path | None, device: str, timeout: float) -> None:
        self.folder, self.out, self.device = folder, out, device
        self.photos: dict[int, Photo] = {}
        self.queue: list[int] = []
        self.count = 0
        self.wake = asyncio.Event()
        self.future: Future | None = None
        self.working: Photo | None = None
        options = (("device", device),)
        self.worker = Local(Settings(options, made_by="the app"), 1, timeout)

    # ---- what the page may ask

    def add(self, name: str, data: bytes, of_folder: bool = False) -> Photo | str:
        """A new photo, which waits to be restored; or what it is, where a folder's file is none.

        Raises ImageError.
        """
        if len(self.photos) >= MOST_PHOTOS:
            why = f"there are {MOST_PHOTOS} photos here already; remove some"
            raise ImageError("E_TOO_LARGE", why)
        if sum(photo.bytes for photo in self.photos.values()) + len(data) > MOST_BYTES:
            why = f"the photos here have more than {MOST_BYTES >> 30} GiB already; remove some"
            raise ImageError("E_TOO_LARGE", why)
        self.count += 1
        photo = Photo(self.count, shown(name)[-300:], self.folder / str(self.count), len(data))
        make_folders(photo.folder)
        image.write_bytes(photo.source, data)
        parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]
        kind = no_photo(photo.source, Path(*parts)) if of_folder and "\0" not in name else ""
        if kind:
            clear(photo.folder)
            return kind
        self.photos[photo.number] = photo
        self.want(photo)
        return photo

    def sample(self) -> Photo:
        """The portrait of `mtrestore demo`, worn by its recipe."""
        import skimage.data

        recipe = degrade.Recipe.from_json(read_bytes(RECIPE).decode())
        path = self.folder / "sample.png"
        image.write(path, degrade.apply(image.read(skimage.data.astronaut()), recipe))
        photo = self.add("Eileen Collins (NASA).png", read_whole(path))
        assert isinstance(photo, Photo)
        return photo

    def want(self, photo: Photo, asked: Asked | None = None) -> None:
        """Restore a photo, with other settings or again."""
        if asked:
            photo.asked = asked.within(photo.facts)
            photo.expect()
        photo.saved = ""
        if photo is self.working:
            photo.again = True
            return
        photo.state, photo.error = "waiting", ""
        if photo.number not in self.queue:
            # what a person changes comes before what only waits
            self.queue.insert(0 if photo.version else len(self.queue), photo.number)
        self.wake.set()

    def want_all(self, asked: Asked) -> None:
        """Restore all photos with these settings; faces follow the preset, those by hand stay."""
        for photo in self.photos.values():
            if photo.state == "failed" and photo.seen is None:
                continue
            own = asked.face_strength
            faces = photo.asked.faces
            if faces is not None:
                faces = tuple(replace(w, strength=own if w.strength else 0.0) for w in faces)
            self.want(photo, replace(asked, faces=faces))

    def stop(self, photos: Iterable[Photo]) -> None:
        """Take these back; what is being worked on ends at once."""
        for photo in photos:
            if photo.state in BUSY:
                photo.state, photo.again = "stopped", False
            if photo.number in self.queue:
                self.queue.remove(photo.number)
            if photo is self.working and self.future:
                self.future.cancel()

    def remove(self, photo: Photo) -> None:
        """Forget a photo, and what was made of it."""
        self.stop([photo])
        del self.photos[photo.number]
        if photo is not self.working:  # else when its worker has let go
            clear(photo.folder)

    def save(self, photo: Photo) -> Path:
        """Write its result into the folder `out` under a name that is free; raises ImageError."""
        if self.out is None:
            raise ImageError("E_WRITE", "no folder was named; start with --out FOLDER")
        path = beside(str(self.out / plain(photo.name)), "restored")
        Claims().claim(path, "the picture")
        image.write_bytes(path, read_whole(photo.restored), overwrite=False)
        photo.saved = path.name
        return path

    def results(self) -> list[tuple[Path, str]]:
        """Where each result lies, and its name among all, no two alike."""
        names: set[str] = set()
        done = [photo for photo in self.photos.values() if photo.version]
        return [(photo.restored, free(photo.title, names)) for photo in done]

    def json(self) -> dict[str, Any]:
        """What the page is told of all."""
        photos = list(self.photos.values())
        return {
            "photos": [photo.json() for photo in photos],
            "busy": sum(photo.state in BUSY for photo in photos),
            "out": str(self.out) if self.out else "",
        }

    # ---- how

    async def run(self) -> None:
        """Work on what waits, one after the other, until cancelled."""
        self.worker.start()  # it loads its models while the person looks for a photo
        while True:
            await self.wake.wait()
            if not self.queue:
                self.wake.clear()
                continue
            photo = self.photos[self.queue.pop(0)]
            self.working = photo
            try:
                await self.work(photo)
            finally:
                self.working = self.future = None
            if photo.number not in self.photos:
                with contextlib.suppress(OSError):  # a worker that ends may write still
                    clear(photo.folder)
            elif photo.again:
                photo.again = False
                photo.expect()
                self.want(photo)

    async def work(self, photo: Photo) -> None:
        """Look at a photo and restore it; whatever goes wrong is its one line."""
        try:
            if photo.seen is None:
                photo.state = "looking"
                facts = await self.done(look, photo.source)
                photo.seen, photo.facts = facts["faces"], facts
                photo.asked = photo.asked.within(facts)  # asked for before its size was known
                photo.expect()
            if photo.state == "stopped":
                return
            photo.state = "restoring"
            task = (photo.source, photo.suffix, photo.seen, photo.asked, self.device)
            photo.facts = photo.facts | await self.done(restore, *task)
        except asyncio.CancelledError:
            if photo.state != "stopped":  # the server ends
                raise
        except Exception as e:
            photo.state, photo.error = "failed", self.words(e, photo)
        else:
            photo.state, photo.version = "done", photo.version + 1

    async def done(self, do: Any, *task: Any) -> Any:
        """What the worker gives; a worker that ended before it began is replaced."""
        for trial in range(TRIES):
            self.future = self.worker.schedule(do, *task)
            try:
                return await asyncio.wrap_future(self.future)
            except BrokenProcessPool:
                if trial == TRIES - 1:
                    raise
        raise AssertionError

    def words(self, e: BaseException, photo: Photo) -> str:
        """An error as one line that speaks of the file as the person knows it."""
        if isinstance(e, TimeoutError):
            return f"this photo {self.worker.too_long()}"
        if isinstance(e, ProcessExpired):
            return f"this photo {ending(e)}"
        if isinstance(e, (SetUpError, BrokenProcessPool)):
            return f"the worker process cannot start: {one_line(e)}"
        if out_of_memory(e):
            return f"there is not enough memory for this photo: {one_line(e)}"
        words = str(e).replace(repr(str(photo.source)), "this file")
        return one_line(ValueError(words.replace(str(photo.source), "this file")))

    def close(self) -> None:
        """End the worker at once."""
        self.worker.close()


def look(*task: Any) -> dict[str, Any]:
    """`work.look`, in the worker: this process needs no torch."""
    from . import work

    return work.look(*task)


def restore(*task: Any) -> dict[str, Any]:
    """`work.restore`, in the worker."""
    from . import work

    return work.restore(*task)


def pack(results: Iterable[tuple[Path, str]], folder: Path) -> IO[bytes]:
    """A .zip of files under these names, in a file without a name."""
    file = tempfile.TemporaryFile(dir=folder)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path, name in results:
            archive.write(path, name)
    return file


def free(name: str, names: set[str]) -> str:
    """The name, or with _2, _3, ... before its suffix where one alike is taken; it is now."""
    path, number = Path(name), 1
    while alike(name) in names:
        number += 1
        name = f"{path.stem}_{number}{path.suffix}"
    names.add(alike(name))
    return name


@contextlib.contextmanager
def session_folder() -> Any:
    """A folder for the photos of a session, removed at its end."""
    with tempfile.TemporaryDirectory(prefix="mtrestore-app-", ignore_cleanup_errors=True) as name:
        yield Path(name)
