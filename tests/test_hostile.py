"""Weights, settings and names that were made to harm: nothing in them runs, nothing large is made,
and the answer is one line.

Pictures made to harm are in test_image.py, test_corpus.py and test_fuzz.py.
"""

import hashlib
import inspect
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import AttributeProto, ModelProto, SparseTensorProto, TensorProto, helper, numpy_helper
from safetensors.torch import save as safetensors
from test_weights import SMALL, forged, made

from mtrestore import image, nets, pipeline, view, weights
from mtrestore.fast import onnxfile
from mtrestore.folder import one_file as task
from mtrestore.io import files
from mtrestore.training import settings as plan
from mtrestore.weights import WeightsError

MIB = 1 << 20


def refused(read, *args, seconds: float = 1.0, error: type = WeightsError, **options) -> str:
    """The line that an error says, which must come soon (in seconds of the processor) and be one
    line.
    """
    began = time.process_time()
    with pytest.raises(error) as caught:
        read(*args, **options)
    assert time.process_time() - began < seconds
    text = str(caught.value)
    assert type(caught.value) is error and text.isprintable() and 20 < len(text) < 400
    return text


def torch_file(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def packed(data: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The same zip file, its members compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return out.getvalue()


class Touch:
    """Unpickled, it makes the file `canary`."""

    def __init__(self, canary: Path):
        self.canary = str(canary)

    def __reduce__(self):
        return os.open, (self.canary, os.O_CREAT)


# ---- weights made elsewhere ----------------------------------------------------------------------

STATE = made().state_dict()


@pytest.mark.parametrize(
    "make",
    [
        lambda: safetensors(STATE),
        lambda: safetensors(STATE, {"format": "pt"}),
        lambda: torch_file(STATE),
        lambda: torch_file(STATE, _use_new_zipfile_serialization=False),
        lambda: torch_file({"params_ema": STATE, "iter": 5}),
        lambda: torch_file({"state_dict": STATE}),
        lambda: torch_file({k: torch.nn.Parameter(v) for k, v in STATE.items()}),
    ],
    ids=["safetensors", "metadata", "torch", "old torch", "params_ema", "state_dict", "parameters"],
)
def test_good_weights_from_elsewhere_are_taken(tmp_path, make):
    (tmp_path / "x").write_bytes(make())
    net = nets.Refiner(**SMALL["Refiner"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert weights.adopt(net, tmp_path / "x", hashlib.sha256(make()).hexdigest()) is net
    assert all(torch.equal(v, STATE[k]) for k, v in net.state_dict().items())


def changed(**new) -> dict:
    return {**STATE, **{k.replace("__", "."): v for k, v in new.items()}}


BIAS = STATE["body.0.bias"]
HOSTILE = {
    "not finite": lambda: torch_file(changed(body__0__bias=BIAS / 0)),
    "nan": lambda: safetensors(changed(body__0__bias=BIAS * np.nan)),
    "missing": lambda: torch_file({k: v for k, v in STATE.items() if k != "body.0.bias"}),
    "more": lambda: torch_file(changed(extra=torch.zeros(1))),
    "shape": lambda: torch_file(changed(body__0__bias=torch.zeros(5))),
    "half": lambda: torch_file({k: v.half() for k, v in STATE.items()}),
    "complex": lambda: torch_file(changed(body__0__bias=BIAS + 1j)),
    "whole numbers": lambda: safetensors(changed(body__0__bias=BIAS.long())),
    "sparse": lambda: torch_file(changed(body__0__bias=BIAS.to_sparse())),
    "no tensor": lambda: torch_file(changed(body__0__bias=3)),
    "4 TB view": lambda: torch_file(changed(body__0__bias=torch.zeros(1).expand(10**12))),
    "meta": lambda: torch_file(changed(body__0__bias=BIAS.to("meta"))),
    "list": lambda: torch_file(list(STATE.values())),
    "tensor": lambda: torch_file(torch.zeros(3)),
    "none": lambda: torch_file(None),
    "numbers for names": lambda: torch_file({1: torch.zeros(1)}),
    "module": lambda: torch_file(torch.nn.Conv2d(3, 4, 3)),
    "prefix": lambda: torch_file({f"module.{k}": v for k, v in STATE.items()}),
    "300 others": lambda: torch_file({f"layer{i}\n.w": torch.zeros(2) for i in range(300)}),
    "packed": lambda: packed(torch_file(STATE)),
    "bomb": lambda: packed(torch_file({"body.0.bias": torch.zeros(32 << 20)})),
    "cut": lambda: torch_file(STATE)[:-100],
    "cut safetensors": lambda: safetensors(STATE)[:-1],
    "empty": lambda: b"",
    "PK": lambda: b"PK\3\4",
    "html": lambda: b"<html><title>404 Not Found</title></html>",
    "pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
    "numpy": lambda: (
        np.lib.format.magic(1, 0) + b"v\0{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_does_not_fit_is_refused_in_one_line_at_once(tmp_path, kind):
    (tmp_path / "x.pth").write_bytes(HOSTILE[kind]())
    net = made()
    refused(weights.adopt, net, tmp_path / "x.pth")
    refused(weights.load, tmp_path / "x.pth")
    assert all(torch.equal(v, STATE[k]) for k, v in net.state_dict().items()), (
        "the net is as it was"
    )


def headed(header: bytes | dict, values: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


FOUR = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
HEADERS = {
    "overlapping": headed({"a": FOUR, "b": FOUR}, bytes(16)),
    "twice": headed(b'{"a":%s,"a":%s}' % ((json.dumps(FOUR).encode(),) * 2), bytes(16)),
    "hole": headed({"a": {**FOUR, "data_offsets": [16, 32]}}, bytes(32)),
    "outside": headed({"a": {**FOUR, "data_offsets": [0, 1600]}}, bytes(16)),
    "negative": headed({"a": {**FOUR, "data_offsets": [-16, 0]}}, bytes(16)),
    "sides overflow": headed({"a": {**FOUR, "shape": [2**62] * 2}}, bytes(16)),
    "no kind": headed({"a": {**FOUR, "dtype": "F99"}}, bytes(16)),
    "deep": headed(b'{"a":' * 20000 + b"1" + b"}" * 20000),
    "20000 tensors": headed({f"t{i}": {"dtype": "F32", "shape": [0],
    "data_offsets": [0, 0]} for i in range(20000)}),
    "2000 tensors": headed({f"t{i}": {"dtype": "F32", "shape": [0],
    "data_offsets": [0, 0]} for i in range(2000)}),
    "2^63": struct.pack("<Q", 2**63) + b"{}" * 50, "100 MB": struct.pack("<Q", 10**8) + b"{" * 64,
    "no JSON": headed(b"{not json"),
    "no UTF-8": headed(b'{"\xff":1}'),
    "metadata": headed({"__metadata__": {"a": 1}, "a": FOUR}, bytes(16)),
    "float shape": headed({"a": {**FOUR, "shape": [4.5]}}),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_that_lie_are_refused_in_one_line_at_once(tmp_path, kind):
    (tmp_path / "x.safetensors").write_bytes(HEADERS[kind])
    refused(weights.adopt, made(), tmp_path / "x.safetensors")
    refused(weights.load, tmp_path / "x.safetensors")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["whole", "value", "beside", "zip", "checkpoint"])
def test_no_code_in_a_file_ever_runs(tmp_path, protocol, place):
    canary, path = tmp_path / "canary", tmp_path / "step-00000001.pt"
    content = {"whole": Touch(canary), "value": changed(body__0__bias=Touch(canary))}.get(
        place, {"params_ema": STATE, "meta": Touch(canary)}
    )
    data = (
        pickle.dumps(content, protocol)
        if place != "zip"
        else torch_file(content, pickle_protocol=max(protocol, 2))
    )
    path.write_bytes(data)
    if place == "checkpoint":
        from mtrestore.training.fit import newest_checkpoint

        assert newest_checkpoint(tmp_path) is None
    for read in (
        weights.load,
        weights.check,
        lambda p: weights.adopt(made(), p),
        pipeline.onnx_net,
    ):
        refused(read, path, seconds=3)
    assert not canary.exists()
    torch.load(path, weights_only=False) if place == "zip" else pickle.loads(data)
    assert canary.exists(), "elsewhere it would have run"


def test_two_hundred_flipped_bits_of_a_shipped_file_are_found(tmp_path):
    """check compares every bit, also of a file with a million values.

    A pinned sha256 does it for files from elsewhere.
    """
    data, path = (
        weights.FOLDER.joinpath("sharpener_x1.safetensors").read_bytes(),
        tmp_path / "x.safetensors",
    )
    pin, found = hashlib.sha256(data).hexdigest(), 0
    for bit in np.random.default_rng(0).permutation(len(data) * 8)[:200].tolist():
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        for read in (weights.check, lambda p: weights.adopt(made(), p, pin)):
            refused(read, path)
        found += 1
    assert found == 200
    path.write_bytes(data)
    assert weights.load(path).notes["file"] == "x.safetensors"


def test_values_that_are_not_finite_are_refused_even_with_our_checksum(tmp_path):
    for value in (np.nan, np.inf, -np.inf):
        (tmp_path / "x.safetensors").write_bytes(
            forged(tensors=changed(body__0__bias=BIAS * 0 + value))
        )
        assert "body.0.bias holds values that are not finite" in refused(
            weights.load, tmp_path / "x.safetensors"
        )


def test_a_file_too_large_to_be_weights_is_not_read(tmp_path):
    for name in ("x.safetensors", "x.pth"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 1 << 40)
        assert "more than the limit" in refused(weights.load, tmp_path / name)
        assert "more than the limit" in refused(weights.adopt, made(), tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_no_weights_file(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    for read in (
        weights.load,
        lambda p: weights.adopt(made(), p),
        pipeline.onnx_net,
        plan.read_settings,
        files.read_yaml,
    ):
        with pytest.raises(ValueError, match="not a regular file"):
            read(tmp_path / "x.safetensors")


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    (tmp_path / "face.safetensors").write_bytes(HOSTILE["pointer"]())
    assert "git lfs pull" in refused(weights.load, tmp_path / "face.safetensors")


def empty_tensors(names) -> dict:
    return {name: torch.zeros(0) for name in names}


@pytest.mark.parametrize(
    ("net", "config", "count"),
    [
        ("Refiner", {"width": 4, "blocks": 2048}, 0),
        ("RestorerNet", {"widths": [4] * 8, "blocks": 2048}, 0),
        ("RestorerNet", {"widths": [16] * 16, "blocks": 2048}, 0),
        ("GuidedUpsampler", {"width": 4, "blocks": 2048}, 0),
        ("Sharpener", {"width": 4, "blocks": 2048}, 0),
        ("Refiner", {"width": 4, "blocks": 2048}, 900),
        ("RestorerNet", {"widths": [2048] * 8, "blocks": 2048}, 900),
        ("FaceNet", {"widths": [2048] * 6}, 0),
        ("Generator", {"widths": [2048] * 6}, 0),
        ("Critic", {"widths": [2048] * 6}, 0),
        ("FaceEmbedding", {"widths": [2048] * 8, "out": 2048}, 0),
        ("LandmarkNet", {"widths": [2048] * 8, "hidden": 2048}, 0),
        ("DeepGuidedFilter", {"width": 2048, "radius": 2048}, 0),
        ("GuidedUpsampler", {"guide_width": 2048, "radius": 17}, 0),
        ("RestorerNet", {"widths": [1] * 9}, 0),
        ("Refiner", {"width": 0, "blocks": 2048}, 0),
        ("FaceNet", {"widths": {"0": 4}}, 0),
    ],
    ids=lambda v: str(v)[:40],
)
def test_a_net_of_many_pieces_or_great_widths_is_refused_at_once(tmp_path, net, config, count):
    """Whatever a header says: no more is made than the file has tensors for."""
    (tmp_path / "x.safetensors").write_bytes(
        forged(net, config, tensors=empty_tensors(f"t{i}" for i in range(count)))
    )
    assert "does not fit its net" in refused(weights.load, tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "name",
    sorted(
        {
            n
            for c in nets.REGISTRY.values()
            for n in inspect.signature(c.__init__).parameters
            if n != "self"
        }
    ),
)
def test_every_argument_of_every_net_is_bounded(name):
    numbers = 2049, 10**30, -1, -1e9, 1e300, float("nan")
    for value in (
        *numbers,
        [1] * 9,
        [2049],
        [0],
        [1.5],
        [[1]],
        ["4"],
        [True],
        {},
        {"a": 1},
        "x" * 41,
    ):
        assert weights.immodest({name: value}).startswith(f"{name} must be a number up to")


@pytest.mark.parametrize("net", SMALL)
def test_arguments_that_nets_have_are_taken(net):
    assert weights.immodest(json.loads(json.dumps(SMALL[net]))) is None
    assert weights.immodest(nets.REGISTRY[net]().config) is None


COST = """
import resource, sys, time
from mtrestore import weights
from mtrestore.weights import WeightsError
import torch, mtrestore.nets, safetensors.torch
net = mtrestore.nets.Refiner()
imported, base = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for read in (weights.load, lambda path: weights.adopt(net, path)):
    try:
        read(sys.argv[1])
    except WeightsError as e:
        print(str(e).isprintable())
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(time.process_time() - imported, (most - base) / 1024)
"""


class Allocate:
    """Unpickled, it makes 3 GiB of zeros: no code, so a careful loader may allow it."""

    def __reduce__(self):
        return bytearray, (3 << 30,)


COSTLY = {
    "many tensors of a real net": lambda: forged(
        "Refiner", {"width": 1, "blocks": 640}, tensors=nets.Refiner(1, 640).state_dict()
    ),
    "one megabyte": lambda: forged(
        "Refiner", {"width": 1, "blocks": 2048}, tensors={"t": torch.zeros(240_000)}
    ),
    "deep header": lambda: headed(b'{"a":' * 900 + b"1" + b"}" * 900),
    "bytearray": lambda: torch_file({"a": Allocate()}),
    "old bytearray": lambda: torch_file({"a": Allocate()}, _use_new_zipfile_serialization=False),
    "bare bytearray": lambda: pickle.dumps(Allocate(), 2),
    "a million steps": lambda: pickle.dumps([()] * 900_000, 2),
    "many views": lambda: torch_file({f"t{i}": v for i, v in enumerate([torch.zeros(9)] * 3000)}),
}


@pytest.mark.parametrize("kind", COSTLY)
def test_a_weights_file_of_one_megabyte_costs_two_seconds_and_300_mib_at_most(tmp_path, root, kind):
    data = COSTLY[kind]()
    assert len(data) <= 1 << 20
    (tmp_path / "x.safetensors").write_bytes(data)
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COST, tmp_path / "x.safetensors"],
        capture_output=True,
        text=True,
        env=env,
    )
    *lines, numbers = done.stdout.splitlines()
    seconds, mib = map(float, numbers.split())
    assert set(lines) == {"True"} and not done.stderr and seconds < 2 and mib < 300


# ---- ONNX ----------------------------------------------------------------------------------------


def onnx_file(tensor: TensorProto, op: str = "Add", domain: str = "") -> bytes:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, "h", "w"]) for n in "xy")
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "b"], ["y"], domain=domain)], "g", [x], [y], [tensor]
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def outside(place: str) -> TensorProto:
    """Values that are said to lie in another file."""
    tensor = TensorProto(
        name="b", data_type=TensorProto.FLOAT, dims=[1, 3, 1, 1], data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", place), ("offset", "0"), ("length", "12")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


ONES = numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "b")


@pytest.mark.parametrize("data", [
    b"", bytes(range(256)) * 4, b"\x80\4N.", onnx_file(ONES)[:-20], onnx_file(ONES, "Evil", "evil"),
    onnx_file(outside("/etc/passwd")),
    onnx_file(outside("../x.bin")), onnx_file(outside("x.bin")), onnx_file(outside("/dev/zero")),
    onnx_file(TensorProto(name="b", data_type=1, dims=[2**40, 2**20], raw_data=b"1234")),
], ids=["empty", "noise", "pickle", "cut", "unknown op", "absolute", "parent", "beside", "device",
"giant"])  # fmt: skip
def test_an_onnx_file_that_is_broken_or_reads_other_files_is_refused(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.bin").write_bytes(bytes(64))
    (tmp_path / "x.onnx").write_bytes(data)
    assert refused(pipeline.onnx_net, tmp_path / "x.onnx", seconds=3).startswith(
        "x.onnx is not an ONNX model that can be run"
    )


def test_onnx_good_giant_and_missing(tmp_path):
    (tmp_path / "x.onnx").write_bytes(onnx_file(ONES))
    assert torch.equal(
        pipeline.onnx_net(tmp_path / "x.onnx")(torch.zeros(1, 3, 2, 2)), torch.ones(1, 3, 2, 2)
    )
    os.truncate(tmp_path / "x.onnx", 1 << 40)
    for name in ("x.onnx", "y.onnx"):
        assert refused(pipeline.onnx_net, tmp_path / name).startswith(
            "the ONNX file cannot be read"
        )


def far(size: int = 48) -> TensorProto:
    """Values in x.bin of the current folder, as many as onnxruntime reads (it refuses a few)."""
    tensor = outside("x.bin")
    del tensor.dims[:]
    tensor.dims.append(size)
    tensor.external_data[2].value = str(4 * size)
    return tensor


def hidden(place: str) -> ModelProto:
    """A model that keeps values in another file, and says so at this place only."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, "h", "w"]) for n in "xy")
    node = helper.make_node("Identity", ["x"], ["y"])
    inner = helper.make_graph(
        [helper.make_node("Identity", ["b"], ["z"])],
        "inner",
        [],
        [helper.make_tensor_value_info("z", 1, None)],
        [far()],
    )
    sparse = SparseTensorProto(
        values=far(), indices=numpy_helper.from_array(np.arange(48), "i"), dims=[64]
    )
    about = {
        "t": {"t": far()},
        "tensors": {"tensors": [far()]},
        "subgraph": {"g": inner},
        "subgraphs": {"graphs": [inner]},
        "sparse": {"sparse_tensor": sparse},
        "sparse list": {"sparse_tensors": [sparse]},
    }
    attribute = AttributeProto(name="value", **about.get(place.removeprefix("function "), {}))
    if place in about:
        node.attribute.append(attribute)
    graph = helper.make_graph([node], "g", [x], [y], [far()] if place == "initializer" else [])
    if place.startswith("sparse ini"):
        graph.sparse_initializer.append(sparse)
    if place == "sparse initializer's indices":
        graph.sparse_initializer[0].CopyFrom(
            SparseTensorProto(
                values=numpy_helper.from_array(np.ones(48, np.float32), "b"),
                indices=far(),
                dims=[64],
            )
        )
    if place == "deep":
        for _ in range(20):
            outer = helper.make_node("If", ["c"], ["z"])
            outer.attribute.append(AttributeProto(name="then_branch", g=inner))
            inner = helper.make_graph([outer], "g", [], [])
        graph.node[0].attribute.append(AttributeProto(name="value", g=inner))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if place.startswith("function "):
        inside = helper.make_node("Constant", [], ["q"])
        function = helper.make_function(
            "own", "F", [], ["q"], [inside], [helper.make_opsetid("", 17)]
        )
        (
            function.attribute_proto if place.endswith("default") else function.node[0].attribute
        ).append(AttributeProto(name="value", t=far()))
        model.functions.append(function)
    if place == "training":
        model.training_info.add().algorithm.CopyFrom(inner)
    return model


PLACES = [
    "initializer",
    "t",
    "tensors",
    "subgraph",
    "subgraphs",
    "sparse",
    "sparse list",
    "sparse initializer",
    "sparse initializer's indices",
    "deep",
    "function t",
    "function default",
    "training",
]


@pytest.mark.parametrize("place", PLACES)
def test_an_onnx_file_that_keeps_values_elsewhere_is_refused_wherever_it_says_so(
    tmp_path, monkeypatch, place
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MTRESTORE_YUNET", str(tmp_path / "x.onnx"))
    (tmp_path / "x.bin").write_bytes(np.full(48, 0.25, np.float32).tobytes())
    (tmp_path / "x.onnx").write_bytes(hidden(place).SerializeToString())
    for read in (
        pipeline.onnx_net,
        onnxfile.read,
        lambda p: task.made_by({"restorer": str(p)}),
        lambda _: task.made_by({}),
    ):
        assert "some of its values lie in another file; save it with all of them inside" in refused(
            read, tmp_path / "x.onnx"
        )


def test_a_model_of_the_current_folder_reads_nothing_of_it(tmp_path, monkeypatch):
    """onnxruntime, given bytes, would multiply with the mean of x.bin; inside it is taken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.bin").write_bytes(np.full(48, 0.25, np.float32).tobytes())
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, None, None]) for n in "xy")
    nodes = [
        helper.make_node("ReduceMean", ["b"], ["s"], keepdims=0),
        helper.make_node("Mul", ["x", "s"], ["y"]),
    ]
    for values, good in (
        (far(), False),
        (numpy_helper.from_array(np.full(48, 0.25, np.float32), "b"), True),
    ):
        model = helper.make_model(
            helper.make_graph(nodes, "g", [x], [y], [values]),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )
        (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
        if good:
            assert (
                float(pipeline.onnx_net(tmp_path / "x.onnx")(torch.ones(1, 3, 2, 2)).mean()) == 0.25
            )
        else:
            refused(pipeline.onnx_net, tmp_path / "x.onnx")


@pytest.mark.parametrize(
    "data",
    [
        b"\x3b" + b"\x3c",
        b"\x00\x01",
        b"\x3a\xff\xff\xff\xff\x7f",
        b"\x3a\x05abc",
        b"\xba\x80\x80\x80\x80\x01\x00",
        b"\x08" + b"\x80" * 12,
        b"\x08",
        b"\x08\x00ABORTM" + bytes(40),
        b"\x0f",
        b"\x08\x01" * 1_000_001,
    ],
    ids=[
        "group",
        "number 0",
        "longer than the file",
        "cut",
        "long tag",
        "long number",
        "no number",
        "onnxruntime's own",
        "wire type 7",
        "many parts",
    ],
)
def test_what_is_no_protobuf_is_refused_before_onnxruntime_sees_it(tmp_path, data):
    (tmp_path / "x.onnx").write_bytes(data)
    assert refused(onnxfile.read, tmp_path / "x.onnx", seconds=2).startswith(
        "x.onnx is not an ONNX model that can be run"
    )


def test_the_walk_follows_every_field_of_onnx_that_can_hold_a_tensor():
    """Compared with the schema in the package onnx: each message that can hold a tensor."""
    kinds = {
        "ModelProto": "model",
        "TrainingInfoProto": "training",
        "FunctionProto": "function",
        "GraphProto": "graph",
        "NodeProto": "node",
        "AttributeProto": "attribute",
        "SparseTensorProto": "sparse",
        "TensorProto": "tensor",
    }
    for message, kind in kinds.items():
        fields = getattr(onnx, message).DESCRIPTOR.fields
        holds = {
            f.number: kinds[f.message_type.name]
            for f in fields
            if f.message_type is not None and f.message_type.name in kinds
        }
        assert onnxfile.FIELDS[kind] == holds, message
    numbers = {f.name: f.number for f in TensorProto.DESCRIPTOR.fields}
    assert (numbers["external_data"], numbers["data_location"]) == (13, 14)


# ---- YAML ----------------------------------------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi")
)
YAML = {
    "billion laughs": LAUGHS, "alias": "a: &a 1\nb: *a", "round": "&a [*a]",
    "merged": "a: &a {b: 1}\n<<: *a", "code": '!!python/object/apply:os.system ["true"]',
    "name": "a: !!python/name:os.system", "module": "!!python/module:os",
    "new": "!!python/object/new:os.system [true]", "tag": "!mine {a: 1}", "deep": "[" * 30000,
    "deep mapping": "{a: " * 9000, "stairs": "\n".join(" " * i + "a:" for i in range(300)),
    "number": "a: " + "9" * 9999, "date": "!!timestamp x", "bool": "!!bool x", "int": "!!int ''",
    "float": "!!float x", "binary": "!!binary x", "omap": "!!omap x", "keys": "? [a]\n: 1",
    "two": "a: 1\n---\nb: 2", "no UTF-8": "\udcff", "null byte": "a: \0", "large": "a: 1\n" * 20000,
    "long word": "a: " + "x" * 600, "control": 'a: "\\e[2J"', "key": "1: 2",
    "deep key": "a: [{-1: 2}]",
}  # fmt: skip


