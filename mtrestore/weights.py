"""Weights in safetensors files with our own checksum: what is loaded is what was saved.

The safetensors format has no checksum and loads most single-bit flips silently, so a sha256 over
everything else in the file stands in its metadata. Values are stored as float16 and computed with
as float32. `check` needs no torch, so a bad file is refused before anything large is imported or
made.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import image
from .io.pickled import tensors_only
from .io.text import nearest, one_line, shown

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .nets.blocks import Net

FOLDER = Path(__file__).parent / "weights"
MOST_BYTES, MOST_HEADER = 256 * 2**20, 2**18
MOST = {"radius": 16, "eps": 1.0}  # of a net's arguments; of every other number 2048
MOST_TENSORS, MOST_PARAMETERS = 2048, MOST_BYTES // 2  # that a file holds, in float16
MOST_LEVELS = 8  # widths in a list, each of which may halve the size
CACHE = Path("~/.cache/mtrestore")
OPTIONAL = {
    "yunet": (
        "yunet_s_dynamic.onnx",
        "https://raw.githubusercontent.com/ShiqiYu/libfacedetection.train/2b5e61dee21441ef4676505f835ab63ee53bae1e/onnx/yunet_s_dynamic.onnx",
        "daede24002cc8590f457998cc5e6c9e8b82f45f6bd969506a8913cd4ed10a2d3",
    )
}  # name -> file in the cache, address, sha256; Apache-2.0
LICENCE = "CC BY-NC-SA 4.0 (no commercial use)"
ABOUT = {  # what each shipped net is for
    "embedding": "tells how alike two faces are, for measuring; restores nothing",
    "face": "restores each face, with living texture",
    "face_fidelity": "restores much blurred faces, and all with --face-fidelity 1; smoother",
    "landmarks": "468 points on each face, by which it is cut out upright",
    "prior": "draws faces from random numbers, for notebook 12; restores nothing",
    "restorer": "restores the whole photo, at a small size",
    "sharpener_x1": "sharpens the result",
    "sharpener_x2": "sharpens the result while doubling its size, from --scale 2 on",
    "upsampler": "brings the restored small photo back to full size: guided filter and refiner",
}
KEYS = {"net", "config", "notes", "sha256"}
UNFIT = (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError)  # of a wrong net


class WeightsError(ValueError):
    """A weights file that is missing, damaged or made for another net; the message is one line."""


def split(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """(header, raw tensor bytes) of a safetensors file: eight bytes of length, JSON, values."""
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(len(data) - 8, MOST_HEADER):
        raise ValueError("the header is longer than the file, or than any of ours")
    return json.loads(data[8 : 8 + length]), memoryview(data)[8 + length :]


def digest(header: dict[str, Any], values: bytes | memoryview) -> str:
    """sha256 over the header's content, without the digest itself, and the values."""
    meta = {k: v for k, v in header["__metadata__"].items() if k != "sha256"}
    sha = hashlib.sha256(json.dumps({**header, "__metadata__": meta}, sort_keys=True).encode())
    sha.update(values)
    return sha.hexdigest()


