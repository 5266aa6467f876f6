"""One training loop. `fit` owns time: steps, averaging, checkpoints, resume; a stage owns its nets; batches are a function of the step.

    for record in fit(Supervised(FaceNet()), FaceBatches(faces, size=128), steps=1000, out="runs/face"):
        print(record.step, record.losses)

Batch n depends on (seed, n) alone, so a resumed run sees what an unbroken one would have seen and ends in the same bits on a CPU.
"""

from __future__ import annotations

import copy
import io
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import image, weights
from ..guard.signals import undivided


@dataclass(frozen=True)
class Record:
    """What one step tells: its number (from 1), named losses, seconds since this run began, and steps a second of late."""

    step: int
    losses: dict[str, float]
    seconds: float
    rate: float


class EMA:
    """Exponential moving average of a net's weights, with the early steps weighted so that it never lags behind the start."""

    def __init__(self, net: nn.Module, decay: float = 0.999) -> None:
        self.net, self.decay = copy.deepcopy(net).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in zip(
            self.net.state_dict().values(), net.state_dict().values(), strict=True
        ):
            if mine.is_floating_point():
                mine.lerp_(theirs.to(mine.dtype), 1 - decay)
            else:
                mine.copy_(theirs)


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write step-N.pt atomically (temporary name, fsync, replace); keep the newest `keep` up to this step, none beyond it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    folder.mkdir(parents=True, exist_ok=True)
    path = image.write_bytes(folder / f"step-{step:08d}.pt", buffer.getvalue())
    names = sorted(folder.glob("step-*.pt"))
    here = names.index(path)
    for old in (
        names[: max(here + 1 - keep, 0)] + names[here + 1 :]
    ):  # those beyond were unreadable, or this run would have begun there
        old.unlink(missing_ok=True)
    return path


def newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None; only tensors and plain values are ever loaded."""
    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        content = image.read_bytes(
            path, max_bytes=path.stat().st_size
        )  # a disk that cannot be read is an error
        try:
            return weights.tensors_only(content)
        except Exception as e:  # a damaged file must not stop a resume from the one before it
            if isinstance(e, MemoryError):
                raise
            print(f"{path.name} cannot be read ({type(e).__name__}), trying the one before it")
    return None


def prefetch(
    batches: Callable[[int], Any], start: int, stop: int, workers: int
) -> Iterator[tuple[int, Any]]:
    """(n, batches(n)) for n in start..stop-1 in order, `workers` of them made ahead in threads; 0 makes each when asked."""
    if workers <= 0:
        yield from ((n, batches(n)) for n in range(start, stop))
        return
    with ThreadPoolExecutor(workers) as pool:
        ahead = [pool.submit(batches, n) for n in range(start, min(start + workers, stop))]
        for n in range(start, stop):
            batch = ahead.pop(0).result()
            if n + workers < stop:
                ahead.append(pool.submit(batches, n + workers))
            yield n, batch


def to_device(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, torch.Tensor):
        channels_last = batch.ndim == 4
        return batch.to(
            device,
            memory_format=torch.channels_last if channels_last else torch.preserve_format,
            non_blocking=True,
        )
    if isinstance(batch, dict):
        return {k: to_device(v, device) for k, v in batch.items()}
    return tuple(to_device(v, device) for v in batch)


def fit(
    stage: Any,
    batches: Callable[[int], Any],
    steps: int,
    out: str | Path | None = None,
    *,
    seed: int = 0,
    schedule: int | None = None,
    ema: float = 0.999,
    save_every: int = 500,
    resume: bool = True,
    workers: int = 0,
    fabric: Any = None,
    tensorboard: bool = False,
) -> Iterator[Record]:
    """Train `stage` to `steps`, yielding a Record after each; stop by leaving the loop.

    batches: step number -> batch, a pure function. out: folder for checkpoints/, log.jsonl; None keeps nothing. resume:
    go on from the newest checkpoint in `out`; False deletes those there. ema: decay of the averaged weights, found on
    `stage.ema` (0 switches it off). fabric: a lightning_fabric.Fabric for device, precision and processes (each sees other batches, the
    first one writes); None trains on the CPU in float32. tensorboard: write the losses for TensorBoard as well.

    A FloatingPointError of the stage (a loss that is not finite, a collapse) names the step; the newest checkpoint is then its last good state.
    """
    world, rank = (fabric.world_size, fabric.global_rank) if fabric is not None else (1, 0)
    torch.manual_seed(seed + rank)
    folder = Path(out) if out else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    stage.averaged.to(memory_format=torch.channels_last)
    if fabric is not None:
        stage.setup(fabric)
    device = next(stage.averaged.parameters()).device
    average = EMA(stage.averaged, ema) if ema else None
    stage.ema = average.net if average else stage.averaged
    done, state = 0, None
    if folder and rank == 0:
        for torn in (folder / "checkpoints").glob(
            ".mtrestore-*.tmp"
        ):  # of a run that was killed while it saved
            torn.unlink()
        if resume:
            state = newest_checkpoint(folder / "checkpoints")
        else:
            for old in (folder / "checkpoints").glob("step-*.pt"):
                old.unlink()
    if fabric and world > 1:
        state = fabric.broadcast(
            state
        )  # what the first process read, so that all begin at one step
    if state:
        try:
            stage.load_state_dict(state["stage"])
        except (RuntimeError, ValueError, KeyError) as e:
            raise ValueError(
                f"{folder} holds a training of another net; choose another folder, or restart it (resume=False)"
            ) from e
        if average:
            average.net.load_state_dict(state["ema"])
        done = state["step"]
        torch.manual_seed(
            seed + rank + world * done
        )  # fresh draws; only one process on a CPU is promised to resume bit for bit
        if rank == 0:
            torch.set_rng_state(state["rng"])

    def checkpoint(step: int) -> None:
        if folder and rank == 0 and getattr(stage, "healthy", True):
            kept = {
                "step": step,
                "stage": stage.state_dict(),
                "ema": stage.ema.state_dict(),
                "rng": torch.get_rng_state(),
            }
            save_checkpoint(folder / "checkpoints", step, kept)
            if hasattr(stage, "picture") and (shown := stage.picture()) is not None:
                save_pictures(folder / "pictures" / f"step-{step:08d}.png", shown)

    began, rate, saved, first = time.monotonic(), 0.0, done, done
    log = None
    board = (
        open_board(folder, done) if tensorboard and folder and rank == 0 and done < steps else None
    )
    try:
        for n, batch in prefetch(lambda n: batches(n * world + rank), done, steps, workers):
            tick = time.monotonic()
            with undivided():
                try:
                    losses = stage.update(to_device(batch, device), n / (schedule or steps))
                except FloatingPointError as e:
                    raise type(e)(f"step {n + 1}: {e}") from e
                if average:
                    average.update(stage.averaged, n)
                done = n + 1
            now = time.monotonic()
            rate = 0.98 * rate + 0.02 / max(now - tick, 1e-9) if rate else 1 / max(now - tick, 1e-9)
            record = Record(done, losses, now - began, rate)
            if folder and rank == 0 and (done % 20 == 0 or done == steps):
                log = log or open_log(folder, first)
                log.write(json.dumps(asdict(record)) + "\n")
                log.flush()
                if board:
                    for name, value in losses.items():
                        board.add_scalar(name, value, done)
            if done % save_every == 0 or done == steps:
                checkpoint(done)
                saved = done
            yield record
    finally:
        for file in filter(None, (log, board)):
            file.close()
        if saved < done:
            checkpoint(done)


def save_pictures(path: Path, pictures: torch.Tensor, rows: int = 3) -> None:
    """B×3×s×s as one picture of `rows` rows, B a multiple of it."""
    lines = [torch.cat(list(row), 2) for row in pictures.chunk(rows)]
    path.parent.mkdir(exist_ok=True)
    image.write(path, torch.cat(lines, 1).permute(1, 2, 0).numpy())


def open_board(folder: Path, done: int) -> Any:
    """A TensorBoard writer whose curves forget what lies beyond the step we resume from."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as e:
        raise ValueError(
            "tensorboard is not installed; pip install tensorboard, or leave it off (log.jsonl has every number)"
        ) from e
    return SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)


def open_log(folder: Path, done: int) -> Any:
    """log.jsonl opened for appending, without torn lines and those beyond the step we resume from."""
    path = folder / "log.jsonl"

    def valid(line: str) -> bool:
        try:
            return json.loads(line)["step"] <= done
        except (ValueError, KeyError, TypeError):
            return False

    if path.exists():
        image.write_bytes(
            path,
            "".join(
                line + "\n" for line in path.read_text(errors="replace").splitlines() if valid(line)
            ).encode(),
        )
    return path.open("a")
