"""From a settings file to a training: net, batches, losses, steps, and where the weights go.

A settings file (YAML, see experiments/train/) says only what its stage needs:

    stage: face                                 # one of STAGES, below
    net: {widths: S}                            # the net's keyword arguments
    batches: {sizes: [128], batch: 16}          # the batch class's keyword arguments
    train: {lr: 6.0e-4, weights: {pixel: 1.0}}  # Supervised's keyword arguments
    steps: 9000
    weights: mtrestore/weights/face.safetensors # the averaged net goes there after the last step
"""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import nets, weights
from ..io import files
from ..io.claims import Claims
from ..io.text import nearest, shown
from ..nets.blocks import Net, padded
from . import batches, likeness, stages
from .fit import Record, fit

KEYS = {"stage", "net", "batches", "train", "steps", "schedule", "seed", "ema", "save_every"}
KEYS |= {"init", "prior", "critic", "restorer", "faces", "weights"}
MOST_STEPS, MOST_SEED = 10**8, 2**63 - 1
MOST_NUMBER, MOST_LENGTH = 4096, 64  # of a setting in net, batches and train; of a list there
MOST_PIXELS = 2**26  # of a batch: 0.8 GB as float32
STAGES: dict[str, tuple[type[Net], Callable[..., Any]]] = {  # name -> its net, how that is trained
    "prior": (nets.Generator, stages.GanPrior),
    "restoration": (nets.FaceNet, stages.FaceRestoration),
    "face": (nets.FaceNet, stages.Supervised),
    "landmarks": (nets.LandmarkNet, stages.Supervised),
    "embedding": (nets.FaceEmbedding, stages.Supervised),
    "restorer": (nets.RestorerNet, stages.Supervised),
    "refiner": (nets.GuidedUpsampler, stages.Supervised),
    "sharpener": (nets.Sharpener, stages.Supervised),
}
ONLY_FOR = {"prior": ("restoration", "face"), "critic": ("prior", "restoration")}


# ---- the file


def read_settings(path: str | Path, stage: str | None = None) -> dict[str, Any]:
    """The settings in a YAML file; ValueError for what cannot be trained with.

    Known keys, a known stage (`stage`, when given), numbers and sizes within bounds.
    """
    settings = files.read_yaml(path)
    for fault in faults(settings, stage):
        raise ValueError(f"{path}{fault}")
    return settings


def faults(settings: Any, stage: str | None) -> Iterator[str]:
    """What is wrong with settings, each to be read behind the file's name."""
    if not isinstance(settings, dict) or not {"stage", "steps"} <= settings.keys():
        yield " must be a mapping with at least stage and steps; see experiments/train/"
    if unknown := sorted(set(map(str, settings)) - KEYS):
        known = f"{', '.join(sorted(KEYS))}{nearest(unknown[0], KEYS)}"
        yield f": unknown setting {unknown[0]!r}; known are {known}"
    name = settings["stage"]
    if str(name) not in STAGES or stage not in (None, name):
        expected = f"{stage or ' or '.join(STAGES)}{nearest(str(name), STAGES)}"
        yield f" trains {name!r}, expected {expected}"
    yield from number_faults(settings)
    for key, kinds in ONLY_FOR.items():
        if key in settings and name not in kinds:
            yield f": {key} is for {' or '.join(kinds)}, not for {name}"
    for key in ("net", "batches", "train"):
        yield from option_faults(key, settings.get(key, {}))
    if wrong := weights.immodest(settings.get("net", {})):
        yield f": net: {wrong}"
    if pixels(settings.get("batches", {})) > MOST_PIXELS:
        most = f"a batch has more than {MOST_PIXELS:,} pixels"
        yield f": batches: {most}; lower batch or the size"


def number_faults(settings: Mapping[str, Any]) -> Iterator[str]:
    """The same of steps, seed and the like."""
    for key, least in {"steps": 1, "schedule": 1, "save_every": 1, "seed": 0}.items():
        value, most = settings.get(key, least), MOST_SEED if key == "seed" else MOST_STEPS
        if type(value) is not int or value < least:
            yield f": {key} must be a whole number from {least} up, got {value!r}"
        if value > most:
            yield f": {key} must be at most {most:,}, got a larger number"
    ema = settings.get("ema", 0)
    if type(ema) not in (int, float) or not 0 <= ema <= 1:
        yield f": ema must be a number from 0 to 1, got {ema!r}"


