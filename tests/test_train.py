"""What training promises: each net learns one batch, a resumed run equals an unbroken one bit for
bit, settings are checked.

Most runs here train one 1x1 convolution on numbers made from the step; the last test stops a real
`mtrestore train` with kill -9.
"""

import inspect
import json
import math
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from test_data import make_root

from mtrestore import cli, nets, weights
from mtrestore.training import batches as data
from mtrestore.training import fit as train
from mtrestore.training import settings as plan
from mtrestore.training import stages

SETTINGS = sorted((Path(__file__).parents[1] / "experiments/train").glob("*.yaml"))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def batches(step: int) -> data.Batch:
    """A small task that differs from step to step: make the picture darker."""
    x = noise(2, 3, 8, 8, seed=step)
    return {"inputs": (x,), "target": 0.5 * x + 0.1}


def stage(seed: int = 0, lr: float = 1e-2) -> stages.Supervised:
    torch.manual_seed(seed)
    return stages.Supervised(
        torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.LeakyReLU(), torch.nn.Conv2d(4, 3, 1)
        ),
        lr,
    )


def run(
    out: Path | None, steps: int = 7, stop: int | None = None, seed: int = 0, **options: object
) -> tuple[stages.Supervised, list[int]]:
    """(the stage after `stop` of `steps` steps, or after all; the numbers of the steps that were
    done).
    """
    options = {"save_every": 2, "ema": 0.9, **options}
    s, done = stage(seed), []
    for record in (records := train.fit(s, batches, steps, out, **options)):
        done.append(record.step)
        if record.step == stop:
            records.close()
            break
    return s, done


def state(s: stages.Supervised) -> dict[str, torch.Tensor]:
    """Everything that training changes, flat: weights, averaged weights, the optimiser's moments
    and steps.
    """
    moments = s.descent.adam.state_dict()["state"]
    return {
        **{f"net {k}": v for k, v in s.averaged.state_dict().items()},
        **{f"ema {k}": v for k, v in s.ema.state_dict().items()},
        **{f"adam {i} {k}": v for i, values in moments.items() for k, v in values.items()},
    }


def equal(a: stages.Supervised, b: stages.Supervised) -> bool:
    one, two = state(a), state(b)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def names(out: Path) -> list[str]:
    return sorted(p.name for p in (out / "checkpoints").iterdir())


# ---- learning ------------------------------------------------------------------------------------


def smooth(size: int) -> torch.Tensor:
    return F.interpolate(noise(2, 3, 4, 4), size=(size, size), mode="bicubic").clamp(0, 1)


def faded(size: int) -> torch.Tensor:
    return 0.6 * smooth(size) + 0.1


LESSONS = {
    "FaceNet": lambda: (nets.FaceNet("XS"), (faded(32),), smooth(32), 2e-3),
    "RestorerNet": lambda: (nets.RestorerNet((8, 16, 24)), (faded(32),), smooth(32), 2e-3),
    "GuidedUpsampler": lambda: (
        nets.GuidedUpsampler(width=8, blocks=1),
        (faded(16), 0.9 * smooth(16), faded(32)),
        smooth(32),
        5e-3,
    ),
    "Sharpener x1": lambda: (nets.Sharpener(1, 8, 1), (faded(32),), smooth(32), 4e-3),
    "Sharpener x2": lambda: (
        nets.Sharpener(2, 8, 1),
        (F.avg_pool2d(faded(32), 2),),
        smooth(32),
        4e-3,
    ),
    "LandmarkNet": lambda: (
        nets.LandmarkNet((4, 8, 8, 16, 16), 32),
        (noise(2, 3, 128, 128),),
        noise(1, 468, 2).repeat(2, 1, 1),
        5e-3,
    ),
}


@pytest.mark.parametrize("name", LESSONS)
def test_a_net_learns_one_batch(name):
    torch.manual_seed(0)
    net, inputs, target, lr = LESSONS[name]()
    s = stages.Supervised(
        net, lr, {"points": 1.0} if name == "LandmarkNet" else {"pixel": 1.0, "frequency": 0.1}
    )
    losses = [
        r.losses["loss"] for r in train.fit(s, lambda _: {"inputs": inputs, "target": target}, 40)
    ]
    assert losses[-1] < losses[0] / 1.7


def test_the_loss_is_the_weighted_sum_of_its_named_parts():
    s = stages.Supervised(torch.nn.Conv2d(3, 3, 1), weights={"pixel": 0.5, "frequency": 2.0})
    found = s.update(batches(0))
    assert found["loss"] == pytest.approx(0.5 * found["pixel"] + 2 * found["frequency"])


