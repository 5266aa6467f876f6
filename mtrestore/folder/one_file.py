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
from collections import Counter
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
from .flags import flags
from .journal import Row
from .names import Job

NETS = ("face", "restorer", "upsampler")
UNUSED = {"prior", "embedding"}  # shipped, but no restoration asks them


class SetUpError(ValueError):
    """The models cannot be made with these options, or no worker lives: no file at all could be
    restored.
    """


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know.

    options: Restorer's, as pairs. made_by: see `made_by`. threads: of this process, None leaves
    them.
    """

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
    """sha256 over all that decides what a picture becomes: options, the bits of every net, version.

    Raises WeightsError; needs no torch.
    """
    shipped = {name: path for name, path in weights.shipped().items() if name not in UNUSED}
    files = {**shipped, **{name: Path(options[name]) for name in NETS if options.get(name)}}
    nets = {
        name: onnx_digest(path) if path.suffix == ".onnx" else weights.check(path)[0]["sha256"]
        for name, path in files.items()
    }
    yunet = weights.yunet_path()
    if options.get("detector") != "mtcnn" and yunet.is_file():
        nets["yunet"] = onnx_digest(yunet)
    if not options.get("face") and (faster := weights.exported("face")).is_file():
        nets["exported face"] = onnx_digest(faster)
    rest = {name: value for name, value in options.items() if name not in NETS}
    facts = json.dumps([__version__, nets, rest], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()


def onnx_digest(path: Path) -> str:
    """sha256 of a file that is run as ONNX, if it needs no other file; or WeightsError."""
    return hashlib.sha256(onnxfile.read(path, broken=True)).hexdigest()


def nets(options: Collection[tuple[str, Any]]) -> list[Path]:
    """The files of the nets that a run may use."""
    own = [Path(v) for name, v in options if name in NETS and isinstance(v, (str, Path))]
    return [*own, *weights.shipped().values(), weights.yunet_path(), weights.exported("face")]


@functools.lru_cache(maxsize=1)
def models(settings: Settings) -> Any:
    """The Restorer of this process, made once; raises SetUpError."""
    if settings.version != __version__:
        ours = f"this worker has mtrestore {__version__}"
        raise SetUpError(f"{ours}, the run was started with {settings.version}; install the same")
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
    paths = {"input": job.source, "output": job.target, "name": job.rel}
    row = {name: os.fsdecode(path) for name, path in paths.items()}
    return row | {"status": "failed", "code": code, "message": message}


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
    """Restore one file, into `staged` or under its final name, and say what became of it.

    past: the rows of what was made before under this output, by sha256. The row's `replaces` says
    that such a file is there. Raises SetUpError and nothing else.
    """
    row = failed(job, None, "") | {"made_by": settings.made_by}
    try:
        attempt(job, row, settings, staged, past or {})
    except SetUpError:
        raise
    except Exception as e:  # the others go on
        row |= {"code": code_of(e), "message": one_line(e)}
        if settings.debug:
            row["traceback"] = traceback.format_exc()
    return row


def attempt(
    job: Job, row: Row, settings: Settings, staged: Path | None, past: Mapping[str, Row]
) -> None:
    """`work`, filling in the row as far as it comes; whatever goes wrong is raised."""
    began, before = time.perf_counter(), stamp(job.source)
    row["input_sha256"] = digest(job.source)
    if past and os.path.lexists(job.target):
        old = past.get(digest_made(job.target))
        if old and all(old.get(name) == row[name] for name in ("input_sha256", "made_by")):
            row |= {**old, **row, "status": "skipped", "message": "restored before"}
            return
        if not old and not settings.overwrite:
            why = "was changed since it was restored; give another output or --overwrite"
            raise image.ImageError("E_WRITE", f"{job.target} {why}")
        row["replaces"] = True
    picture = image.load(job.source, page=job.sheet or 1)
    result = models(settings)(picture)
    if stamp(job.source) != before:
        why = "changed while it was read; restore it again when it is complete"
        raise image.ImageError("E_CHANGED", f"{job.source} {why}")
    target = staged or job.target
    write(job, settings, picture, result, staged)
    row |= account(job, settings, picture, result, time.perf_counter() - began)
    row["output_sha256"] = digest_made(target)


def write(job: Job, settings: Settings, picture: Any, result: Any, staged: Path | None) -> None:
    """The picture, its page, and in a folder run its thumbnail."""
    target = staged or job.target
    if not staged:
        make_folders(target.parent)
    replace = settings.overwrite or staged is not None
    result.save(target, overwrite=replace, strip_location=settings.strip_location)
    if settings.html:
        page = Path(f"{target}.html") if staged else job.page
        result.compare(title=job.target.name).save(page, overwrite=settings.overwrite)
    if staged:
        small = gallery.thumb(picture.samples, result.samples)
        name = gallery.thumb_path(job.root, os.fsdecode(job.rel))
        with contextlib.suppress(image.ImageError):  # on a full disk the picture matters
            image.write_bytes(name, small)


def account(job: Job, settings: Settings, picture: Any, result: Any, seconds: float) -> Row:
    """The fields of a row about a picture that was restored."""
    states = [face.status for face in result.faces]
    lost = image.what_is_lost(picture, job.target.suffix)
    place = image.place_taken(picture, job.target.suffix, settings.strip_location)
    notes = [shown(note)[:500] for note in (*result.notes, *lost, *place)]
    others = Counter(state.replace("_", " ") for state in states if state != "restored")
    faces = "1 face" if len(states) == 1 else f"{len(states)} faces"
    faces += "".join(f" ({count} {state})" for state, count in others.items())
    looked = dict(settings.options).get("faces", True) is not False
    return {
        "status": "restored",
        "message": "; ".join([f"{faces}, {seconds:.1f} s", *notes]),
        "faces": states,
        "boxes": [face.corners for face in result.faces],
        "flags": flags(result.samples, states, looked),
        "faces_found": len(states),
        "faces_restored": sum(state in ("restored", "soft") for state in states),
        "faces_failed": sum(state.startswith("failed") for state in states),
        "notes": notes,
        "seconds": round(seconds, 3),
    }


def digest(path: Path) -> str:
    """sha256 of an input, a regular file within the reader's limits; raises ImageError."""
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