@pytest.mark.parametrize("kind", YAML)
def test_yaml_is_plain_values_or_one_line(tmp_path, kind):
    (tmp_path / "x.yaml").write_bytes(YAML[kind].encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError) as caught:
        files.read_yaml(tmp_path / "x.yaml")
    assert str(caught.value).isprintable() and "x.yaml" in str(caught.value)


def test_yaml_that_is_settings_is_read(tmp_path, root):
    for path in sorted((root / "experiments").rglob("*.yaml")):
        assert isinstance(files.read_yaml(path), dict), path
    (tmp_path / "x.yaml").write_text("a: [1, 2.5, text, null, true]\n'b': {c: 2001-02-03}")
    assert files.read_yaml(tmp_path / "x.yaml")["a"] == [1, 2.5, "text", None, True]


@pytest.mark.parametrize(
    "kind",
    [
        "billion laughs",
        "round",
        "code",
        "name",
        "module",
        "new",
        "tag",
        "deep mapping",
        "keys",
        "two",
    ],
)
def test_settings_that_are_hostile_are_refused(tmp_path, kind):
    (tmp_path / "x.yaml").write_text(
        "stage: face\nsteps: 1\n" * (kind in ("billion laughs",)) + YAML[kind]
    )
    with pytest.raises(ValueError) as caught:
        plan.read_settings(tmp_path / "x.yaml")
    assert len(str(caught.value)) < 1000