def test_losses_by_hand():
    x, y = noise(2, 3, 4, 4), noise(2, 3, 4, 4, seed=1)
    d = (x - y).double().numpy()
    assert stages.LOSSES["pixel"](x, y).item() == pytest.approx(
        np.sqrt(d**2 + 1e-6).mean(), rel=1e-5
    )
    spectrum = np.fft.rfft2(d, norm="ortho")
    assert stages.LOSSES["frequency"](x, y).item() == pytest.approx(
        (np.abs(spectrum.real) + np.abs(spectrum.imag)).mean() / 2, rel=1e-5
    )
    p, q = noise(2, 5, 2), noise(2, 5, 2, seed=1)
    assert stages.LOSSES["points"](p, q).item() == pytest.approx(
        np.linalg.norm((p - q).double().numpy(), axis=-1).mean(), rel=1e-4
    )


def test_an_unknown_loss_is_named():
    with pytest.raises(
        ValueError,
        match="weights must name losses out of pixel, frequency, points, same_person, got "
        "'perceptual'",
    ):
        stages.Supervised(torch.nn.Conv2d(3, 3, 1), weights={"perceptual": 1})


def test_the_learning_rate_warms_up_and_ends_at_zero():
    factors = [stages.cosine(p) for p in np.linspace(0, 1, 201)]
    top = factors.index(max(factors))
    assert 0 < factors[0] < 0.1 and factors[top] == 1 and top == 4 and abs(factors[-1]) < 1e-12
    assert factors[: top + 1] == sorted(factors[: top + 1]) and factors[top:] == sorted(
        factors[top:], reverse=True
    )


def test_the_learning_rate_follows_the_schedule_to_the_last_step():
    s, rates = stage(), []
    for _ in train.fit(s, batches, 10):
        rates.append(s.descent.adam.param_groups[0]["lr"] / s.descent.rates[0])
    assert rates == pytest.approx([stages.cosine(n / 10) for n in range(10)]) and rates[-1] < 0.05


@pytest.mark.parametrize("schedule", [20, 5])
def test_a_schedule_may_be_longer_or_shorter_than_the_run(schedule):
    s, rates = stage(), []
    for _ in train.fit(s, batches, 10, schedule=schedule):
        rates.append(s.descent.adam.param_groups[0]["lr"] / s.descent.rates[0])
    assert rates == pytest.approx([stages.cosine(min(n / schedule, 1)) for n in range(10)])
    assert rates[-1] > 0.5 if schedule == 20 else rates[5:] == [0] * 5


def test_fabric_on_a_cpu_changes_nothing():
    from lightning_fabric import Fabric

    plain, _ = run(None, steps=3)
    s = stage()
    list(train.fit(s, batches, 3, ema=0.9, fabric=Fabric(accelerator="cpu", devices=1)))
    assert equal(plain, s)


# ---- averaging -----------------------------------------------------------------------------------


def test_the_average_follows_by_its_formula():
    s, mean, seen = stage(), None, []
    for record in train.fit(s, batches, 12, ema=0.5):
        new = s.averaged[0].weight.detach().double().clone()
        n = record.step - 1
        decay = min(0.5, (1 + n) / (10 + n))
        mean = (
            new * (1 - decay)
            + (stage().averaged[0].weight.detach().double() if mean is None else mean) * decay
        )
        seen.append(float((s.ema[0].weight.double() - mean).abs().max()))
    assert max(seen) < 1e-6 and decay == 0.5
    assert not torch.allclose(s.ema[0].weight, s.averaged[0].weight, atol=1e-4)


def test_without_averaging_the_net_itself_is_what_is_kept():
    s, _ = run(None, steps=2, ema=0)
    assert s.ema is s.averaged


def test_buffers_that_are_no_floats_are_copied():
    average = train.EMA(torch.nn.BatchNorm2d(2))
    average.update(torch.nn.BatchNorm2d(2).train(), 0)
    net = torch.nn.BatchNorm2d(2)
    net(noise(1, 2, 3, 3))
    average.update(net, 1)
    assert int(average.net.num_batches_tracked) == 1


