"""What the stages promise: fresh random tensors, losses as published, an adversary that is kept in
check, and no work that is lost.

Nets of four to eight channels at 32 px, a few steps each. Losses are held against numpy, resumed
runs against unbroken ones.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_data import make_root, mesh

from mtrestore import image, nets, weights
from mtrestore.training import batches as data
from mtrestore.training import fit as train
from mtrestore.training import losses, stages
from mtrestore.training import settings as plan

WIDTHS = (4, 4, 8, 8, 8, 8)
HERE = Path(__file__).parent


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def batches(step: int, count: int = 2, size: int = 32) -> data.Batch:
    """Soft clouds, and the same darker: other ones at every step."""
    truth = F.interpolate(
        noise(count, 3, 4, 4, seed=step), (size, size), mode="bicubic", align_corners=False
    ).clamp(0, 1)
    return {"inputs": (0.6 * truth + 0.1,), "target": truth}


def supervised(seed: int = 0, **options: object) -> stages.Supervised:
    torch.manual_seed(seed)
    return stages.Supervised(nets.FaceNet(WIDTHS), **options)


def prior(seed: int = 0, **options: object) -> stages.GanPrior:
    torch.manual_seed(seed)
    return stages.GanPrior(nets.Generator(WIDTHS), WIDTHS, **options)


def restoration(
    seed: int = 0, ready: bool = True, residual: bool = True, **options: object
) -> stages.FaceRestoration:
    """By default one whose discriminator is ready, so that every loss takes part."""
    torch.manual_seed(seed)
    stage = stages.FaceRestoration(nets.FaceNet(WIDTHS, residual=residual), WIDTHS, **options)
    stage.adversary.watch["ready"] = int(ready)
    return stage


def drawing(seed: int = 0, **options: object) -> stages.GanPrior:
    """The prior that draws: synthesis decoder, hinge loss, a discriminator that redraws,
    augmentation that adapts.
    """
    torch.manual_seed(seed)
    net = nets.Generator(WIDTHS, decoder="synthesis")
    chosen = {
        "hinge": True,
        "r1": 0,
        "chance": 0.3,
        "target": 0.6,
        "betas": (0.5, 0.999),
        **options,
    }
    return stages.GanPrior(net, WIDTHS, **chosen)


def labelled(step: int, count: int = 2, size: int = 64) -> data.Batch:
    """Batches whose faces have landmarks and blurs: sharp and much blurred in turn."""
    points = torch.from_numpy(np.float32(0.5 + mesh()[0] * [0.9, 0.8])).expand(count, -1, -1)
    blur = torch.tensor([0.5, 9.0]).repeat(count)[:count]
    return batches(step, count, size) | {"points": points, "blur": blur}


EVERY = {
    "features": 0.1,
    "adversarial": 0.1,
    "ldl": 1.0,
    "landmarks": 0.1,
    "parts": 0.1,
    "gram": 1.0,
}


def joint(seed: int = 0, **options: object) -> stages.FaceRestoration:
    """The joint stage with everything that needs no extra: drawing decoder, parts, landmarks,
    artefacts, noise in the skips.
    """
    torch.manual_seed(seed)
    net = nets.FaceNet(WIDTHS, decoder="synthesis")
    small = nets.LandmarkNet(widths=(4, 4, 8, 8, 8), hidden=8).eval().requires_grad_(False)
    chosen = {"weights": EVERY, "judges": {"landmarks": small}, "noise": 0.5, "r1": 0, **options}
    stage = stages.FaceRestoration(net, nets.SpectralCritic(WIDTHS), **chosen)
    stage.ema = net
    return stage


GANS = {"prior": prior, "drawing": drawing, "restoration": restoration}
ALL = {"supervised": supervised, **GANS}


def state(stage: object) -> dict[str, torch.Tensor]:
    """Everything that training changes, flat: both nets, the averaged one, both optimisers,
    counters.
    """

    def flat(x: object, name: str) -> dict[str, torch.Tensor]:
        if isinstance(x, dict):
            return {
                k: v for key, value in x.items() for k, v in flat(value, f"{name} {key}").items()
            }
        return {name: x if isinstance(x, torch.Tensor) else torch.tensor(x)}

    known = stage.state_dict()
    adversaries = [known.get("adversary", {}), *known.get("parts", {}).values()]
    for optimizer in (known["optimizer"], *(a.get("optimizer", {}) for a in adversaries)):
        optimizer.pop("param_groups", None)
    return flat({**known, "ema": stage.ema.state_dict()}, "")


def equal(a: object, b: object, within: float = 0.0) -> bool:
    one, two = state(a), state(b)
    return one.keys() == two.keys() and all(
        torch.allclose(one[k].double(), two[k].double(), rtol=0, atol=within) for k in one
    )


def run(
    stage: object,
    out: Path | None,
    steps: int = 6,
    stop: int | None = None,
    batches: Callable = batches,
    **options: object,
) -> list[int]:
    """The numbers of the steps that were done, `stop` of `steps` of them or all."""
    done = []
    for record in (
        records := train.fit(stage, batches, steps, out, **{"save_every": 2, "ema": 0.9, **options})
    ):
        done.append(record.step)
        if record.step == stop:
            records.close()
            break
    return done


def names(out: Path) -> list[str]:
    return sorted(p.name for p in (out / "checkpoints").iterdir())


# ---- the generator -------------------------------------------------------------------------------


def test_every_iteration_draws_fresh_tensors_of_every_joins_shape():
    stage, seen = prior(), []
    stage.averaged.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for step in range(2):
        stage.update(batches(step))
    one, two = seen
    assert [tuple(x.shape) for x in one] == stage.averaged.decoder.shapes(2, 32) and one[-1].shape[
        2:
    ] == (1, 1)
    for a, b in zip(one, two, strict=True):
        assert not (a == b).any(), "another iteration, another tensor"
        assert not (a[0] == a[1]).any(), "another sample, another tensor"
    drawn = torch.cat([x.flatten() for x in (*one, *two)])
    assert abs(drawn.mean()) < 0.03 and drawn.std().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("level", range(6))
def test_every_tensor_that_is_drawn_changes_the_picture(level):
    generator = prior().averaged
    drawn = generator.draw(1, 64, torch.Generator().manual_seed(0))
    before = generator(drawn)
    drawn[level] = generator.draw(1, 64, torch.Generator().manual_seed(1))[level]
    assert (generator(drawn) - before).abs().max() > 1e-3


def test_no_constant_is_left_in_the_generator():
    """Every parameter belongs to a convolution, and without input a fresh one makes nothing: there
    is no learned constant.
    """
    generator = prior().averaged
    ours = {
        id(p) for m in generator.modules() if isinstance(m, torch.nn.Conv2d) for p in m.parameters()
    }
    assert ours == {id(p) for p in generator.parameters()} and not list(generator.buffers())
    assert torch.equal(
        generator([0 * x for x in generator.draw(1, 32)]), torch.full((1, 3, 32, 32), 0.5)
    )


def test_a_draw_with_a_generator_can_be_repeated():
    one, two = (prior().averaged.draw(2, 32, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("residual", [True, False])
def test_the_face_net_takes_the_generators_decoder(residual):
    generator, net = prior().averaged, nets.FaceNet(WIDTHS, residual=residual)
    net.take(generator)
    theirs = generator.decoder.state_dict()
    for key, value in net.decoder.state_dict().items():
        assert torch.equal(
            value, 0 * value if residual and key.startswith("to_rgb") else theirs[key]
        )
    if residual:
        x = noise(1, 3, 32, 32)
        assert torch.equal(net(x), x), "a residual net still begins at the identity"


# ---- losses --------------------------------------------------------------------------------------


def test_adversarial_losses_by_hand():
    verdicts = [noise(4, 1, 1, 1) * 8 - 4, noise(4, 1, 5, 5, seed=1) * 8 - 4]
    by_hand = [v.double().numpy() for v in verdicts]
    assert losses.real(verdicts).item() == pytest.approx(
        sum(-np.log(1 / (1 + np.exp(-v))).mean() for v in by_hand), rel=1e-5
    )
    assert losses.fake(verdicts).item() == pytest.approx(
        sum(-np.log(1 - 1 / (1 + np.exp(-v))).mean() for v in by_hand), rel=1e-5
    )


def test_the_paired_loss_by_hand():
    """A verdict is held against that on its own counterpart, and a pair that is judged alike costs
    log 2 a kind.
    """
    one, two = ([noise(4, 1, n, n, seed=s + n) * 8 - 4 for n in (1, 5)] for s in (0, 50))
    expected = sum(
        np.log1p(np.exp(-(a - b).double().numpy())).mean() for a, b in zip(one, two, strict=True)
    )
    assert losses.ranked(one, two).item() == pytest.approx(expected, rel=1e-5)
    assert losses.ranked(one, one).item() == pytest.approx(2 * np.log(2), rel=1e-6)


def test_the_generators_loss_does_not_saturate():
    """Where the discriminator is sure of a fake, the slope is 1 (Goodfellow et al., 2014, section
    3).
    """
    verdict = torch.tensor([-30.0], requires_grad=True)
    losses.real([verdict]).backward()
    assert verdict.grad.item() == pytest.approx(-1)


def test_feature_matching_by_hand_and_only_towards_the_truth():
    one, two = ([noise(2, 3, n, n, seed=s + n).requires_grad_() for n in (8, 4)] for s in (0, 50))
    found = losses.features(one, two)
    expected = np.mean(
        [np.abs((a - b).detach().numpy()).mean() for a, b in zip(one, two, strict=True)]
    )
    assert found.item() == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert all(x.grad is not None for x in one) and all(x.grad is None for x in two)


def test_r1_of_a_linear_critic_is_its_squared_weight():
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 1))
    penalty = losses.r1(linear, noise(5, 3, 4, 4))
    weight = linear[1].weight
    assert penalty.item() == pytest.approx(weight.square().sum().item(), rel=1e-5)
    penalty.backward()
    assert torch.allclose(weight.grad, 2 * weight, atol=1e-6), "it can be trained on"


def test_same_person_by_hand():
    z = F.normalize(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    person = torch.tensor([0, 1, 2, 3, 0, 1, 2, 0])
    found, terms = losses.same_person(z, person, 0.2).item(), []
    products = z.double().numpy() @ z.double().numpy().T / 0.2
    for i in range(8):
        others = [j for j in range(8) if j != i]
        mates = [j for j in others if person[j] == person[i]]
        whole = np.log(np.exp(products[i, others]).sum())
        terms.append(-np.mean([products[i, j] - whole for j in mates]) if mates else 0.0)
    assert found == pytest.approx(np.mean(terms), rel=1e-5)


def test_same_person_is_least_where_views_of_a_person_agree():
    person, z = torch.tensor([0, 1, 0, 1]), torch.eye(2)
    assert (
        losses.same_person(z[person], person) < 1e-3 < losses.same_person(z[[0, 1, 1, 0]], person)
    )


# ---- the discriminator ---------------------------------------------------------------------------


def adversary(**options: object) -> stages.Adversary:
    torch.manual_seed(0)
    return stages.Adversary(WIDTHS, **{"lr": 2e-3, "kinds": (), **options})


@pytest.mark.parametrize("every", [1, 3])
def test_r1_comes_lazily_with_its_weight(every, monkeypatch):
    a, totals = adversary(every=every, r1=0.7), []
    backward = a.descent.backward
    monkeypatch.setattr(
        a.descent, "backward", lambda loss, what: totals.append(loss.item()) or backward(loss, what)
    )
    told = [a.train([batches(n)["target"]], [noise(2, 3, 32, 32, seed=n)], 1.0) for n in range(7)]
    assert ["r1" in t for t in told] == [n % every == 0 for n in range(7)]
    for total, t in zip(totals, told, strict=True):
        assert total == pytest.approx(t["critic"] + every * 0.7 / 2 * t.get("r1", 0), rel=1e-5)


def test_without_a_gamma_that_of_stylegan2_ada_is_taken(monkeypatch):
    a, totals = adversary(every=4), []
    backward = a.descent.backward
    monkeypatch.setattr(
        a.descent, "backward", lambda loss, what: totals.append(loss.item()) or backward(loss, what)
    )
    monkeypatch.setattr(
        losses, "r1", lambda critic, pictures: torch.tensor(1000.0, requires_grad=True)
    )
    told = a.train([batches(0)["target"]], [noise(2, 3, 32, 32)], 1.0)
    assert totals[0] - told["critic"] == pytest.approx(4 * (2e-4 * 32**2 / 2) / 2 * 1000, rel=1e-4)


def test_the_discriminator_learns_real_from_fake():
    a = adversary()
    assert not a.ready and a.watch["balance"] == 0.5
    for n in range(60):
        told = a.train([batches(n, 4)["target"]], [noise(4, 3, 32, 32, seed=n)], 1.0)
    assert a.ready and told["balance"] == a.watch["balance"] > 0.7 and a.watch["steps"] == 60
    with torch.no_grad():
        assert (
            a.critic(batches(99, 4)["target"]).min() > a.critic(noise(4, 3, 32, 32, seed=99)).max()
        )


@pytest.mark.parametrize("paired", [True, False])
def test_only_pairs_are_augmented_alike(paired, monkeypatch):
    a, seen = adversary(paired=paired, kinds=("shift",)), []
    judge = a.judge
    monkeypatch.setattr(a, "judge", lambda pictures: seen.append(pictures) or judge(pictures))
    truth = batches(0, 8)["target"]
    a.train([truth], [truth], 1.0)
    assert torch.equal(seen[0], seen[1]) == paired and not torch.equal(seen[0], truth)


def test_the_generated_pictures_get_no_gradient_from_the_discriminators_step():
    made = noise(2, 3, 32, 32).requires_grad_()
    adversary().train([batches(0)["target"]], [made * 1], 1.0)
    assert made.grad is None


@pytest.mark.parametrize("name", GANS)
def test_the_generators_step_leaves_the_discriminator_alone(name, monkeypatch):
    stage = GANS[name]()
    before = {k: v.clone() for k, v in stage.adversary.critic.named_parameters()}
    monkeypatch.setattr(stage.adversary, "train", lambda truths, made, factor: {"critic": 0.0})
    stage.update(batches(0), 0.5)
    assert all(torch.equal(v, before[k]) for k, v in stage.adversary.critic.named_parameters())
    assert all(p.grad is None and p.requires_grad for p in stage.adversary.critic.parameters())


@pytest.mark.parametrize("name", GANS)
def test_unknown_augmentations_are_named(name):
    with pytest.raises(
        ValueError, match="augment must name some of colour, shift, cutout, got 'blur'"
    ):
        GANS[name](augment=["blur"])


def test_adversarial_losses_wait_until_the_discriminator_is_ready():
    stage = restoration(ready=False)
    told = stage.update(batches(0), 0.5)
    assert {"pixel", "frequency", "critic"} <= told.keys() and not {
        "features",
        "adversarial",
    } & told.keys()
    stage.adversary.watch["ready"] = 1
    told = stage.update(batches(1), 0.5)
    assert told["loss"] == pytest.approx(
        sum(w * told[k] for k, w in stage.weights.items() if w), rel=1e-5
    )
    assert all(told[k] > 0 for k in ("features", "adversarial", "pixel", "frequency"))


def test_an_unknown_loss_of_the_restoration_is_named():
    with pytest.raises(
        ValueError,
        match="weights must name losses out of pixel, frequency, features, adversarial, ldl, .*, "
        "got 'charm'",
    ):
        restoration(weights={"charm": 1})


def test_hinge_losses_by_hand():
    verdicts = [noise(6, 1, 1, 1) * 4 - 2]
    v = verdicts[0].double().numpy()
    assert losses.hinge_real(verdicts).item() == pytest.approx(
        np.maximum(0, 1 - v).mean(), rel=1e-5
    )
    assert losses.hinge_fake(verdicts).item() == pytest.approx(
        np.maximum(0, 1 + v).mean(), rel=1e-5
    )


def test_soft_margins_lie_between_1_less_soft_and_1():
    sure = [torch.zeros(4000, 1, 1, 1)]
    torch.manual_seed(0)
    assert losses.hinge_real(sure, 0.2).item() == pytest.approx(0.9, abs=0.005)
    assert losses.hinge_fake([v + 0.2 - 1 for v in sure], 0.2).item() == pytest.approx(
        0.1, abs=0.005
    )


def test_a_generator_against_the_hinge_loss_wants_high_verdicts():
    stage = drawing()
    verdict = torch.tensor([[[[-3.0]]]], requires_grad=True)
    stage.adversary.generator_loss([verdict]).backward()
    assert verdict.grad.item() == -1


@pytest.mark.parametrize(("sign", "moves"), [(1.0, 1), (-1.0, -1)])
def test_augmentation_grows_while_real_faces_are_remembered(sign, moves):
    stage = drawing(chance=0.3)
    stage.adversary.watch["sign"] = 0.6 + 0.5 * sign
    told = stage.adversary.train([batches(0)["target"]], [noise(2, 3, 32, 32)], 1.0)
    assert told["chance"] == pytest.approx(0.3 + moves * 2 / 5e5)


def test_spread_by_hand():
    made, real = noise(6, 3, 32, 32), noise(6, 3, 32, 32, seed=1) * 0.5
    small = [x.double().numpy().reshape(6, 3, 8, 4, 8, 4).mean((3, 5)).std(0) for x in (made, real)]
    assert losses.spread(made, real).item() == pytest.approx(
        np.abs(small[0] - small[1]).mean(), rel=1e-4
    )
    assert losses.spread(real, real).item() == 0


def test_spread_drives_faces_that_are_alike_apart():
    made = (
        noise(1, 3, 32, 32).repeat(4, 1, 1, 1) + 0.01 * noise(4, 3, 32, 32, seed=2)
    ).requires_grad_()
    real = torch.linspace(0, 1, 4).reshape(4, 1, 1, 1).expand(4, 3, 32, 32)
    before = losses.spread(made, real)
    before.backward()
    after = losses.spread(made - 20 * made.grad, real)
    assert after < before


def test_energy_by_hand():
    drawn, real = torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    between, drawn_pair, real_pair = (0 + 4 + 3 + 5) / 4, 3, 4  # each over the root of two
    expected = (2 * between - drawn_pair - real_pair) / 2**0.5
    assert losses.energy(drawn, real).item() == pytest.approx(expected, abs=2e-3)


def test_energy_sees_few_modes_where_the_deviation_is_right():
    random = torch.Generator().manual_seed(0)
    real = torch.randn(64, 8, generator=random)
    two = torch.sign(torch.randn(64, 1, generator=random)).expand(-1, 8)  # as much deviation
    same = torch.randn(64, 8, generator=random)
    assert abs(losses.energy(same, real).item()) < 0.03 < 0.1 < losses.energy(two, real).item()


def test_the_priors_cover_is_told_only_where_it_counts():
    assert not {"cover_pixels", "cover_features"} & drawing().update(batches(0)).keys()
    told = drawing(cover_pixels=1.0, cover_features=1.0).update(batches(0))
    assert {"cover_pixels", "cover_features"} <= told.keys()


def test_the_priors_spread_is_told_only_where_it_counts():
    assert "spread" not in drawing().update(batches(0))
    told = drawing(spread=2.0).update(batches(0))
    assert told["spread"] > 0


def test_the_priors_rates_rise_hold_and_fall():
    stage = prior(hold=0.5)
    assert [stage.factor(p) for p in (0, 0.01, 0.3, 0.5)] == [0.02, 0.52, 1, 1]
    assert stage.factor(0.75) == pytest.approx(0.5) and stage.factor(1.0) == pytest.approx(0.1)
    assert prior().factor(1.0) == 1


def test_a_drawing_prior_redraws_real_faces_better_and_better():
    told = [
        r.losses["redraw"]
        for r in train.fit(
            drawing(critic_lr=3e-3, lr=1e-3, augment=()), lambda _: batches(0, 4), 60
        )
    ]
    assert told[-1] < 0.7 * told[0]


# ---- the joint stage -----------------------------------------------------------------------------


def test_every_loss_of_the_joint_stage_is_told_and_weighed():
    stage = joint()
    told = stage.update(labelled(0), 0.5)
    assert told["loss"] == pytest.approx(
        sum(w * told[k] for k, w in stage.weights.items() if w), rel=1e-4
    )
    assert {"pixel", *EVERY, "eyes critic", "mouth balance"} <= told.keys() and all(
        np.isfinite(v) for v in told.values()
    )


def test_losses_of_parts_without_landmarks_are_refused():
    with pytest.raises(
        ValueError, match="the loss landmarks needs landmarks; set labels: true in batches"
    ):
        joint().update(batches(0), 0.5)


def test_the_pixel_loss_looks_at_the_size_that_the_recipe_left():
    """A checkerboard of single pixels is all wrong to a sharp face, and gone from a face that was
    blurred over 9 px.
    """
    stage, batch = restoration(residual=True), labelled(0)
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 0.4 - 0.2
    restored = batch["target"] + board
    sharp, blurred = (
        stage._terms(
            restored[n : n + 1], {k: v[n : n + 1] for k, v in batch.items() if k != "inputs"}
        )["pixel"]
        for n in (0, 1)
    )
    assert sharp.item() == pytest.approx(1.1 * 0.2, rel=0.01) and blurred.item() == pytest.approx(
        0.1 * 0.2, rel=0.1
    )


def test_while_frozen_only_the_encoder_learns():
    stage = joint(frozen=1, lr=1e-3, decoder_lr=1e-3)
    net = stage.averaged
    learners = {
        "decoder": net.decoder,
        "critic": stage.adversary.critic,
        "eyes": stage.parts["eyes"].critic,
    }
    parts = {"encoder": net.encoder, "mask": net.mask, **learners}
    changed = []
    for step in range(2):
        before = {
            name: [p.detach().clone() for p in part.parameters()] for name, part in parts.items()
        }
        stage.update(labelled(step), 0.02)
        moved = {
            n
            for n, part in parts.items()
            if any(not torch.equal(p, q) for p, q in zip(part.parameters(), before[n], strict=True))
        }
        changed.append(moved)
    assert changed == [{"encoder"}, set(parts)]


def test_only_much_blurred_faces_are_drawn_from_the_deep_code_alone():
    stage, seen = joint(noise=1.0), []
    stage.descent.net.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs.get("noise")), with_kwargs=True
    )
    stage.update(labelled(0), 0.5)
    assert seen[0].tolist() == [False, True]


def test_without_adversarial_losses_no_discriminator_learns():
    stage = joint(weights={"adversarial": 0, "features": 0.1})
    before = [p.detach().clone() for p in stage.adversary.critic.parameters()]
    told = stage.update(labelled(0), 0.5)
    assert "features" in told and "critic" not in told and not stage.parts
    assert all(
        torch.equal(a, b) for a, b in zip(before, stage.adversary.critic.parameters(), strict=True)
    )


@pytest.mark.parametrize("stop", [1, 4])
def test_a_joint_run_that_was_left_and_resumed_equals_an_unbroken_one(tmp_path, stop):
    whole, resumed = joint(frozen=2), joint(9, frozen=2)
    run(whole, None, batches=labelled)
    run(joint(frozen=2), tmp_path, stop=stop, batches=labelled)
    assert run(resumed, tmp_path, batches=labelled) == list(range(stop + 1, 7)) and equal(
        whole, resumed
    )


# ---- rates ---------------------------------------------------------------------------------------


def test_by_default_the_encoder_is_faster_than_the_decoder_and_that_than_the_discriminator():
    stage = restoration()
    (encoder, decoder), (critic,) = stage.descent.rates, stage.adversary.descent.rates
    assert encoder > decoder > critic > 0


@pytest.mark.parametrize("rates", [(1e-3, 1e-4, 1e-5), (2e-4, 3e-4, 5e-4)])
def test_encoder_decoder_and_discriminator_move_at_their_own_rates(rates):
    """Adam's first step is the rate itself, for every parameter that has a slope (Kingma and Ba,
    ICLR 2015, section 2.1).
    """
    encoder, decoder, critic = rates
    stage = restoration(lr=encoder, decoder_lr=decoder, critic_lr=critic, residual=False, clip=1e9)
    parts = (stage.averaged.encoder, stage.averaged.decoder, stage.adversary.critic)
    before = [[p.detach().double().clone() for p in part.parameters()] for part in parts]
    stage.update(batches(0), 0.02)  # where the cosine is 1
    for rate, part, old in zip(rates, parts, before, strict=True):
        moved = max(
            (p.double() - q).abs().max().item() for p, q in zip(part.parameters(), old, strict=True)
        )
        assert moved == pytest.approx(rate, rel=0.02)


# ---- learning ------------------------------------------------------------------------------------


def test_a_restoration_learns_one_batch():
    told = [
        r.losses
        for r in train.fit(
            restoration(lr=4e-3, decoder_lr=2e-3, augment=()), lambda _: batches(0), 60
        )
    ]
    assert told[-1]["pixel"] < told[0]["pixel"] / 2


def test_a_prior_learns_the_colour_of_its_set():
    colour = torch.tensor([0.9, 0.3, 0.1]).reshape(1, 3, 1, 1)

    def one_colour(step: int) -> data.Batch:
        truth = (colour + 0.2 * (noise(4, 1, 1, 1, seed=step) - 0.5)).expand(4, 3, 32, 32)
        return {"inputs": (truth,), "target": truth}

    stage = prior(lr=3e-3, critic_lr=3e-3, augment=())
    before = (stage.picture(12, 32).mean((0, 2, 3)) - colour.flatten()).abs().max()
    run(stage, None, 100, batches=one_colour)
    assert (stage.picture(12, 32).mean((0, 2, 3)) - colour.flatten()).abs().max() < before / 2


def test_the_averaged_generator_is_what_is_shown():
    stage = prior(lr=1e-2)
    run(stage, None, 3, ema=0.9)
    assert isinstance(stage.ema, nets.Generator) and stage.ema is not stage.averaged
    drawn = stage.ema.draw(2, 32, torch.Generator().manual_seed(0))
    shown, current = stage.picture(2), stage.averaged(drawn).clamp(0, 1)
    assert torch.equal(shown, stage.ema(drawn).clamp(0, 1)) and not torch.allclose(
        shown, current, atol=1e-4
    )


# ---- accumulation --------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "parts"), [(4, 2), (3, 2), (4, 4), (2, 5)])
@pytest.mark.parametrize(
    "make",
    [supervised, lambda **o: restoration(ready=False, **o)],
    ids=["supervised", "restoration"],
)
def test_a_batch_in_parts_is_the_whole_batch(make, count, parts):
    one, two = make(), make(accumulate=parts)
    told = [s.update(batches(0, count), 0.5) for s in (one, two)]
    assert told[0]["loss"] == pytest.approx(told[1]["loss"], rel=1e-5)
    for a, b in zip(one.averaged.parameters(), two.averaged.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6) and torch.allclose(
            a.grad, b.grad, rtol=1e-4, atol=1e-6
        )


def test_parts_hold_every_sample_once():
    batch = batches(0, 5)
    parts = stages.micro(batch, 3)
    assert [len(p["target"]) for p in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([p["target"] for p in parts]), batch["target"])
    assert torch.equal(torch.cat([p["inputs"][0] for p in parts]), batch["inputs"][0])


@pytest.mark.parametrize("name", GANS)
def test_a_gan_stage_runs_in_parts(name):
    told = GANS[name](accumulate=2).update(batches(0, 4), 0.5)
    assert all(np.isfinite(v) for v in told.values()) and 0 <= told["balance"] <= 1


def test_a_loss_between_samples_cannot_be_cut_in_parts():
    with pytest.raises(
        ValueError, match="same_person compares all faces of a batch, so it cannot be accumulated"
    ):
        supervised(weights={"same_person": 1.0}, accumulate=2)


# ---- what must not be lost -----------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 4])
@pytest.mark.parametrize("name", GANS)
def test_a_run_that_was_left_and_resumed_equals_an_unbroken_one(tmp_path, name, stop):
    whole, resumed = GANS[name](), GANS[name](seed=9)
    run(whole, None)
    run(GANS[name](), tmp_path, stop=stop)
    assert run(resumed, tmp_path) == list(range(stop + 1, 7)) and equal(whole, resumed)
    assert {"critic", "optimizer", "watch"} == resumed.state_dict()["adversary"].keys()


def killed_run(name: str, out: str, point: str) -> None:
    """What the test below runs in another process, which ends itself by SIGKILL at that point."""

    def kill_itself(_: object = None) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    replace = os.replace
    if point == "save":  # the checkpoint stands under its temporary name
        os.replace = lambda a, b: (
            kill_itself() if str(b).endswith("step-00000004.pt") else replace(a, b)
        )
    run(
        GANS[name](),
        Path(out),
        batches=lambda n: kill_itself() if point == "batch" and n == 5 else batches(n),
    )


@pytest.fixture
def one_thread():
    """The same number of threads here and in the other process: sums in another order have other
    bits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "point", "begins"), [("prior", "save", 3), ("restoration", "batch", 5)]
)
def test_a_run_that_is_killed_goes_on_as_if_nothing_had_been(
    tmp_path, one_thread, name, point, begins
):
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import torch; torch.set_num_threads(1)\n"
    )
    code += f"import test_stages; test_stages.killed_run({name!r}, {str(tmp_path)!r}, {point!r})"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=HERE.parent).returncode == -signal.SIGKILL
    )
    whole, resumed = GANS[name](), GANS[name](seed=9)
    run(whole, None)
    assert run(resumed, tmp_path) == list(range(begins, 7)) and equal(whole, resumed)