# ---- names and words in pages --------------------------------------------------------------------

EVIL = (
    "</title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\n\x1b[31m\u202egpj.exe "
    "\udcff $(touch x) $\\frac$"
)


def test_a_page_shows_any_file_name_and_runs_nothing_of_it(tmp_path, face_photo):
    page = (
        view.compare(face_photo, face_photo, labels=(EVIL, "b"), title=EVIL)
        .save(tmp_path / "x.html")
        .read_bytes()
        .decode("utf-8")
    )
    for sign in ("<script>alert", "<img src=x", "\x1b", "\u202e", "\udcff", "onerror=alert(1)>"):
        assert sign not in page
    assert (
        page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 4
        and page.count("\\u202egpj.exe") == 4
    )  # title, heading, label, alt
    assert page.count("<script>") == 1, "ours"


def test_words_inside_a_picture_reach_no_page(tmp_path, face_photo):
    from PIL import Image

    tags = Image.Exif()
    tags[270], tags[271], tags[315] = (
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        EVIL[:40],
    )
    Image.fromarray(np.rint(face_photo * 255).astype(np.uint8)).save(
        tmp_path / "x.jpg", exif=tags, comment=b"<script>alert(2)</script>"
    )
    got = image.load(tmp_path / "x.jpg")
    assert b"<script>" in got.exif, "they are kept in the picture"
    page = view.compare(tmp_path / "x.jpg", got.pixels).save(tmp_path / "x.html").read_text("utf-8")
    assert "alert(1)" not in page and "alert(2)" not in page


def test_figures_and_sheets_take_any_name(face_photo):
    view.show({EVIL: face_photo, "$\\frac$": face_photo})._repr_png_()
    face = type(
        "Face",
        (),
        {
            "box": (1, 1, 20, 20),
            "landmarks": np.ones((5, 2)),
            "score": 0.5,
            "status": "failed: $\\frac$",
        },
    )()
    view.faces(face_photo, [face])._repr_png_()


# ---- soon ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["image", "io.files", "io.codecs", "weights", "io.text"])
def test_bad_input_is_refused_before_torch_is_imported(root, module):
    late = ("torch", "onnxruntime", "safetensors", "matplotlib", "yaml")
    program = f"import sys, mtrestore.{module}; print([m for m in {late} if m in sys.modules])"
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tempfile.gettempdir(),
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stderr
