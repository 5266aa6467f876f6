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

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import nets, weights
from ..io import files
from ..io.text import nearest, shown
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
MOST_STEPS, MOST_SEED = 10**8, 2**63 - 1
MOST_NUMBER, MOST_LENGTH = 4096, 64  # of a setting in net, batches and train; of a list there
MOST_PIXELS = 2**26  # of a batch: 0.8 GB as float32
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
            + nearest(unknown[0], KEYS)
        )
    if str(settings["stage"]) not in STAGES or stage not in (None, settings["stage"]):
        raise ValueError(
            f"{path} trains {settings['stage']!r}, expected {stage or ' or '.join(STAGES)}"
            + nearest(settings["stage"], [stage] if stage else STAGES)
        )
    for key, least in {"steps": 1, "schedule": 1, "save_every": 1, "seed": 0}.items():
        value, most = settings.get(key, least), MOST_SEED if key == "seed" else MOST_STEPS
        if type(value) is not int or value < least:
            raise ValueError(f"{path}: {key} must be a whole number from {least} up, got {value!r}")
        if value > most:
            raise ValueError(f"{path}: {key} must be at most {most:,}, got a larger number")
    ema = settings.get("ema", 0)
    if type(ema) not in (int, float) or not 0 <= ema <= 1:
        raise ValueError(f"{path}: ema must be a number from 0 to 1, got {ema!r}")
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
        for name, value in settings.get(key, {}).items():
            if not modest(value):
                raise ValueError(
                    f"{path}: {key}: {shown(str(name)[:40])} must hold finite numbers up to "
                    f"{MOST_NUMBER} and lists up to {MOST_LENGTH} long, "
                    f"got {shown(repr(value)[:60])}"
                )
    if wrong := weights.immodest(settings.get("net", {})):
        raise ValueError(f"{path}: net: {wrong}")
    if pixels(settings.get("batches", {})) > MOST_PIXELS:
        raise ValueError(
            f"{path}: batches: a batch has more than {MOST_PIXELS:,} pixels; "
            "lower batch or the size"
        )
    return settings


def modest(value: Any, depth: int = 3) -> bool:
    """Whether a setting holds finite numbers up to MOST_NUMBER, and short lists of such, only."""
    if isinstance(value, (list, dict)):
        parts = list(value.values()) if isinstance(value, dict) else value
        return depth > 0 and len(parts) <= MOST_LENGTH and all(modest(v, depth - 1) for v in parts)
    return not isinstance(value, (int, float)) or abs(value) <= MOST_NUMBER


def pixels(batches: Mapping[str, Any]) -> int:
    """How many pixels a batch of these options has at most, as far as its options say it."""
    sides = [batches.get(name, 0) for name in ("size", "sizes", "small", "most")]
    sides = [v for side in sides for v in (side if isinstance(side, list) else [side])]
    batch = batches.get("batch", 16)
    numbers = [v for v in (*sides, batch) if isinstance(v, (int, float))]
    return int(batch * max(numbers[:-1], default=0) ** 2) if batch in numbers else 0


def make(kind: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """kind(*args, **options), where an option that it does not take (or not so) is a ValueError that names it."""
    defaults = {k: p.default for k, p in inspect.signature(kind).parameters.items()}
    for name, value in options.items():
        if not alike(value, defaults.get(name)):
            raise ValueError(
                f"{kind.__name__}: {name} must be like {defaults[name]!r}, "
                f"got {shown(repr(value)[:60])}"
            )
    try:
        return kind(*args, **options)
    except TypeError as e:
        given = ", ".join(f"{k}: {v}" for k, v in options.items())
        raise ValueError(f"{kind.__name__} cannot be made with {{{given}}}: {e}") from e


def alike(value: Any, default: Any) -> bool:
    """Whether an option is of the kind of its default: a number, a word, or a list of such."""
    if isinstance(default, (list, tuple)) and default:
        return isinstance(value, (list, tuple)) and all(alike(v, default[0]) for v in value)
    if type(default) in (int, bool):
        return type(value) is type(default)
    return type(default) is not float or type(value) in (int, float)


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
    options = settings.get("net", {})
    with contextlib.suppress(TypeError):  # of which make says more
        shapes = weights.sketch(kind, options, weights.MOST_TENSORS)
        count = sum(p.numel() for p in shapes.parameters())
        if count > weights.MOST_PARAMETERS:
            raise ValueError(
                f"net: {options} has {count:,} parameters, more than a weights file holds "
                f"({weights.MOST_PARAMETERS:,}); choose smaller widths"
            )
    net = make(kind, **options)
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