# ---- stopping and resuming -----------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 2, 3, 6])
def test_a_run_that_was_left_and_resumed_equals_an_unbroken_one(tmp_path, stop):
    whole, _ = run(tmp_path / "whole")
    run(tmp_path / "parts", stop=stop)
    resumed, done = run(tmp_path / "parts", seed=9)
    assert done == list(range(stop + 1, 8)) and equal(whole, resumed)


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(tmp_path, stop):
    """Killed: the folder as it is after `stop` steps, without what a run that is left in good order
    still writes.
    """
    whole, _ = run(tmp_path / "whole")
    records = train.fit(stage(), batches, 7, tmp_path / "first", save_every=2, ema=0.9)
    assert [next(records).step for _ in range(stop)][-1] == stop
    shutil.copytree(tmp_path / "first", tmp_path / "parts")
    resumed, done = run(tmp_path / "parts")
    assert done == list(range(stop // 2 * 2 + 1, 8)) and equal(whole, resumed)


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "flipped"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, capsys, damage):
    whole, _ = run(tmp_path / "whole")
    saved, _ = run(tmp_path / "parts", stop=6)
    newest = tmp_path / "parts/checkpoints/step-00000006.pt"
    content = newest.read_bytes()
    at = content.index(saved.averaged[0].bias.detach().numpy().tobytes())
    flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    newest.write_bytes(
        {
            "truncated": content[: len(content) // 2],
            "empty": b"",
            "garbage": b"\x7f" * 999,
            "flipped": flipped,
        }[damage]
    )
    resumed, done = run(tmp_path / "parts", seed=9)
    assert done == [5, 6, 7] and equal(whole, resumed)
    assert "step-00000006.pt cannot be read" in capsys.readouterr().out


def test_a_flipped_bit_in_a_checkpoint_is_found_or_harmless(tmp_path, capsys):
    def plain(x: object) -> object:
        return (
            {k: plain(v) for k, v in x.items()}
            if isinstance(x, dict)
            else x.tolist()
            if isinstance(x, torch.Tensor)
            else x
        )

    run(tmp_path, steps=2)
    (newest,) = (tmp_path / "checkpoints").iterdir()
    content, whole = newest.read_bytes(), plain(train.newest_checkpoint(newest.parent))
    found = 0
    for bit in np.random.default_rng(0).integers(8 * len(content), size=100).tolist():
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        newest.write_bytes(bytes(damaged))
        loaded = train.newest_checkpoint(newest.parent)
        found += loaded is None
        assert loaded is None or plain(loaded) == whole
    assert found > 30, "the rest lies in padding and in names that nobody reads"


def test_when_no_checkpoint_can_be_read_the_run_begins_again_and_keeps_what_it_saves(tmp_path):
    whole, _ = run(tmp_path / "whole")
    run(tmp_path / "parts", stop=6)
    for file in (tmp_path / "parts/checkpoints").iterdir():
        file.write_bytes(b"")
    assert run(tmp_path / "parts", stop=3)[1] == [1, 2, 3]
    assert names(tmp_path / "parts") == ["step-00000002.pt", "step-00000003.pt"], (
        "the unreadable ones are not kept in their stead"
    )
    resumed, done = run(tmp_path / "parts")
    assert done == [4, 5, 6, 7] and equal(whole, resumed)


def test_a_restarted_run_forgets_the_old_one(tmp_path):
    run(tmp_path)
    run(tmp_path, stop=2, resume=False)
    assert names(tmp_path) == ["step-00000002.pt"]
    assert run(tmp_path)[1] == [3, 4, 5, 6, 7]


def test_a_checkpoint_of_another_net_is_an_error_in_one_sentence(tmp_path):
    run(tmp_path, stop=2)
    other = stages.Supervised(torch.nn.Conv2d(3, 3, 1))
    with pytest.raises(
        ValueError, match="holds a training of another net; choose another folder"
    ) as caught:
        next(train.fit(other, batches, 7, tmp_path))
    assert "\n" not in str(caught.value)


def test_a_finished_run_does_nothing_more(tmp_path):
    whole, _ = run(tmp_path)
    again, done = run(tmp_path, seed=9)
    assert done == [] and equal(whole, again)


def test_the_two_newest_checkpoints_are_kept_and_nothing_else(tmp_path):
    run(tmp_path)
    assert names(tmp_path) == ["step-00000006.pt", "step-00000007.pt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "log.jsonl"]


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_step_waits_for_the_steps_end(tmp_path, number):
    whole, _ = run(tmp_path / "whole")
    s, before = stage(), {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    step = s.descent.adam.step

    def interrupted() -> None:
        signal.raise_signal(number)  # after the gradients, before the weights
        step()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a background job starts with it ignored
    try:
        records = train.fit(s, batches, 7, tmp_path / "parts", save_every=2, ema=0.9)
        assert [next(records).step for _ in range(3)] == [1, 2, 3]
        s.descent.adam.step = interrupted
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
            next(records)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    assert names(tmp_path / "parts")[-1] == "step-00000004.pt"
    resumed, done = run(tmp_path / "parts")
    assert done == [5, 6, 7] and equal(whole, resumed)


def test_training_runs_in_a_thread_too():
    found = []
    thread = threading.Thread(target=lambda: found.append(run(None)))
    thread.start()
    thread.join()
    assert equal(found[0][0], run(None)[0])


# ---- faults --------------------------------------------------------------------------------------


def poisoned(step: int) -> data.Batch:
    batch = batches(step)
    return {**batch, "target": batch["target"] * float("nan")} if step == 3 else batch


def test_a_loss_that_is_not_finite_stops_before_any_weight_is_touched(tmp_path):
    s = stage()
    with pytest.raises(
        FloatingPointError, match="^step 4: the loss is nan; try a smaller learning rate than 0.01"
    ):
        list(train.fit(s, poisoned, 7, tmp_path, save_every=100, ema=0.9))
    good, _ = run(None, stop=3)
    assert equal(s, good)
    assert names(tmp_path) == ["step-00000003.pt"]
    assert run(tmp_path)[1] == [4, 5, 6, 7], "the last good state was saved"


def test_a_gradient_that_is_not_finite_stops_before_any_weight_is_touched():
    s = stage()
    list(train.fit(s, batches, 2))
    before = {k: v.clone() for k, v in state(s).items()}
    s.terms["pixel"] = lambda out, _: (
        (out * 0).abs().sqrt().sum()
    )  # the loss is 0, its slope is not a number
    with pytest.raises(
        FloatingPointError, match="the gradient is nan; try a smaller learning rate"
    ):
        s.update(batches(2))
    assert all(torch.equal(v, before[k]) for k, v in state(s).items())


def test_a_batch_that_fails_leaves_the_steps_before_it(tmp_path):
    def failing(step: int) -> data.Batch:
        if step == 3:
            raise OSError("the disk is gone")
        return batches(step)

    with pytest.raises(OSError, match="the disk is gone"):
        list(train.fit(stage(), failing, 7, tmp_path, save_every=100, workers=1))
    assert names(tmp_path) == ["step-00000003.pt"]


# ---- batches made ahead --------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(("start", "stop"), [(0, 7), (4, 6), (5, 5), (7, 3)])
def test_batches_come_in_order_and_each_once(workers, start, stop):
    made = []

    def slow_first(n: int) -> int:
        time.sleep(0.01 * (n % 2 == 0))
        made.append(n)
        return n * n

    assert list(train.prefetch(slow_first, start, stop, workers)) == [
        (n, n * n) for n in range(start, stop)
    ]
    assert sorted(made) == list(range(start, stop))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_no_more_batches_are_made_ahead_than_workers(workers):
    made = []
    taken = train.prefetch(lambda n: made.append(n), 0, 100, workers)
    for _ in range(4):
        next(taken)
    taken.close()
    assert set(range(4)) <= set(made) and len(made) <= 4 + workers


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_no_bit(workers):
    assert equal(run(None)[0], run(None, workers=workers)[0])


# ---- the log -------------------------------------------------------------------------------------


def logged(out: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_log_has_every_twentieth_step_and_the_last(tmp_path):
    run(tmp_path, steps=45)
    assert logged(tmp_path) == [20, 40, 45]
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert first.keys() == {"step", "losses", "seconds", "rate"} and math.isfinite(
        first["losses"]["pixel"]
    )


@pytest.mark.parametrize(
    "tail",
    ["", '{"step": 9, "losses": {"loss": 1}', "\0\0\0", '{"n": 1}'],
    ids=["whole", "torn", "zeros", "other"],
)
def test_after_a_resume_no_step_is_logged_twice(tmp_path, tail):
    records = train.fit(stage(), batches, 45, tmp_path / "first", save_every=15)
    for _ in range(42):
        next(records)
    assert logged(tmp_path / "first") == [20, 40]
    shutil.copytree(tmp_path / "first", tmp_path / "parts")
    with (tmp_path / "parts/log.jsonl").open("a") as file:
        file.write(tail)
    assert run(tmp_path / "parts", steps=45)[1][0] == 31
    assert logged(tmp_path / "parts") == [20, 40, 45]


def test_a_restarted_run_begins_a_new_log(tmp_path):
    run(tmp_path, steps=10)
    run(tmp_path, steps=25, resume=False)
    assert logged(tmp_path) == [20, 25]


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stage: face\nsteps: 5\nlr: 1", "unknown setting 'lr'; known are batches, critic, ema"),
        ("stage: face\nsteps: 5\n3: 1", "'3' is no name"),
        (
            "stage: dreams\nsteps: 5",
            "trains 'dreams', expected prior or restoration or face or landmarks or embedding or "
            "restorer or refiner or sharpener",
        ),
        ("stage: [face]\nsteps: 5", r"trains \['face'\], expected prior or"),
        ("stage: face", "must be a mapping with at least stage and steps"),
        ("- face\n- 5", "must be a mapping with at least stage and steps"),
        ("", "must be a mapping with at least stage and steps"),
        ("stage: face\nsteps: 0", "steps must be a whole number from 1 up, got 0"),
        ("stage: face\nsteps: -3", "steps must be a whole number from 1 up, got -3"),
        ("stage: face\nsteps: many", "steps must be a whole number from 1 up, got 'many'"),
        ("stage: face\nsteps: 1.5", "steps must be a whole number from 1 up, got 1.5"),
        ("stage: face\nsteps: true", "steps must be a whole number from 1 up, got True"),
        ("stage: face\nsteps: 5\nseed: -1", "seed must be a whole number from 0 up, got -1"),
        (
            "stage: face\nsteps: 5\nschedule: long",
            "schedule must be a whole number from 1 up, got 'long'",
        ),
        (
            "stage: face\nsteps: 5\nsave_every: 0",
            "save_every must be a whole number from 1 up, got 0",
        ),
        ("stage: face\nsteps: 5\nnet: S", "net must be a mapping of options, got 'S'"),
        ("stage: face\nsteps: 5\nbatches:", "batches must be a mapping of options, got None"),
        (
            "stage: face\nsteps: 5\ncritic: a.safetensors",
            "critic is for prior or restoration, not for face",
        ),
        (
            "stage: refiner\nsteps: 5\nprior: a.safetensors",
            "prior is for restoration or face, not for refiner",
        ),
        ("stage: {face", "is not YAML"),
        ("a: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("[" * 700, "is not YAML"),
        ("\x00\x01", "is not YAML"),
    ],
)
def test_settings_that_are_wrong_are_named_in_one_line(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        plan.read_settings(path)
    assert "mine.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_settings_of_another_stage_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("stage: face\nsteps: 5\n")
    assert plan.read_settings(tmp_path / "a.yaml", "face") == {"stage": "face", "steps": 5}
    with pytest.raises(ValueError, match="trains 'face', expected restorer"):
        plan.read_settings(tmp_path / "a.yaml", "restorer")


def test_settings_that_are_missing_are_named(tmp_path):
    with pytest.raises(ValueError, match="nothing.yaml"):
        plan.read_settings(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"net": {"depth": 3}}, "FaceNet cannot be made with {depth: 3}: .*unexpected keyword"),
        ({"net": {"join": "cat"}}, "join must be one of"),
        ({"train": {"rate": 1}}, "Supervised cannot be made with {rate: 1}"),
        ({"train": {"weights": {"charm": 1}}}, "weights must name losses"),
        ({"batches": {"colour": 1}}, "FaceBatches cannot be made with {seed: 0, colour: 1}"),
    ],
    ids=["net", "join", "train", "loss", "batches"],
)
def test_options_that_a_part_does_not_take_are_named(data_root, tmp_path, part, message):
    settings = {
        "stage": "face",
        "steps": 1,
        "net": {"widths": "XS"},
        "batches": {"sizes": [32], "batch": 2},
        **part,
    }
    with pytest.raises(ValueError, match=message):
        next(plan.run(settings, data_root, tmp_path))


HUGE = [
    ("steps: 1000000000000", "steps must be at most 100,000,000"),
    ("steps: 1" + "0" * 400, "steps must be at most 100,000,000"),
    ("schedule: 1000000000000", "schedule must be at most"),
    ("save_every: 1000000000000", "save_every must be at most"),
    ("seed: 9223372036854775808", "seed must be at most 9,223,372,036,854,775,807"),
    ("ema: 1.0e+300", "ema must be a number from 0 to 1"),
    ("ema: .nan", "ema must be a number from 0 to 1"),
    ("net: {widths: [8, 16, 24, 32, 48, 100000]}", "net: widths must hold finite numbers up to"),
    ("net: {widths: [8, 16, 24, 32, 48, 2049]}", "net: widths must be a number up to 2048"),
    ("batches: {batch: 1000000000}", "batches: batch must hold finite numbers up to 4096"),
    ("batches: {sizes: [1000000000]}", "batches: sizes must hold finite numbers up to 4096"),
    ("batches: {sizes: [4096], batch: 4096}", "a batch has more than 67,108,864 pixels"),
    ("batches: {sharpness: .inf}", "batches: sharpness must hold finite numbers"),
    ("batches: {sizes: [" + "64, " * 999 + "]}", "batches: sizes must hold finite numbers"),
    ("train: {accumulate: 1000000000}", "train: accumulate must hold finite numbers up to 4096"),
    ("train: {weights: {pixel: 1.0e+300}}", "train: weights must hold finite numbers"),
    ("train: {lr: .nan}", "train: lr must hold finite numbers"),
]


@pytest.mark.parametrize(("text", "message"), HUGE, ids=lambda v: v[:30])
def test_settings_with_huge_numbers_are_one_line_before_anything_is_made(tmp_path, text, message):
    steps = "" if text.startswith("steps") else "steps: 5\n"
    (tmp_path / "a.yaml").write_text(f"stage: face\n{steps}{text}\n")
    with pytest.raises(ValueError) as e:
        plan.read_settings(tmp_path / "a.yaml")
    assert message in str(e.value) and "\n" not in str(e.value) and len(str(e.value)) < 300


@pytest.mark.parametrize(
    ("stage", "net", "message"),
    [
        ("face", {"widths": [2048] * 6}, "has [0-9,]+ parameters, more than a weights file holds"),
        ("sharpener", {"width": 2048, "blocks": 3}, "more than a weights file holds"),
        ("restorer", {"widths": [8] * 8, "blocks": 2048}, "has more tensors than the 2048"),
        ("refiner", {"width": 4, "blocks": 2048}, "has more tensors than the 2048"),
    ],
)
def test_a_net_too_large_for_its_weights_file_is_not_trained(stage, net, message):
    with pytest.raises(ValueError, match=message):
        plan.make_stage({"stage": stage, "net": net})


@pytest.mark.parametrize(
    "batches", [{"batch": "16"}, {"batch": 2.5}, {"sizes": 64}, {"sizes": ["64"]}, {"batch": True}]
)
def test_an_option_of_another_kind_is_named(data_root, tmp_path, batches):
    settings = {"stage": "face", "steps": 1, "net": {"widths": "XS"}, "batches": batches}
    with pytest.raises(ValueError, match=f"FaceBatches: {min(batches)} must be like"):
        next(plan.run(settings, data_root, tmp_path))


@pytest.mark.parametrize("path", SETTINGS, ids=lambda p: p.stem)
def test_committed_settings_can_be_trained(path):
    settings = plan.read_settings(path)
    started = {
        k: v for k, v in settings.items() if k not in ("init", "prior", "critic")
    }  # files of trainings before it
    assert isinstance(plan.make_stage(started), plan.STAGES[settings["stage"]][1])
    kind = {
        "landmarks": data.LandmarkBatches,
        "restorer": data.PhotoBatches,
        "refiner": data.UpsamplerBatches,
        "sharpener": data.SharpenerBatches,
        "embedding": data.PersonBatches,
    }.get(settings["stage"], data.FaceBatches)
    options = settings.get("batches", {}).keys() - {
        "folders"
    }  # which data folders: the settings' own
    assert options <= inspect.signature(kind).parameters.keys()
    assert str(settings.get("weights", ".safetensors")).endswith(".safetensors")


def test_there_are_settings_for_every_stage():
    assert {plan.read_settings(path)["stage"] for path in SETTINGS} == set(plan.STAGES)


def test_the_command_trains_every_stage():
    choices = next(
        a.choices
        for a in cli.parser()._subparsers._group_actions[0].choices["train"]._actions
        if a.dest == "stage"
    )
    assert set(choices) == set(plan.STAGES)


# ---- from settings to weights --------------------------------------------------------------------


@pytest.fixture(scope="module")
def data_root(tmp_path_factory, _astronaut) -> Path:
    return make_root(tmp_path_factory.mktemp("data"), _astronaut)


STAGES = {
    "face": {"net": {"widths": "XS"}, "batches": {"sizes": [32], "batch": 2}},
    "restorer": {"net": {"widths": [4, 4]}, "batches": {"size": 16, "batch": 2}},
    "refiner": {"net": {"width": 4, "blocks": 1}, "batches": {"small": 16, "batch": 2, "most": 64}},
    "sharpener": {
        "net": {"scale": 2, "width": 4, "blocks": 1},
        "batches": {"size": 16, "batch": 2},
    },
    "landmarks": {
        "net": {"widths": [4, 4, 4, 4, 4], "hidden": 8},
        "batches": {"batch": 2},
        "train": {"weights": {"points": 1.0}},
    },
    "embedding": {
        "net": {"widths": [8, 8, 8, 8, 8], "out": 4},
        "batches": {"batch": 2},
        "train": {"weights": {"same_person": 1.0}},
    },
    "prior": {"net": {"widths": [4, 4, 8, 8, 8, 8]}, "batches": {"sizes": [32], "batch": 2}},
    "restoration": {"net": {"widths": [4, 4, 8, 8, 8, 8]}, "batches": {"sizes": [32], "batch": 2}},
}


@pytest.mark.parametrize("name", STAGES)
def test_settings_become_weights(data_root, tmp_path, name):
    settings = {"stage": name, "steps": 2, **STAGES[name]}
    if name == "refiner":
        settings["restorer"] = str(
            weights.save(nets.RestorerNet((4, 4)), tmp_path / "restorer.safetensors")
        )
    assert [r.step for r in plan.run(settings, data_root, tmp_path / "out")] == [1, 2]
    net = weights.load(tmp_path / f"out/{name}.safetensors", plan.STAGES[name][0])
    assert net.notes["settings"] == settings and net.notes["steps"] == 2
    average = train.newest_checkpoint(tmp_path / "out/checkpoints")["ema"]
    assert all(torch.equal(v, average[k].half().float()) for k, v in net.state_dict().items()), (
        "the averaged weights are shipped"
    )


def test_a_training_can_begin_from_weights(data_root, tmp_path):
    first = weights.save(
        nets.FaceNet("XS", residual=True), tmp_path / "first.safetensors", torch.float32
    )
    settings = {
        "stage": "face",
        "steps": 1,
        "init": str(first),
        "train": {"lr": 1e-9},
        **STAGES["face"],
    }
    list(plan.run(settings, data_root, tmp_path))
    found = weights.load(tmp_path / "face.safetensors")
    assert all(
        torch.allclose(v, found.state_dict()[k], atol=1e-3)
        for k, v in weights.load(first).state_dict().items()
    )


def test_the_landmark_net_begins_at_the_mean_face(data_root, tmp_path):
    settings = {"stage": "landmarks", "steps": 1, **STAGES["landmarks"]}
    list(plan.run(settings, data_root, tmp_path))
    mean = data.LandmarkBatches(data_root / "train_faces").mean
    assert np.abs(weights.load(tmp_path / "landmarks.safetensors").mean.numpy() - mean).max() < 1e-3


def command(
    tmp_path: Path, data_root: Path, out: Path, *more: str, stage: str = "landmarks"
) -> list[str]:
    settings = tmp_path / "small.yaml"
    settings.write_text(
        yaml.safe_dump({"stage": stage, "steps": 8, "save_every": 3, "seed": 4, **STAGES[stage]})
    )
    return [
        "train",
        stage,
        "--settings",
        str(settings),
        "--data",
        str(data_root),
        "--out",
        str(out),
        "--threads",
        "1",
        *more,
    ]


@pytest.mark.parametrize("steps", ["0", "-1"])
def test_the_command_refuses_steps_below_one(data_root, tmp_path, capsys, steps):
    assert cli.main(command(tmp_path, data_root, tmp_path / "out", "--steps", steps)) == 1
    assert (
        "--steps must be at least 1" in capsys.readouterr().err and not (tmp_path / "out").exists()
    )


def test_the_command_says_which_folder_it_needs(data_root, tmp_path, capsys):
    words = command(tmp_path, data_root, tmp_path / "out")
    place = words.index("--data")
    assert cli.main(words[:place] + words[place + 2 :]) == 1
    assert capsys.readouterr().err == (
        "mtrestore: train needs --data FOLDER, "
        "the folder that holds train_faces/ or train_photos/\n"
    )
    assert not (tmp_path / "out").exists()


def test_weights_of_others_are_replaced_only_when_asked(data_root, tmp_path, monkeypatch, capsys):
    """Said before any step; a training that is done again replaces its own."""
    monkeypatch.chdir(tmp_path)
    train = ["train", "face", "--settings", "a.yaml", "--data", str(data_root)]
    text = "stage: face\nnet: {widths: [4, 4, 4, 4, 4, 4]}\nbatches: {sizes: [32], batch: 2}\n"
    Path("a.yaml").write_text(text + "steps: 1\nweights: mine.safetensors\n")
    Path("mine.safetensors").write_text("mine")
    assert cli.main(train) == 1 and Path("mine.safetensors").read_text() == "mine"
    assert "mine.safetensors exists already" in capsys.readouterr().err
    assert cli.main([*train, "--overwrite"]) == 0
    first = Path("mine.safetensors").read_bytes()
    assert cli.main([*train, "--restart", "--steps", "2"]) == 0
    assert Path("mine.safetensors").read_bytes() != first
    Path("a.yaml").write_text(text + "seed: 3\nsteps: 1\nweights: mine.safetensors\n")
    assert cli.main([*train, "--restart"]) == 1
    Path("a.yaml").write_text(text + "steps: 1\nweights: a.yaml\n")
    assert cli.main([*train, "--restart", "--overwrite"]) == 1
    Path("b.safetensors").write_bytes(first)
    Path("a.yaml").write_text(text + "steps: 1\ninit: b.safetensors\nweights: ./b.safetensors\n")
    assert cli.main([*train, "--restart", "--overwrite"]) == 1
    assert "the weights of init" in capsys.readouterr().err
    assert Path("b.safetensors").read_bytes() == first


def test_the_command_shows_the_step_it_is_at(data_root, tmp_path, capsys):
    assert (
        cli.main(command(tmp_path, data_root, tmp_path / "out", "--every", "0", "--workers", "0"))
        == 0
    )
    printed = capsys.readouterr()
    assert " 8/8 " in printed.err and "landmarks: 8 steps done" in printed.out
    assert ", loss=" in printed.err.split("\r")[-1]


def test_the_progress_line_of_a_gan_names_its_losses(data_root, tmp_path, capsys):
    arguments = command(
        tmp_path,
        data_root,
        tmp_path / "out",
        "--every",
        "0",
        "--workers",
        "0",
        "--steps",
        "2",
        stage="restoration",
    )
    assert cli.main(arguments) == 0
    last = capsys.readouterr().err.split("\r")[-1]
    assert all(
        f"{name}=0." in last or f"{name}=1." in last
        for name in ("loss", "pixel", "critic", "balance")
    )


def test_the_command_runs_one_process_for_each_device(data_root, tmp_path):
    arguments = command(
        tmp_path, data_root, tmp_path / "out", "--devices", "2", "--workers", "0", "--steps", "3"
    )
    program = [sys.executable, "-m", "mtrestore", *arguments]
    done = subprocess.run(
        program, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "MEMBER: 1/2" in done.stderr and "MEMBER: 2/2" in done.stderr
    assert done.stdout.count("landmarks: 3 steps done") == 1 and " 3/3 " in done.stderr, (
        "one of them tells"
    )
    assert (
        weights.load(tmp_path / "out/landmarks.safetensors", nets.LandmarkNet).notes["steps"] == 3
    )
    assert logged(tmp_path / "out") == [3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--devices", "0"], "--devices must be at least 1"),
        (["--device", "tpu"], "--device tpu --devices 1"),
    ],
)
def test_devices_that_cannot_be_are_named_in_one_line(
    data_root, tmp_path, capsys, options, message
):
    assert cli.main(command(tmp_path, data_root, tmp_path / "out", *options)) == 1
    printed = capsys.readouterr().err.strip()
    assert message in printed and "\n" not in printed


# Blocks for ever at one point, having told so by a file; the parent then kills it there.
CHILD = """
import os, sys, time
from pathlib import Path
from mtrestore import cli, data

def stay(where):
    Path(sys.argv[1]).touch()
    time.sleep(600)

if sys.argv[2] == "batch":  # between two checkpoints, with steps that are in none
    make = data.LandmarkBatches.__call__
    data.LandmarkBatches.__call__ = lambda self, n: stay(n) if n == 5 else make(self, n)
else:  # half-way through the second checkpoint: it is written under its temporary name alone
    replace = os.replace
    os.replace = lambda a, b: stay(b) if str(b).endswith("step-00000006.pt") else replace(a, b)
sys.exit(cli.main(sys.argv[3:]))
"""


def kill_at(point: str, marker: Path, arguments: list[str]) -> None:
    program = [sys.executable, "-c", CHILD, str(marker), point, *arguments]
    child = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not marker.exists():
            assert child.poll() is None, (
                "the child ended before it reached the point where it is to be killed"
            )
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()


def test_a_run_that_is_killed_twice_ends_in_the_same_file(data_root, tmp_path):
    assert cli.main(command(tmp_path, data_root, tmp_path / "whole")) == 0
    arguments = command(tmp_path, data_root, tmp_path / "parts")
    kill_at("batch", tmp_path / "first", [*arguments, "--workers", "0"])
    assert names(tmp_path / "parts") == ["step-00000003.pt"]
    kill_at("checkpoint", tmp_path / "second", arguments)
    assert [n for n in names(tmp_path / "parts") if n.startswith("step")] == ["step-00000003.pt"]
    assert len(names(tmp_path / "parts")) == 2, "killed while a temporary file was there"
    assert cli.main(arguments) == 0
    whole, parts = (
        (tmp_path / d / "landmarks.safetensors").read_bytes() for d in ("whole", "parts")
    )
    assert whole == parts