def check_last_good_state(name: str, out: Path, step: int) -> None:
    """The newest checkpoint is that of `step`; from there a fresh stage ends as if it had never
    been broken.
    """
    assert names(out)[-1] == f"step-{step:08d}.pt"
    whole, resumed = GANS[name](), GANS[name](seed=9)
    run(whole, None)
    assert run(resumed, out) == list(range(step + 1, 7)) and equal(whole, resumed)


@pytest.mark.parametrize("name", GANS)
def test_an_overwhelming_discriminator_stops_the_run_at_its_last_good_state(tmp_path, name):
    stage = GANS[name]()
    stage.adversary.patience = 1

    def overwhelmed(step: int) -> data.Batch:
        if step == 3:
            stage.adversary.watch["balance"], stage.adversary.descent.mean = 1.0, lambda right: 1.0
        return batches(step)

    with pytest.raises(
        stages.Collapse,
        match=r"^step 5: the discriminator was right on more than 99\.5 % for 1 steps; lower its "
        r"rate",
    ):
        run(stage, tmp_path, batches=overwhelmed)
    check_last_good_state(name, tmp_path, 2)


def test_generated_pictures_that_are_all_alike_stop_the_run_at_its_last_good_state(tmp_path):
    stage = prior()

    def alike(step: int) -> data.Batch:
        if step == 3:
            stage.alike, draw = 99, stage.averaged.draw
            stage.averaged.draw = lambda *a, **k: [x[:1].expand_as(x) for x in draw(*a, **k)]
        return batches(step)

    with pytest.raises(
        stages.Collapse,
        match=r"^step 5: the generated faces are all alike; lower the rates or raise r1",
    ):
        run(stage, tmp_path, batches=alike)
    check_last_good_state("prior", tmp_path, 2)