def option_faults(key: str, options: Any) -> Iterator[str]:
    """The same of what is handed on to a class."""
    if not isinstance(options, dict):
        yield f": {key} must be a mapping of options, got {options!r}"
    rule = f"finite numbers up to {MOST_NUMBER} and lists up to {MOST_LENGTH} long"
    for name, value in options.items():
        if not modest(value):
            came = shown(repr(value)[:60])
            yield f": {key}: {shown(str(name)[:40])} must hold {rule}, got {came}"


def modest(value: Any, depth: int = 3) -> bool:
    """Whether a setting holds finite numbers up to MOST_NUMBER, and short lists of such, only."""
    if isinstance(value, (list, dict)):
        parts = list(value.values()) if isinstance(value, dict) else value
        return depth > 0 and len(parts) <= MOST_LENGTH and all(modest(v, depth - 1) for v in parts)
    return not isinstance(value, (int, float)) or abs(value) <= MOST_NUMBER


def pixels(options: Mapping[str, Any]) -> int:
    """How many pixels a batch of these options has at most, as far as its options say it."""
    sides = [options.get(name, 0) for name in ("size", "sizes", "small", "most")]
    sides = [v for side in sides for v in (side if isinstance(side, list) else [side])]
    batch = options.get("batch", 16)
    numbers = [v for v in (*sides, batch) if isinstance(v, (int, float))]
    return int(batch * max(numbers[:-1], default=0) ** 2) if batch in numbers else 0


# ---- what it names


