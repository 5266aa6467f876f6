"""From a settings file to a training: which net, which batches, which losses, how many steps, where the weights go.

A settings file (YAML, see experiments/train/) says only what its stage needs:

    stage: face                                 # one of STAGES, below
    net: {widths: S}                            # the net's keyword arguments
    batches: {sizes: [128], batch: 16}          # the batch class's keyword arguments
    train: {lr: 6.0e-4, weights: {pixel: 1.0}}  # Supervised's keyword arguments
    steps: 9000
    weights: mtrestore/weights/face.safetensors # where the averaged net goes when the last step is done
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import nets, weights
from ..io import files
from ..nets.blocks import Net, padded
from . import batches as data
from . import stages
from .fit import Record, fit

KEYS = {
    "stage",
    "net",
    "batches",
    "train",
    "steps",
    "schedule",
    "seed",
    "ema",
    "save_every",
    "init",
    "prior",
    "critic",
    "restorer",
    "faces",
    "weights",
}
STAGES: dict[str, tuple[type[Net], Callable[..., Any]]] = {  # name -> its net, and how that is trained
    "prior": (nets.Generator, stages.GanPrior), "restoration": (nets.FaceNet, stages.FaceRestoration), "face": (nets.FaceNet, stages.Supervised),
    "landmarks": (nets.LandmarkNet, stages.Supervised), "embedding": (nets.FaceEmbedding, stages.Supervised),
    "restorer": (nets.RestorerNet, stages.Supervised), "refiner": (nets.GuidedUpsampler, stages.Supervised),
    "sharpener": (nets.Sharpener, stages.Supervised),
}  # fmt: skip


def read_settings(path: str | Path, stage: str | None = None) -> dict[str, Any]:
    """The settings in a YAML file, checked: known keys, a known stage (`stage`, when given), steps at least 1."""
    settings = files.read_yaml(path)
    if not isinstance(settings, dict) or not {"stage", "steps"} <= settings.keys():
        raise ValueError(
            f"{path} must be a mapping with at least stage and steps; see experiments/train/"
        )
    if unknown := sorted(set(map(str, settings)) - KEYS):
        raise ValueError(
            f"{path}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(KEYS))}"
        )
    if str(settings["stage"]) not in STAGES or stage not in (None, settings["stage"]):
        raise ValueError(
            f"{path} trains {settings['stage']!r}, expected {stage or ' or '.join(STAGES)}"
        )
    for key, least in {"steps": 1, "schedule": 1, "save_every": 1, "seed": 0}.items():
        if type(settings.get(key, least)) is not int or settings.get(key, least) < least:
            raise ValueError(
                f"{path}: {key} must be a whole number from {least} up, got {settings[key]!r}"
            )
    for key, kinds in {
        "prior": ("restoration", "face"),
        "critic": ("prior", "restoration"),
    }.items():
        if key in settings and settings["stage"] not in kinds:
            raise ValueError(
                f"{path}: {key} is for {' or '.join(kinds)}, not for {settings['stage']}"
            )
    for key in ("net", "batches", "train"):
        if not isinstance(settings.get(key, {}), dict):
            raise ValueError(f"{path}: {key} must be a mapping of options, got {settings[key]!r}")
    return settings


def make(kind: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """kind(*args, **options), where an option that it does not take (or not so) is a ValueError that names it."""
    try:
        return kind(*args, **options)
    except TypeError as e:
        given = ", ".join(f"{k}: {v}" for k, v in options.items())
        raise ValueError(f"{kind.__name__} cannot be made with {{{given}}}: {e}") from e


def make_batches(settings: Mapping[str, Any], root: Path, net: Net) -> Callable[[int], data.Batch]:
    """The batches of a stage; `root` holds train_faces/ and train_photos/."""
    stage, options = (
        settings["stage"],
        {"seed": settings.get("seed", 0), **settings.get("batches", {})},
    )
    if stage in ("face", "prior", "restoration"):
        folders = [root / name for name in options.pop("folders", ["train_faces"])]
        return make(data.FaceBatches, folders, **options)
    if stage == "embedding":
        return make(data.PersonBatches, root / "train_faces", **options)
    if stage == "landmarks":
        batches = make(data.LandmarkBatches, root / "train_faces", **options)
        net.mean.copy_(torch.from_numpy(batches.mean))
        return batches
    photos = data.Photos(
        root / "train_photos", root / "train_faces" if settings.get("faces", True) else None
    )
    if stage == "restorer":
        return make(data.PhotoBatches, photos, **options)
    name = settings.get("restorer", "restorer" if stage == "refiner" else None)
    restorer = partial(padded, weights.load(name, nets.RestorerNet)) if name else None
    if stage == "refiner":
        return make(data.UpsamplerBatches, photos, restorer, **options)
    return make(data.SharpenerBatches, photos, scale=net.scale, restorer=restorer, **options)


def make_stage(settings: Mapping[str, Any]) -> Any:
    """The stage with its fresh net, or one that begins from `init`; `prior` gives the decoder and `critic` the discriminator of a restoration."""
    kind, trained_by = STAGES[settings["stage"]]
    net = make(kind, **settings.get("net", {}))
    try:
        if init := settings.get("init"):
            net.load_state_dict(weights.load(init, kind).state_dict())
        if prior := settings.get("prior"):
            net.take(weights.load(prior, nets.Generator))
    except RuntimeError as e:
        raise ValueError(
            f"{settings.get('prior') or init} was made with other widths or joins than net: {settings.get('net', {})}"
        ) from e
    options = dict(settings.get("train", {}))
    if critic := settings.get("critic"):
        loaded = weights.load(critic)
        if not isinstance(loaded, (nets.Critic, nets.SpectralCritic)):
            raise ValueError(
                f"critic must be the weights of a discriminator, got those of a {type(loaded).__name__}: {critic}"
            )
        options["critic"] = loaded.requires_grad_(True).train()
    if settings["stage"] == "restoration":
        options["judges"] = judges(options.get("weights", {}))
    return make(trained_by, net, **options)


def judges(terms: Mapping[str, float]) -> dict[str, torch.nn.Module]:
    """The nets that losses ask and that do not learn: our landmarks, and the third party's face net, an extra."""
    nets_by_name: dict[str, torch.nn.Module] = {}
    if terms.get("landmarks"):
        nets_by_name["landmarks"] = weights.load("landmarks", nets.LandmarkNet)
    if terms.get("identity") or terms.get("perception"):
        from . import likeness

        nets_by_name["likeness"] = likeness.dlib()
    return nets_by_name


def run(
    settings: Mapping[str, Any], root: str | Path, out: str | Path, *, resume: bool = True, workers: int = 1, fabric: Any = None,
    tensorboard: bool = False,
) -> Iterator[Record]:  # fmt: skip
    """Train as `settings` say, yielding each step's Record; after the last step the averaged weights are written, settings inside.

    An adversarial stage leaves its discriminator in out/critic.safetensors.
    """
    torch.manual_seed(settings.get("seed", 0))
    stage = make_stage(settings)
    batches = make_batches(settings, Path(root), stage.averaged)
    if settings.get("prior") and stage.averaged.draws:
        stage.averaged.fit_scales(batches(0)["inputs"][0])
    options = {k: settings[k] for k in ("seed", "schedule", "ema", "save_every") if k in settings}
    yield from fit(
        stage,
        batches,
        settings["steps"],
        out,
        resume=resume,
        workers=workers,
        fabric=fabric,
        tensorboard=tensorboard,
        **options,
    )
    if fabric is None or fabric.global_rank == 0:
        write_weights(settings, stage, Path(out))
    if fabric is not None:
        fabric.barrier()  # no process goes on before the files are there


def write_weights(settings: Mapping[str, Any], stage: Any, out: Path) -> None:
    """The averaged net, where the settings say or in `out`, and the discriminator of an adversarial stage in `out`."""
    notes = {
        "settings": dict(settings),
        "steps": settings["steps"],
        "device": str(next(stage.averaged.parameters()).device),
    }
    target = Path(settings.get("weights") or out / f"{settings['stage']}.safetensors")
    target.parent.mkdir(parents=True, exist_ok=True)
    weights.save(stage.ema, target, **notes)
    if hasattr(stage, "adversary"):
        weights.save(stage.adversary.critic, out / "critic.safetensors", **notes)