NOT_FINITE = [
    *((name, "discriminator's loss is nan") for name in ("prior", "drawing")),
    ("restoration", "loss is nan"),
]


@pytest.mark.parametrize(("name", "message"), NOT_FINITE)
def test_losses_that_are_not_finite_stop_the_run_at_its_last_good_state(tmp_path, name, message):
    def poisoned(step: int) -> data.Batch:
        batch = batches(step)
        return {**batch, "target": batch["target"] * float("nan")} if step == 4 else batch

    with pytest.raises(
        FloatingPointError, match=rf"^step 5: the {message}; try a smaller learning rate"
    ):
        run(GANS[name](), tmp_path, batches=poisoned)
    check_last_good_state(name, tmp_path, 4)


@pytest.mark.parametrize("name", GANS)
def test_a_step_torn_midway_is_never_saved(tmp_path, name):
    """The generator has moved, the discriminator has not, and then something fails."""
    stage = GANS[name]()

    def torn(step: int) -> data.Batch:
        if step == 3:
            stage.adversary.train = fail
        return batches(step)

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run(stage, tmp_path, batches=torn)
    assert not stage.healthy
    check_last_good_state(name, tmp_path, 2)


# ---- pictures and curves -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"),
    [("prior", (96, 192, 3)), ("drawing", (96, 192, 3)), ("restoration", (96, 64, 3))],
)
def test_every_checkpoint_has_its_pictures(tmp_path, name, shape):
    run(GANS[name](), tmp_path, 3)
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == [
        "step-00000002.png",
        "step-00000003.png",
    ]
    assert image.read(tmp_path / "pictures/step-00000003.png").shape == shape


