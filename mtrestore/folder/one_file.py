"""One file of a batch, from its bytes to its row, in whichever process: what a worker does.

bytes -> sha256 -> (done before? skip) -> read -> restore -> write -> row
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__, image, weights
from ..fast import onnxfile
from ..io.files import make_folders, read_whole
from ..io.text import one_line, shown
from ..tile import out_of_memory
from . import gallery
from .journal import Row
from .names import Job

NETS = ("face", "restorer", "upsampler")
UNUSED = {"prior", "embedding"}  # shipped, but no restoration asks them


class SetUpError(ValueError):
    """The models cannot be made with these options, or no worker lives: no file at all could be restored."""


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know. options: Restorer's, as pairs. made_by: see `made_by`. threads: of this process, None leaves them."""

    options: tuple[tuple[str, Any], ...]
    made_by: str
    overwrite: bool = False
    html: bool = False
    debug: bool = False
    progress: bool = False
    threads: int | None = None
    version: str = __version__
    strip_location: bool = False


def made_by(options: Mapping[str, Any]) -> str:
    """sha256 over all that decides what a picture becomes: options, the bits of every net, version. Raises WeightsError; needs no torch."""
    shipped = {name: path for name, path in weights.shipped().items() if name not in UNUSED}
    files = {**shipped, **{name: Path(options[name]) for name in NETS if options.get(name)}}
    nets = {
        name: onnx_digest(path) if path.suffix == ".onnx" else weights.check(path)[0]["sha256"]
        for name, path in files.items()
    }
    yunet = Path(
        os.environ.get("MTRESTORE_YUNET") or weights.CACHE / weights.OPTIONAL["yunet"][0]
    ).expanduser()
    if options.get("detector") != "mtcnn" and yunet.is_file():
        nets["yunet"] = onnx_digest(yunet)
    if not options.get("face") and (faster := weights.exported("face")).is_file():
        nets["exported face"] = onnx_digest(faster)
    rest = {name: value for name, value in options.items() if name not in NETS}
    return hashlib.sha256(
        json.dumps([__version__, nets, rest], sort_keys=True).encode()
    ).hexdigest()


def onnx_digest(path: Path) -> str:
    """sha256 of a file that is run as ONNX, if it needs no other file; or WeightsError."""
    return hashlib.sha256(onnxfile.read(path, broken=True)).hexdigest()


def nets(options: Collection[tuple[str, Any]]) -> list[Path]:
    """The files of the nets that a run may use."""
    yunet = os.environ.get("MTRESTORE_YUNET") or weights.CACHE / weights.OPTIONAL["yunet"][0]
    given = [
        Path(value) for name, value in options if name in NETS and isinstance(value, (str, Path))
    ]
    return [*given, *weights.shipped().values(), Path(yunet).expanduser(), weights.exported("face")]


@functools.lru_cache(maxsize=1)
def models(settings: Settings) -> Any:
    """The Restorer of this process, made once; raises SetUpError."""
    if settings.version != __version__:
        raise SetUpError(
            f"this worker has mtrestore {__version__}, the run was started with {settings.version}; install the same"
        )
    try:
        if settings.threads:
            import cv2
            import torch

            torch.set_num_threads(settings.threads)
            cv2.setNumThreads(settings.threads)
        from ..pipeline import Restorer

        return Restorer(**dict(settings.options), keep_steps=False, progress=settings.progress)
    except Exception as e:
        raise SetUpError(one_line(e)) from e


def failed(job: Job, code: str | None, message: str) -> Row:
    """The row of a job that came to nothing."""
    return {"input": os.fsdecode(job.source), "output": os.fsdecode(job.target), "name": os.fsdecode(job.rel),
            "status": "failed", "code": code, "message": message}  # fmt: skip


def code_of(e: BaseException) -> str:
    """The report's code for whatever a decoder, a net or the disk raised."""
    if out_of_memory(e):
        return "E_MEMORY"
    if isinstance(e, image.ImageError):
        return e.code
    return "E_NONFINITE" if isinstance(e, FloatingPointError) else "E_CRASH"


def work(
    job: Job, settings: Settings, staged: Path | None = None, past: Mapping[str, Row] | None = None
) -> Row:
    """Restore one file, into `staged` or under its final name, and say what became of it; raises SetUpError and nothing else.

    past: the rows of what was made before under this output, by sha256. The row's `replaces` says that such a file is there.
    """
    row = failed(job, None, "") | {"made_by": settings.made_by}
    try:
        attempt(job, row, settings, staged, past or {})
    except SetUpError:
        raise
    except Exception as e:  # the others go on
        row |= {"code": code_of(e), "message": one_line(e)} | (
            {"traceback": traceback.format_exc()} if settings.debug else {}
        )
    return row


def attempt(
    job: Job, row: Row, settings: Settings, staged: Path | None, past: Mapping[str, Row]
) -> None:
    """`work`, filling in the row as far as it comes; whatever goes wrong is raised."""
    began, before = time.perf_counter(), stamp(job.source)
    row["input_sha256"] = digest(job.source)
    if past and os.path.lexists(job.target):
        old = past.get(digest_made(job.target))
        if old and (old.get("input_sha256"), old.get("made_by")) == (
            row["input_sha256"],
            settings.made_by,
        ):
            row |= {**old, **row, "status": "skipped", "message": "restored before"}
            return
        if not old and not settings.overwrite:
            raise image.ImageError(
                "E_WRITE",
                f"{job.target} was changed since it was restored; give another output or --overwrite",
            )
        row["replaces"] = True
    picture = image.load(job.source)
    result = models(settings)(picture)
    if stamp(job.source) != before:
        raise image.ImageError(
            "E_CHANGED",
            f"{job.source} changed while it was read; restore it again when it is complete",
        )
    target = staged or job.target
    if not staged:
        make_folders(target.parent)
    result.save(
        target,
        overwrite=settings.overwrite or staged is not None,
        strip_location=settings.strip_location,
    )
    if settings.html:
        page = Path(f"{target}.html") if staged else job.page
        result.compare(title=job.target.name).save(page, overwrite=settings.overwrite)
    if staged:
        with contextlib.suppress(
            image.ImageError
        ):  # on a full disk the picture matters, not its thumbnail
            image.write_bytes(
                gallery.thumb_path(job.root, row["name"]),
                gallery.thumb(picture.samples, result.samples),
            )
    states, seconds = [f.status for f in result.faces], time.perf_counter() - began
    notes = [
        *result.notes,
        *image.what_is_lost(picture, job.target.suffix),
        *image.place_taken(picture, job.target.suffix, settings.strip_location),
    ]
    notes = [shown(note)[:500] for note in notes]
    say = f"{len(states)} face{'s' * (len(states) != 1)}" + "".join(
        f" ({s})" for s in states if s != "restored"
    )
    row |= {
        "status": "restored", "message": "; ".join([f"{say}, {seconds:.1f} s", *notes]), "faces": states, "faces_found": len(states),
        "faces_restored": states.count("restored"), "faces_failed": sum(s.startswith("failed") for s in states),
        "notes": notes, "seconds": round(seconds, 3), "output_sha256": digest_made(target),
    }  # fmt: skip


def digest(path: Path) -> str:
    """sha256 of an input, which must be a regular file within the reader's limits; raises ImageError."""
    return hashlib.sha256(image.read_bytes(path)).hexdigest()


def digest_made(path: Path) -> str:
    """sha256 of an output, a regular file of any size; raises ImageError."""
    return hashlib.sha256(read_whole(path)).hexdigest()


def stamp(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written to or replaced; None where there is none."""
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return None
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns
