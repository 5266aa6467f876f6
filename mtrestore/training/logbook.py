"""What a training leaves in its folder: checkpoints/, pictures/, log.jsonl and tensorboard/."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from .. import image
from ..io.pickled import tensors_only


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write step-N.pt atomically; keep the newest `keep` up to this step, none beyond it.

    Those beyond were unreadable, or this run would have begun there.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    folder.mkdir(parents=True, exist_ok=True)
    path = image.write_bytes(folder / f"step-{step:08d}.pt", buffer.getvalue())
    names = sorted(folder.glob("step-*.pt"))
    last = names.index(path) + 1
    for old in names[: max(last - keep, 0)] + names[last:]:
        old.unlink(missing_ok=True)
    return path


def newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None; only tensors and plain values are loaded."""
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        # A disk that cannot be read is an error, a damaged file only sends us to the one before.
        content = image.read_bytes(path, max_bytes=path.stat().st_size)
        try:
            return tensors_only(content)
        except MemoryError:
            raise
        except Exception as e:
            print(f"{path.name} cannot be read ({type(e).__name__}), trying the one before it")
    return None


class Logbook:
    """The folder of a run; `start` comes before the first step, `close` at last."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        for torn in self.checkpoints.glob(".mtrestore-*.tmp"):  # of a run killed while it saved
            torn.unlink()
        self.log: IO[str] | None = None
        self.board: Any = None  # a SummaryWriter, where one is asked for

    def begin(self, resume: bool) -> dict[str, Any] | None:
        """The newest checkpoint to go on from; without `resume` all are deleted."""
        for old in () if resume else self.checkpoints.glob("step-*.pt"):
            old.unlink()
        return newest_checkpoint(self.checkpoints)

    def start(self, step: int, tensorboard: bool) -> None:
        """Go on after `step`: what log and curves say of later ones is forgotten."""
        self.step = step
        if not tensorboard:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as e:
            raise ValueError(
                "tensorboard is not installed; pip install tensorboard, or leave it off "
                "(log.jsonl has every number)"
            ) from e
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1)

    def note(self, row: dict[str, Any]) -> None:
        """Add a line to log.jsonl, and its losses to the curves."""
        self.log = self.log or open_log(self.folder, self.step)
        self.log.write(json.dumps(row) + "\n")
        self.log.flush()
        for name, value in row["losses"].items() if self.board else ():
            self.board.add_scalar(name, value, row["step"])

    def save(self, state: dict[str, Any], picture: Callable[[], torch.Tensor | None]) -> None:
        """A checkpoint, and the stage's picture beside it."""
        save_checkpoint(self.checkpoints, state["step"], state)
        pictures = picture()
        if pictures is not None:
            save_pictures(self.folder / "pictures" / f"step-{state['step']:08d}.png", pictures)

    def close(self) -> None:
        for file in filter(None, (self.log, self.board)):
            file.close()


def save_pictures(path: Path, pictures: torch.Tensor) -> None:
    """B×3×s×s as one picture of three rows, B a multiple of it."""
    rows = [torch.cat(list(row), 2) for row in pictures.chunk(3)]
    path.parent.mkdir(exist_ok=True)
    image.write(path, torch.cat(rows, 1).permute(1, 2, 0).numpy())


def open_log(folder: Path, step: int) -> IO[str]:
    """log.jsonl opened for appending, without torn lines and those beyond `step`."""
    path = folder / "log.jsonl"

    def valid(line: str) -> bool:
        try:
            return json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            return False

    if path.exists():
        lines = path.read_text(errors="replace").splitlines()
        image.write_bytes(path, "".join(f"{s}\n" for s in lines if valid(s)).encode())
    return path.open("a")