def test_a_restorations_pictures_are_rows_of_inputs_restorations_and_truths(tmp_path):
    stage = restoration()
    run(stage, tmp_path, 1)
    shown, batch = image.read(tmp_path / "pictures/step-00000001.png"), batches(0)
    for row, pictures in ((0, batch["inputs"][0]), (2, batch["target"])):
        expected = torch.cat(list(pictures), 2).permute(1, 2, 0).numpy()
        assert np.abs(shown[32 * row : 32 * row + 32] - expected).max() < 0.01


def test_tensorboard_has_the_losses(tmp_path):
    pytest.importorskip(
        "tensorboard", reason="tensorboard is not installed; pip install tensorboard"
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(restoration(), tmp_path, 3, tensorboard=True)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"loss", "pixel", "adversarial", "critic", "balance"} <= set(board.Tags()["scalars"])
    logged = json.loads((tmp_path / "log.jsonl").read_text())
    assert [(e.step, pytest.approx(e.value, rel=1e-6)) for e in board.Scalars("pixel")] == [
        (3, logged["losses"]["pixel"])
    ]


def test_without_tensorboard_the_option_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ValueError, match="tensorboard is not installed; pip install tensorboard, or leave it off"
    ):
        run(restoration(), tmp_path, 3, tensorboard=True)
    assert not (tmp_path / "checkpoints").exists(), "before the first step"