def make(kind: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """kind(*args, **options); ValueError names an option that it does not take, or not so."""
    defaults = {k: p.default for k, p in inspect.signature(kind).parameters.items()}
    for name, value in options.items():
        if not alike(value, defaults.get(name)):
            came = shown(repr(value)[:60])
            raise ValueError(f"{kind.__name__}: {name} must be like {defaults[name]!r}, got {came}")
    try:
        return kind(*args, **options)
    except TypeError as e:
        came = ", ".join(f"{k}: {v}" for k, v in options.items())
        raise ValueError(f"{kind.__name__} cannot be made with {{{came}}}: {e}") from e


def alike(value: Any, default: Any) -> bool:
    """Whether an option is of the kind of its default: a number, a word, or a list of such."""
    if isinstance(default, (list, tuple)) and default:
        return isinstance(value, (list, tuple)) and all(alike(v, default[0]) for v in value)
    if type(default) in (int, bool):
        return type(value) is type(default)
    return type(default) is not float or type(value) in (int, float)


def make_batches(
    settings: Mapping[str, Any], root: Path, net: Net
) -> Callable[[int], batches.Batch]:
    """The batches of a stage; `root` holds train_faces/ and train_photos/."""
    stage, faces = settings["stage"], root / "train_faces"
    options = {"seed": settings.get("seed", 0), **settings.get("batches", {})}
    if stage in ("face", "prior", "restoration"):
        folders = [root / name for name in options.pop("folders", ["train_faces"])]
        return make(batches.FaceBatches, folders, **options)
    if stage == "embedding":
        return make(batches.PersonBatches, faces, **options)
    if stage == "landmarks":
        marks = make(batches.LandmarkBatches, faces, **options)
        net.mean.copy_(torch.from_numpy(marks.mean))
        return marks
    photos = batches.Photos(root / "train_photos", faces if settings.get("faces", True) else None)
    if stage == "restorer":
        return make(batches.PhotoBatches, photos, **options)
    name = settings.get("restorer", "restorer" if stage == "refiner" else None)
    restorer = partial(padded, weights.load(name, nets.RestorerNet)) if name else None
    if stage == "refiner":
        return make(batches.UpsamplerBatches, photos, restorer, **options)
    return make(batches.SharpenerBatches, photos, scale=net.scale, restorer=restorer, **options)


def make_stage(settings: Mapping[str, Any]) -> Any:
    """The stage with its net, fresh or from `init`.

    `prior` gives the decoder and `critic` the discriminator of a restoration.
    """
    _, trainer = STAGES[settings["stage"]]
    net, options = make_net(settings), dict(settings.get("train", {}))
    if critic := settings.get("critic"):
        loaded = weights.load(critic)
        if not isinstance(loaded, (nets.Critic, nets.SpectralCritic)):
            came = f"those of a {type(loaded).__name__}: {critic}"
            raise ValueError(f"critic must be the weights of a discriminator, got {came}")
        options["critic"] = loaded.requires_grad_(True).train()
    if settings["stage"] == "restoration":
        options["judges"] = judges(options.get("weights", {}))
    return make(trainer, net, **options)


def make_net(settings: Mapping[str, Any]) -> Net:
    kind, options = STAGES[settings["stage"]][0], settings.get("net", {})
    with contextlib.suppress(TypeError):  # of which make says more
        shapes = weights.sketch(kind, options, weights.MOST_TENSORS)
        count = sum(p.numel() for p in shapes.parameters())
        if count > weights.MOST_PARAMETERS:
            raise ValueError(
                f"net: {options} has {count:,} parameters, more than a weights file holds "
                f"({weights.MOST_PARAMETERS:,}); choose smaller widths"
            )
    net = make(kind, **options)
    init, prior = settings.get("init"), settings.get("prior")
    try:
        if init:
            net.load_state_dict(weights.load(init, kind).state_dict())
        if prior:
            net.take(weights.load(prior, nets.Generator))
    except RuntimeError as e:
        other = f"{prior or init} was made with other widths or joins"
        raise ValueError(f"{other} than net: {options}") from e
    return net


def judges(terms: Mapping[str, float]) -> dict[str, torch.nn.Module]:
    """The nets that losses ask and that do not learn: our landmarks, and dlib's face net."""
    judges_by_name: dict[str, torch.nn.Module] = {}
    if terms.get("landmarks"):
        judges_by_name["landmarks"] = weights.load("landmarks", nets.LandmarkNet)
    if terms.get("identity") or terms.get("perception"):
        judges_by_name["likeness"] = likeness.dlib()
    return judges_by_name


# ---- the training


def run(
    settings: Mapping[str, Any],
    root: str | Path,
    out: str | Path,
    *,
    fabric: Any = None,
    **how: Any,
) -> Iterator[Record]:
    """Train as `settings` say, yielding each step's Record; then the averaged weights are written.

    how: resume, workers (1 by default) and tensorboard of `fit`. An adversarial stage leaves its
    discriminator in out/critic.safetensors.
    """
    torch.manual_seed(settings.get("seed", 0))
    stage = make_stage(settings)
    source = make_batches(settings, Path(root), stage.averaged)
    if settings.get("prior") and stage.averaged.draws:
        stage.averaged.fit_scales(source(0)["inputs"][0])
    options = {k: settings[k] for k in ("seed", "schedule", "ema", "save_every") if k in settings}
    options |= {"workers": 1, "fabric": fabric, **how}
    yield from fit(stage, source, settings["steps"], out, **options)
    if fabric is None or fabric.global_rank == 0:
        write_weights(settings, stage, Path(out))
    if fabric is not None:
        fabric.barrier()  # no process goes on before the files are there


def check_target(
    settings: Mapping[str, Any], file: str | Path, out: Path, overwrite: bool = False
) -> None:
    """Raises ImageError where the weights would replace what is read, or others than their own.

    file: of the settings. Weights that the same settings made before, for whatever steps, are
    replaced; others only with `overwrite`.
    """
    allowed = Claims(overwrite)
    allowed.reads(file, "the settings")
    for name in ("init", "prior", "critic", "restorer"):
        if settings.get(name):
            allowed.reads(weights.find(settings[name]), f"the weights of {name}")
    target = target_of(settings, out)
    allowed.claim(target, "the weights", replace=made_by(target, settings))


def target_of(settings: Mapping[str, Any], out: Path) -> Path:
    """Where the averaged net goes."""
    return Path(settings.get("weights") or out / f"{settings['stage']}.safetensors")


def made_by(target: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a file holds the weights of a training with these settings."""
    if not target.is_file():
        return False
    try:
        then = json.loads(weights.check(target)[0]["notes"])["settings"]
        return {**then, "steps": 0} == json.loads(json.dumps({**settings, "steps": 0}))
    except (ValueError, KeyError, TypeError):
        return False


def write_weights(settings: Mapping[str, Any], stage: Any, out: Path) -> None:
    """The averaged net, where the settings say or in `out`; a discriminator in `out`."""
    device = str(next(stage.averaged.parameters()).device)
    notes = {"settings": dict(settings), "steps": settings["steps"], "device": device}
    target = target_of(settings, out)
    target.parent.mkdir(parents=True, exist_ok=True)
    weights.save(stage.ema, target, **notes)
    if hasattr(stage, "adversary"):
        weights.save(stage.adversary.critic, out / "critic.safetensors", **notes)
