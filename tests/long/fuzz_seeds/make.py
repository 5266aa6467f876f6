"""The small good files from which the fuzzer starts, a folder for each target.

    python tests/long/fuzz_seeds/make.py     # writes them anew

They are committed, since encoders change and a case should be the same bytes everywhere.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))


def pictures() -> dict[str, bytes]:
    """Every format that is read, plain and with all that hangs on a picture."""
    from PIL import Image, ImageCms, TiffImagePlugin

    from mtrestore.io import codecs as formats

    small = np.random.default_rng(0).random((6, 7, 3))
    im = Image.fromarray((small * 255).astype(np.uint8))
    tags = Image.Exif()
    tags[271], tags[274] = "Maker", 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    rich = {"exif": tags.tobytes(), "icc_profile": profile}
    grey, palette = im.convert("L"), im.quantize(4)
    clear, deep = im.convert("RGBA"), (small * 65535).astype(np.uint16)
    raw = TiffImagePlugin.ImageFileDirectory_v2()
    raw[317] = 2  # the predictor
    files = {
        "rich.jpg": (im, "JPEG", rich),
        "progressive.jpg": (im, "JPEG", {"progressive": True}),
        "cmyk.jpg": (im.convert("CMYK"), "JPEG", {}),
        "two.mpo": (im, "MPO", {"save_all": True, "append_images": [im]}),
        "rich.png": (im, "PNG", rich),
        "palette.png": (palette, "PNG", {"transparency": 3}),
        "bits.png": (im.convert("1"), "PNG", {}),
        "deep.png": (Image.fromarray(deep[..., 0]), "PNG", {}),
        "alpha.png": (clear, "PNG", {}),
        "two.png": (grey, "PNG", {"save_all": True, "append_images": [grey]}),
        "rich.tif": (im, "TIFF", {"exif": tags}),
        "lzw.tif": (grey, "TIFF", {"compression": "tiff_lzw", "tiffinfo": raw}),
        "deflate.tif": (im, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "jpeg.tif": (im, "TIFF", {"compression": "jpeg"}),
        "float.tif": (Image.fromarray(small[..., 0].astype(np.float32)), "TIFF", {}),
        "lab.tif": (im.convert("LAB"), "TIFF", {}),
        "rich.webp": (im, "WEBP", {"exif": tags.tobytes()}),
        "lossless.webp": (clear, "WEBP", {"lossless": True}),
        "two.gif": (
            palette,
            "GIF",
            {"save_all": True, "append_images": [im.rotate(90).quantize(4)]},
        ),
        "plain.bmp": (im, "BMP", {}),
        "palette.bmp": (palette, "BMP", {}),
        "plain.ppm": (im, "PPM", {}),
        "rich.avif": (im, "AVIF", {"exif": tags.tobytes()}),
    }
    out = {}
    for name, (picture, format, options) in files.items():
        buffer = io.BytesIO()
        picture.save(buffer, format, **options)
        out[name] = buffer.getvalue()
    out |= {
        "deep-colour.png": formats.encode(deep, "PNG", None, tags.tobytes(), 95),
        "deep.tif": formats.encode(deep, "TIFF", None, None, 95),
    }
    return out | {
        "deep.ppm": b"P6 3 2 65535\n" + bytes(36),
        "digits.ppm": b"P3 2 1 255\n1 2 3 4 5 6\n",
        "digits.pbm": b"P1 3 1 1 0 1\n",
    }


def weight_files() -> dict[str, bytes]:
    """Of ours, and what other programs write."""
    import torch
    from safetensors.torch import save

    from mtrestore import nets, weights

    torch.manual_seed(0)
    net, out = nets.Refiner(width=4, blocks=1), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, one in (
            ("refiner", net),
            ("sharpener", nets.Sharpener(scale=2, width=4, blocks=1)),
        ):
            out[f"{name}.safetensors"] = weights.save(
                one, Path(folder) / "x.safetensors", steps=3
            ).read_bytes()
    out["plain.safetensors"] = save(net.state_dict())
    for name, zipped in (("zip.pth", True), ("old.pth", False)):
        buffer = io.BytesIO()
        torch.save(net.state_dict(), buffer, _use_new_zipfile_serialization=zipped)
        out[name] = buffer.getvalue()
    return out


def onnx_files() -> dict[str, bytes]:
    """A net of ours, and graphs of one or two nodes."""
    import onnx
    from onnx import TensorProto, helper

    from mtrestore import nets
    from mtrestore.fast import onnx as export

    def model(*nodes: Any, kind: int = TensorProto.FLOAT, **more: Any) -> bytes:
        ports = [
            [helper.make_tensor_value_info(name, kind, [1, 3, "h", "w"])]
            for name in ("picture", "restored")
        ]
        graph = helper.make_graph(list(nodes), "g", *ports, **more)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        ).SerializeToString()

    shape = helper.make_tensor("shape", TensorProto.INT64, [4], [1, 3, 8, 8])
    outside = onnx.TensorProto(
        name="bias", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL
    )
    outside.external_data.add(key="location", value="elsewhere.bin")
    node = helper.make_node
    with tempfile.TemporaryDirectory() as folder:
        net = export.export(
            nets.Sharpener(scale=1, width=4, blocks=1), Path(folder) / "x.onnx"
        ).read_bytes()
    branch = helper.make_graph(
        [node("Identity", ["picture"], ["c"])],
        "b",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)],
    )
    return {
        "sharpener.onnx": net,
        "identity.onnx": model(node("Identity", ["picture"], ["restored"])),
        "constant.onnx": model(
            node("ConstantOfShape", ["shape"], ["c"]),
            node("Add", ["picture", "c"], ["restored"]),
            initializer=[shape],
        ),
        "outside.onnx": model(
            node("Add", ["picture", "bias"], ["restored"]), initializer=[outside]
        ),
        "branch.onnx": model(
            node("If", ["yes"], ["restored"], then_branch=branch, else_branch=branch),
            initializer=[helper.make_tensor("yes", TensorProto.BOOL, [], [True])],
        ),
    }


def settings() -> dict[str, bytes]:
    """Sweeps of the notebook beside them, and trainings."""
    return {
        "sweep.yaml": b"notebook: n.ipynb\nparameters: {size: 64}\n"
        b"grid: {join: [concat, add]}\nseeds: [0, 1]\n"
        b"estimate: 4.5\n"
        b"report: {question: Does it help?, arm: join, baseline: add, by: [join], metrics: "
        b"[psnr]}\n",
        "texts.yaml": b"notebook: ./n.ipynb\ngrid:\n  name: ['a', \"b\\u00e4\", ../c]\n"
        b"  rate: [1.0e-4, 2]\n  flag: [true, no]\nslurm: {timeout_min: 60}\n",
        "face.yaml": b"stage: face\nnet: {widths: S}\nbatches: {sizes: [128], batch: 16}\n"
        b"train: {lr: 6.0e-4, weights: {pixel: 1.0}}\nsteps: 9000\nseed: 3\n",
        "odd.yaml": b"--- !!map\n? [a, b]\n: |\n  text\n... \n",
    }


def notebooks() -> dict[str, bytes]:
    source = [
        "size = 32  # px\n",
        "join = 'add'\n",
        "name = 'a'\n",
        "rate = 1e-3\n",
        "flag = True\n",
        "seed = 0\n",
        "out = 'outputs'\n",
    ]
    cell = {
        "cell_type": "code",
        "id": "p",
        "metadata": {"tags": ["parameters"]},
        "execution_count": None,
        "outputs": [],
        "source": source,
    }
    text = {"cell_type": "markdown", "id": "t", "metadata": {}, "source": "# A title"}
    whole = {"cells": [text, cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return {"n.ipynb": json.dumps(whole).encode()}


def run_folders() -> dict[str, bytes]:
    """The files of two runs, a line each: status, run, metrics, rows, curves; then the sweep's."""
    lines = []
    for join, psnr in (("add", 30.5), ("concat", 31.25)):
        made = {
            "parameters": {"join": join, "seed": 0, "out": "x"},
            "seed": 0,
            "notebook": "n.ipynb",
            "sha256": "ab",
            "git": None,
            "versions": {"python": "3.11"},
            "weights": {"face": "cd"},
            "hardware": {"cpu": "a", "cores": 2, "gpu": None, "threads": 1},
        }
        status = {
            "status": "done",
            "error": None,
            "seconds": 1.5,
            "parameters": {"join": join, "seed": 0},
        }
        rows = [
            {"picture": name, "severity": "mild", "psnr": psnr + i, "ssim": 0.5}
            for i, name in enumerate(("a.png", "b.png"))
        ]
        lines += [status, made, {"psnr": psnr, "ssim": None}, rows, {"loss": [[0, 1.0], [10, 0.5]]}]
    lines.append(
        {
            "notebook": "n.ipynb",
            "grid": {"join": ["add", "concat"]},
            "report": {"arm": "join", "baseline": "add", "title": "T"},
        }
    )
    return {"two.txt": "\n".join(map(json.dumps, lines)).encode()}