# ---- from settings -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data_root(tmp_path_factory, _astronaut) -> Path:
    return make_root(tmp_path_factory.mktemp("data"), _astronaut)


def test_a_restoration_goes_on_from_a_prior_and_its_discriminator(data_root, tmp_path):
    options = {"net": {"widths": list(WIDTHS)}, "batches": {"sizes": [32], "batch": 2}}
    assert len(list(plan.run({"stage": "prior", "steps": 2, **options}, data_root, tmp_path))) == 2
    files = {
        "prior": str(tmp_path / "prior.safetensors"),
        "critic": str(tmp_path / "critic.safetensors"),
    }
    settings = {"stage": "restoration", "steps": 2, **files, **options}
    stage = plan.make_stage(settings)
    decoder, critic = (
        weights.load(files["prior"]).decoder.state_dict(),
        weights.load(files["critic"]).state_dict(),
    )
    assert all(
        torch.equal(v, decoder[k])
        for k, v in stage.averaged.decoder.state_dict().items()
        if not k.startswith("to_rgb")
    )
    assert all(torch.equal(v, critic[k]) for k, v in stage.adversary.critic.state_dict().items())
    assert all(
        p.requires_grad
        for p in (*stage.averaged.parameters(), *stage.adversary.critic.parameters())
    )
    assert [r.step for r in plan.run(settings, data_root, tmp_path / "next")] == [1, 2]
    assert isinstance(weights.load(tmp_path / "next/restoration.safetensors"), nets.FaceNet)
    after = weights.load(tmp_path / "next/critic.safetensors", nets.Critic).state_dict()
    assert any(not torch.equal(v, critic[k]) for k, v in after.items()), (
        "the discriminator was trained on"
    )


