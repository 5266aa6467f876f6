"""One training loop. `fit` owns time: steps, averaging, checkpoints, resume.

    for record in fit(Supervised(FaceNet()), FaceBatches(faces), steps=1000, out="runs/face"):
        print(record.step, record.losses)

A stage owns its nets; batches are a function of the step. Batch n depends on (seed, n) alone, so a
resumed run sees what an unbroken one would have seen and ends in the same bits on a CPU.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..guard.signals import undivided
from .logbook import Logbook, newest_checkpoint, save_checkpoint

__all__ = ["EMA", "Record", "fit", "newest_checkpoint", "prefetch", "save_checkpoint", "to_device"]


@dataclass(frozen=True)
class Record:
    """A step's number (from 1), named losses, seconds since this run began, steps/s of late."""

    step: int
    losses: dict[str, float]
    seconds: float
    rate: float


class EMA:
    """Exponential moving average of a net's weights; early steps weigh more, so it never lags."""

    def __init__(self, net: nn.Module, decay: float = 0.999) -> None:
        self.net, self.decay = copy.deepcopy(net).eval().requires_grad_(False), decay

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = zip(self.net.state_dict().values(), net.state_dict().values(), strict=True)
        for mine, theirs in pairs:
            if mine.is_floating_point():
                mine.lerp_(theirs.to(mine.dtype), 1 - decay)
            else:
                mine.copy_(theirs)


def prefetch(
    batches: Callable[[int], Any], start: int, stop: int, workers: int
) -> Iterator[tuple[int, Any]]:
    """(n, batches(n)) for n in start..stop-1 in order, `workers` of them computed ahead in threads.

    0 computes each when it is asked for.
    """
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
    """A batch (tensors in dicts and sequences) on a device, pictures channels_last."""
    if isinstance(batch, torch.Tensor):
        layout = torch.channels_last if batch.ndim == 4 else torch.preserve_format
        return batch.to(device, memory_format=layout, non_blocking=True)
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

    batches: step number -> batch, a pure function. out: folder for checkpoints/, log.jsonl; None
    keeps nothing. resume: go on from the newest checkpoint in `out`; False deletes those there.
    ema: decay of the averaged weights, found on `stage.ema` (0 switches it off). fabric: a
    lightning_fabric.Fabric for device, precision and processes (each sees other batches, the first
    one writes); None trains on the CPU in float32. tensorboard: write the losses for TensorBoard.

    A FloatingPointError of the stage (a loss that is not finite, a collapse) names the step; the
    newest checkpoint is then its last good state.
    """
    world, rank = processes(fabric)
    torch.manual_seed(seed + rank)
    logbook = Logbook(Path(out)) if out and rank == 0 else None
    average = prepare(stage, fabric, ema)
    device = next(stage.averaged.parameters()).device
    state = logbook.begin(resume) if logbook else None
    state = fabric.broadcast(state) if world > 1 else state  # all processes begin at one step
    done = saved = restore(stage, state, out, fabric, seed) if state else 0
    if logbook:
        logbook.start(done, tensorboard and done < steps)
    began, rate = time.monotonic(), 0.0
    try:
        for n, batch in prefetch(lambda n: batches(n * world + rank), done, steps, workers):
            tick = time.monotonic()
            with undivided():
                losses = update(stage, to_device(batch, device), n, n / (schedule or steps))
                if average:
                    average.update(stage.averaged, n)
                done = n + 1
            speed = 1 / max(time.monotonic() - tick, 1e-9)
            rate = 0.98 * rate + 0.02 * speed if rate else speed
            record = Record(done, losses, time.monotonic() - began, rate)
            if logbook and (done % 20 == 0 or done == steps):
                logbook.note(asdict(record))
            if done % save_every == 0 or done == steps:
                checkpoint(stage, logbook, done)
                saved = done
            yield record
    finally:
        if logbook:
            logbook.close()
        if saved < done:
            checkpoint(stage, logbook, done)


def processes(fabric: Any) -> tuple[int, int]:
    """(how many processes train, which one this is)."""
    return (1, 0) if fabric is None else (fabric.world_size, fabric.global_rank)


def prepare(stage: Any, fabric: Any, ema: float) -> EMA | None:
    """Lay out the net, hand all to the fabric, begin the average."""
    stage.averaged.to(memory_format=torch.channels_last)
    if fabric is not None:
        stage.setup(fabric)
    average = EMA(stage.averaged, ema) if ema else None
    stage.ema = average.net if average else stage.averaged
    return average


def update(stage: Any, batch: Any, n: int, progress: float) -> dict[str, float]:
    """Step n (from 0) of the stage; what is wrong with numbers names the step."""
    try:
        return stage.update(batch, progress)
    except FloatingPointError as e:
        raise type(e)(f"step {n + 1}: {e}") from e


def checkpoint(stage: Any, logbook: Logbook | None, step: int) -> None:
    """Save all that continues bit for bit, where there is a folder and the state is a good one."""
    if logbook and getattr(stage, "healthy", True):
        nets = {"stage": stage.state_dict(), "ema": stage.ema.state_dict()}
        picture = getattr(stage, "picture", lambda: None)
        logbook.save({"step": step, **nets, "rng": torch.get_rng_state()}, picture)


def restore(
    stage: Any, state: dict[str, Any], out: str | Path | None, fabric: Any, seed: int
) -> int:
    """Bring the stage, its average and chance to a checkpoint's state; the steps done by then.

    Only one process on a CPU is promised to resume bit for bit: the others draw afresh.
    """
    try:
        stage.load_state_dict(state["stage"])
    except (RuntimeError, ValueError, KeyError) as e:
        raise ValueError(
            f"{out} holds a training of another net; choose another folder, or restart it "
            "(resume=False)"
        ) from e
    if stage.ema is not stage.averaged:
        stage.ema.load_state_dict(state["ema"])
    world, rank = processes(fabric)
    torch.manual_seed(seed + rank + world * state["step"])
    if rank == 0:
        torch.set_rng_state(state["rng"])
    return state["step"]