def bundles() -> dict[str, bytes]:
    """What `report.load` makes of the two runs, without its figures."""
    from mtrestore.lab import report

    sys.path.insert(0, str(HERE.parent))
    from fuzz import unfold

    with tempfile.TemporaryDirectory() as folder:
        unfold(run_folders()["two.txt"], Path(folder))
        found = report.load(folder)
    pair = {
        "place": "best",
        "name": "a",
        "arm": "add",
        "value": 30.5,
        "width": 8,
        "height": 6,
        "before": "data:image/png;base64,AAAA",
        "after": "data:image/png;base64,AAAA",
    }
    figures = {name: "data:image/svg+xml;base64,PHN2Zy8+" for name in found["figures"]}
    return {
        "two.json": json.dumps(
            {**found, "name": "two", "title": "T", "figures": figures, "pictures": [pair]}
        ).encode()
    }


def journals() -> dict[str, bytes]:
    row = {
        "name": "a.png",
        "input": "in/a.jpg",
        "output": "out/a.png",
        "status": "restored",
        "code": "",
        "message": "",
        "faces": [],
        "notes": ["n"],
        "seconds": 1.5,
        "input_sha256": "ab",
        "output_sha256": "cd",
        "made_by": "ef",
    }
    failed = {
        **row,
        "name": "b.png",
        "status": "failed",
        "code": "E_EMPTY",
        "message": "it is empty",
        "output_sha256": None,
    }
    return {"two.jsonl": "".join(f"{json.dumps(line)}\n" for line in (row, failed)).encode()}


if __name__ == "__main__":
    kinds = {
        "reader": pictures,
        "weights": weight_files,
        "onnx": onnx_files,
        "yaml": settings,
        "notebook": notebooks,
        "runs": run_folders,
        "bundle": bundles,
        "journal": journals,
    }
    for target, make in kinds.items():
        for name, data in make().items():
            (HERE / target).mkdir(exist_ok=True)
            (HERE / target / name).write_bytes(data)
            print(f"{target}/{name}: {len(data)} bytes")