def test_a_prior_that_does_not_fit_is_named(tmp_path):
    path = weights.save(prior().averaged, tmp_path / "p.safetensors")
    settings = {"stage": "restoration", "steps": 1, "prior": str(path), "net": {"widths": "XS"}}
    with pytest.raises(
        ValueError,
        match=r"p\.safetensors was made with other widths or joins than net: {'widths': 'XS'}",
    ):
        plan.make_stage(settings)


# ---- precision and processes ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_step_in_bf16_has_finite_losses_near_those_in_float32(name):
    from lightning_fabric import Fabric

    told = []
    for precision in ("32-true", "bf16-mixed"):
        records = train.fit(
            ALL[name](),
            batches,
            1,
            fabric=Fabric(accelerator="cpu", devices=1, precision=precision),
        )
        told.append(next(records).losses)
    assert told[0].keys() == told[1].keys() and all(np.isfinite(v) for v in told[1].values())
    assert all(told[1][k] == pytest.approx(told[0][k], rel=0.1, abs=0.02) for k in told[0])


@pytest.mark.parametrize("name", GANS)
def test_fabric_on_a_cpu_changes_nothing_and_resumes(tmp_path, name):
    from lightning_fabric import Fabric

    whole, resumed = GANS[name](), GANS[name](seed=9)
    run(whole, None, 4)
    run(GANS[name](), tmp_path, 4, stop=3, fabric=Fabric(accelerator="cpu", devices=1))
    assert run(resumed, tmp_path, 4, fabric=Fabric(accelerator="cpu", devices=1)) == [4] and equal(
        whole, resumed
    )