def save(net: Net, path: str | Path, dtype: torch.dtype | None = None, **notes: object) -> Path:
    """Write a net, in float16 by default, with what is needed to rebuild it.

    `notes` (settings, steps, ...) are kept as JSON. The same net and notes give the same bytes: the
    metadata, which safetensors would write in any order, is sorted.
    """
    import torch
    from safetensors.torch import save as serialise

    dtype = dtype or torch.float16
    tensors = {
        k: v.detach().cpu().to(dtype if v.is_floating_point() else v.dtype).contiguous()
        for k, v in net.state_dict().items()
    }
    if bad := [k for k, v in tensors.items() if not torch.isfinite(v.float()).all()]:
        raise WeightsError(f"refusing to save weights that are not finite: {bad[0]}")
    header, values = split(serialise(tensors))
    meta = {"config": json.dumps(net.config), "net": type(net).__name__, "notes": json.dumps(notes)}
    meta["sha256"] = digest({**header, "__metadata__": meta}, values)
    text = json.dumps({"__metadata__": meta, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the values begin at a multiple of eight
    return image.write_bytes(Path(path), struct.pack("<Q", len(text)) + text + values)


def check(name: str | Path) -> tuple[dict[str, str], bytes]:
    """(metadata, bytes) of a weights file whose every bit is as it was saved; or WeightsError."""
    path = find(name)
    try:
        data = image.read_bytes(path, max_bytes=MOST_BYTES)
    except image.ImageError as e:
        raise WeightsError(f"weights cannot be read: {e}") from e
    try:
        header, values = split(data)
        meta = header["__metadata__"]
        if not KEYS <= meta.keys() or not all(isinstance(v, str) for v in meta.values()):
            raise ValueError("not ours")
        sha256 = digest(header, values)
    except (struct.error, ValueError, KeyError, AttributeError, TypeError, RecursionError) as e:
        why = "is not a weights file of mtrestore, or it is damaged"
        form = "expected a .safetensors made by `mtrestore train`"
        if data.startswith(b"version https://git-lfs"):
            form += "; this one is a pointer: run `git lfs pull`"
        raise WeightsError(f"{path.name} {why}; {form}") from e
    if sha256 != meta["sha256"]:
        raise WeightsError(f"{path.name} is damaged: its sha256 does not match; get the file again")
    return meta, data


def load(name: str | Path, kind: type[Net] | None = None) -> Net:
    """A net, ready for inference, from a shipped name ("face", see `shipped()`) or a file.

    What `save` noted is on `net.notes`. Raises WeightsError when the file is missing, damaged (any
    flipped bit), not ours, or not a `kind`.
    """
    meta, data = check(name)
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    from .nets import REGISTRY

    file = find(name).name
    try:
        net_class, config, tensors = REGISTRY[meta["net"]], json.loads(meta["config"]), parse(data)
        if wrong := immodest(config):
            raise ValueError(wrong)
        net = sketch(net_class, config, min(len(tensors), MOST_TENSORS))
        net.load_state_dict(fitting(net, tensors), assign=True)
        notes = {**json.loads(meta["notes"]), "sha256": meta["sha256"], "file": file}
    except (SafetensorError, *UNFIT) as e:
        raise WeightsError(f"{file} does not fit its net: {one_line(e)[:200]}") from e
    if kind and not isinstance(net, kind):
        raise WeightsError(f"{file} holds a {meta['net']}, expected a {kind.__name__}")
    net.notes = notes
    net.eval().requires_grad_(False)
    return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # no stub


def sketch(kind: type[Net], config: dict[str, Any], tensors: int) -> Net:
    """A net of shapes alone, on torch's meta device, so that no configuration can claim memory.

    Raises ValueError as soon as it has more than so many tensors, and what its constructor raises.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Undrawn(TorchFunctionMode):
        """Nothing is drawn: normal_ of a meta tensor alone loads torch's compiler, two seconds."""

        left = tensors

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            self.left -= func in (torch.empty, torch.randn)  # what weights begin as
            if self.left < 0:
                raise ValueError(f"its net has more tensors than the {tensors} that there may be")
            if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
                return args[0]
            return func(*args, **(kwargs or {}))

    with torch.device("meta"), Undrawn():
        return kind(**config)


def adopt(net: nn.Module, path: str | Path, sha256: str | None = None) -> nn.Module:
    """The net, filled with weights that were made elsewhere.

    path: a state dict in a .safetensors file, or in a file of torch.save. It carries no checksum of
    ours, so give its sha256 where you know it. It may hold tensors and plain values, never code;
    names, shapes and kinds must be the net's, and every value finite. Raises WeightsError and
    leaves the net as it was.
    """
    import torch
    from safetensors.torch import load as parse

    try:
        data, name = image.read_bytes(path, max_bytes=MOST_BYTES), Path(path).name
    except image.ImageError as e:
        raise WeightsError(f"weights cannot be read: {e}") from e
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        why = "is not the file it should be: its sha256 is another; get the file again"
        raise WeightsError(f"{name} {why}")
    try:
        if data[8:9] == b"{":
            split(data)
            tensors: Any = parse(data)
        else:
            tensors = tensors_only(data)
        parts = (tensors.get(name) for name in ("params_ema", "params", "state_dict"))
        tensors = next((part for part in parts if isinstance(part, dict)), tensors)
        with torch.no_grad():
            net.load_state_dict(fitting(net, tensors, exact=True))
    except Exception as e:  # torch, zipfile and pickle raise many kinds
        raise WeightsError(f"{name} holds no weights for this net: {one_line(e)[:200]}") from e
    return net


def fitting(net: nn.Module, tensors: dict[str, Any], exact: bool = False) -> dict[str, Any]:
    """The tensors, if they are the net's by name, shape, kind and finite values.

    Other precisions are converted unless `exact`.
    """
    import torch

    own, values = net.state_dict(), {}
    if odd := sorted(own.keys() ^ tensors.keys(), key=str):
        raise ValueError(f"{odd[0]!r:.80} is {'missing' if odd[0] in own else 'not of this net'}")
    for name, like in own.items():
        value = tensors[name]
        plain = isinstance(value, torch.Tensor) and value.layout is torch.strided
        if not plain or value.device.type != "cpu":
            raise ValueError(f"{name} is no plain tensor")
        if value.shape != like.shape:
            shapes = f"{tuple(value.shape)}, expected {tuple(like.shape)}"
            raise ValueError(f"{name} has the shape {shapes}")
        floats = value.is_floating_point() and like.is_floating_point()
        if value.dtype != like.dtype and (exact or not floats):
            raise ValueError(f"{name} is {value.dtype}, expected {like.dtype}")
        values[name] = value.to(like.dtype)
        if not torch.isfinite(values[name]).all():
            raise ValueError(f"{name} holds values that are not finite")
    return values


def immodest(config: Any) -> str | None:
    """What is wrong with a net's arguments; None where each is one that a net of ours can have."""
    if not isinstance(config, dict) or len(config) > 16:
        return "its configuration must be a mapping of a few arguments"
    for name, value in config.items():
        most = MOST.get(name, 2048)
        if isinstance(value, (list, tuple)):
            whole = all(type(v) is int and 1 <= v <= most for v in value)
            right = whole and len(value) <= MOST_LEVELS
        elif isinstance(value, str):
            right = len(value) <= 40
        else:
            least = 1 if name.endswith("width") or name in ("hidden", "out") else 0
            right = isinstance(value, (int, float)) and least <= value <= most
        if not right:
            return (
                f"{name[:40]} must be a number up to {most}, a word, or at most {MOST_LEVELS} "
                f"whole numbers from 1 to {most}; got {shown(repr(value)[:60])}"
            )
    return None


def find(name: str | Path) -> Path:
    """The file of a shipped name, or the path itself."""
    path = Path(name)
    if path.suffix:
        return path
    path = FOLDER / f"{name}.safetensors"
    if not path.is_file():
        there = ", ".join(shipped()) or "none"
        raise WeightsError(
            f"no weights called {str(name)!r} are installed; there are: {there}; "
            f"train them with `mtrestore train`{nearest(name, shipped())}"
        )
    return path


def shipped() -> dict[str, Path]:
    """Name -> file of the weights that come with the package."""
    return {p.stem: p for p in sorted(FOLDER.glob("*.safetensors"))}


def about() -> list[str]:
    """Two lines for each net that a restoration may use: what it is for; what, how large, whose."""
    lines = []
    for name, path in shipped().items():
        meta, data = check(name)
        header, _ = split(data)
        shapes = [t["shape"] for n, t in header.items() if n != "__metadata__"]
        notes = json.loads(meta["notes"])
        lines += [
            f"{name:14}{ABOUT.get(name, '')}",
            f"{'':14}{meta['net']}, {mebibytes(path)}, {sum(map(math.prod, shapes)):,} values, "
            f"{notes.get('steps', '?')} steps; by mtrestore, {LICENCE}; "
            f"sha256 {meta['sha256'][:12]}",
        ]
    yunet = yunet_path()
    there = f"{mebibytes(yunet)}, here" if yunet.is_file() else "`mtrestore models fetch yunet`"
    return [
        *lines,
        f"{'mtcnn':14}finds faces, with five points",
        f"{'':14}MTCNN of Zhang et al. (2016), in the package mtcnn-runtime, 1.9 MiB; Apache-2.0",
        f"{'yunet':14}finds faces instead, where it was fetched",
        f"{'':14}YuNet of Wu et al. (2023), {there}; Apache-2.0",
        "What ours were trained on, and what they do badly: mtrestore/weights/MODEL_CARD.md",
    ]


def mebibytes(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:.2g} MiB"


def exported(name: str) -> Path:
    """Where the ONNX export of shipped weights is kept on this machine.

    Other weights have another name, so they never meet an old file.
    """
    return CACHE.expanduser() / f"{name}-{check(name)[0]['sha256'][:16]}.onnx"


def yunet_path() -> Path:
    """Where the detector that a person fetched would lie."""
    return Path(os.environ.get("MTRESTORE_YUNET") or CACHE / OPTIONAL["yunet"][0]).expanduser()


def fetch(name: str) -> Path:
    """Download an optional model into the cache, where it is then found.

    Its sha256 is checked before it gets its name.
    """
    import pooch

    if name not in OPTIONAL:
        hint = nearest(name, OPTIONAL)
        there = f"there is {', '.join(OPTIONAL)}{hint}"
        raise WeightsError(f"no optional model is called {name!r}; {there}")
    file, address, sha = OPTIONAL[name]
    folder = CACHE.expanduser()
    try:
        return Path(pooch.retrieve(address, f"sha256:{sha}", file, folder, progressbar=False))
    except Exception as e:  # requests and urllib3 raise many kinds
        kept = folder / file
        raise WeightsError(
            f"{name} could not be fetched ({type(e).__name__}); "
            f"when offline, put the file (sha256 {sha[:12]}...) at {kept}"
        ) from e