DDP = {
    "supervised": supervised,
    "supervised in parts": lambda seed=0: supervised(seed, accumulate=2),
    "prior": prior,
    "drawing": drawing,
    "restoration": restoration,
    "restoration in parts": lambda seed=0: restoration(seed, accumulate=2),
}


def one_of_two(out: Path) -> None:
    """What the test below runs in both processes: three steps of each, one more after a resume, and
    notes of what was seen and written.
    """
    from lightning_fabric import Fabric

    fabric, notes, written, replace = (
        Fabric(accelerator="cpu", devices=2, strategy="ddp"),
        {},
        [],
        os.replace,
    )
    fabric.launch()
    os.replace = lambda a, b: written.append(str(b)) or replace(a, b)
    for name, make in DDP.items():
        seen = []
        for seed, steps in (
            (fabric.global_rank, 3),
            (9, 4),
        ):  # the first process's fresh weights are every process's
            stage = make(seed)
            run(
                stage,
                out / name,
                steps,
                batches=lambda n, seen=seen: seen.append(n) or batches(n),
                fabric=fabric,
                schedule=4,
            )
            fabric.barrier()
        digest = hashlib.sha256()
        for net in (
            stage.averaged,
            stage.ema,
            *([stage.adversary.critic] if hasattr(stage, "adversary") else []),
        ):
            for value in (
                net.parameters()
            ):  # each process keeps running statistics of its own; the first one's are written
                digest.update(value.detach().contiguous().numpy().tobytes())
        watch = stage.adversary.watch if hasattr(stage, "adversary") else {}
        notes[name] = {"seen": seen, "weights": digest.hexdigest(), "watch": watch}
    Path(out / f"rank{fabric.global_rank}.json").write_text(
        json.dumps({"stages": notes, "written": written})
    )


def test_two_processes_train_one_net_on_different_batches(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import torch; torch.set_num_threads(1)\n"
        f"import pathlib, test_stages; test_stages.one_of_two(pathlib.Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=HERE.parent, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in range(2))
    assert one["written"] and not two["written"], "only the first one writes"
    for name in DDP:
        a, b = one["stages"][name], two["stages"][name]
        assert (a["seen"], b["seen"]) == ([0, 2, 4, 6], [1, 3, 5, 7]), name
        assert a["weights"] == b["weights"] and a["watch"] == b["watch"], name
    together = supervised()
    run(together, None, 4, batches=lambda n: batches_of(2 * n, 2 * n + 1), schedule=4)
    for name in ("supervised", "supervised in parts"):
        found = train.newest_checkpoint(tmp_path / name / "checkpoints")["stage"]["net"]
        for key, value in together.averaged.state_dict().items():
            assert torch.allclose(found[key], value, rtol=0, atol=1e-5), (
                "two processes with a batch each are one with both"
            )


def batches_of(*steps: int) -> data.Batch:
    """Several steps' batches as one."""
    parts = [batches(n) for n in steps]
    return {
        "inputs": (torch.cat([p["inputs"][0] for p in parts]),),
        "target": torch.cat([p["target"] for p in parts]),
    }
