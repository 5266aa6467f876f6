"""What a weights file promises: what is loaded is what was saved, or one clear sentence, whatever
was done to the file.
"""

import json
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as serialise

from mtrestore import nets, weights
from mtrestore.weights import WeightsError

SMALL = {
    "FaceNet": {"widths": (4, 4, 6, 6, 8, 8), "join": "add-matched", "residual": False},
    "Generator": {"widths": [4, 4, 6, 6, 8, 8], "join": "add"},
    "Critic": {"widths": [4, 4, 4, 4, 4, 4]},
    "SpectralCritic": {"widths": [4, 4, 4, 4, 4, 4]},
    "PartCritic": {"widths": [4, 4]},
    "FaceEmbedding": {"widths": [8, 8, 8, 8, 8], "out": 4},
    "RestorerNet": {"widths": (4, 6), "blocks": 2},
    "DeepGuidedFilter": {"radius": 2, "eps": 0.01, "width": 4},
    "GuidedUpsampler": {"guide_width": 4, "width": 4, "blocks": 1, "refine": True},
    "Refiner": {"width": 4, "blocks": 1},
    "Sharpener": {"scale": 2, "width": 4, "blocks": 1},
    "LandmarkNet": {"widths": (4, 4, 4, 4, 4), "hidden": 4},
}


def made(name: str = "Refiner") -> nets.blocks.Net:
    """A small net with random weights everywhere."""
    torch.manual_seed(0)
    net = nets.REGISTRY[name](**SMALL[name])
    with torch.no_grad():
        for p in (*net.parameters(), *net.buffers()):
            p += 0.1 * torch.randn_like(p)
    return net


@pytest.fixture
def path(tmp_path):
    return weights.save(made(), tmp_path / "net.safetensors", steps=7)


def fails(path, data: bytes | None = None) -> str:
    """The message of the one error that loading gives, checked to be one line."""
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        weights.load(path)
    assert str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


def forged(
    net: str = "Refiner", config: object = None, notes: str = "{}", tensors: dict | None = None
) -> bytes:
    """A file with a right checksum and any content: what someone who reads our code can make."""
    text = (
        config
        if isinstance(config, str)
        else json.dumps(SMALL["Refiner"] if config is None else config)
    )
    header, values = weights.split(serialise(made().state_dict() if tensors is None else tensors))
    meta = {"net": net, "config": text, "notes": notes}
    header["__metadata__"] = {
        **meta,
        "sha256": weights.digest({**header, "__metadata__": meta}, values),
    }
    body = json.dumps(header).encode()
    return struct.pack("<Q", len(body)) + body + bytes(values)


# ---- there and back ------------------------------------------------------------------------------


def test_every_net_of_the_registry_is_tested_here():
    assert SMALL.keys() == nets.REGISTRY.keys()


@pytest.mark.parametrize("name", SMALL)
def test_a_net_comes_back_rounded_to_float16(name, tmp_path):
    net = made(name)
    back = weights.load(weights.save(net, tmp_path / "x.safetensors"))
    assert type(back) is type(net)
    state = net.state_dict()
    assert back.state_dict().keys() == state.keys()
    for key, value in back.state_dict().items():
        assert (
            value.dtype == torch.float32
            and value.device.type == "cpu"
            and torch.equal(value, state[key].half().float())
        ), key


@pytest.mark.parametrize("name", SMALL)
def test_float32_weights_come_back_as_they_were(name, tmp_path):
    net = made(name)
    back = weights.load(weights.save(net, tmp_path / "x.safetensors", torch.float32))
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in back.state_dict().items())


@pytest.mark.parametrize("name", SMALL)
def test_choices_of_the_constructor_come_back(name, tmp_path):
    back = weights.load(weights.save(made(name), tmp_path / "x.safetensors"))
    assert json.dumps(back.config) == json.dumps(made(name).config)


def test_a_loaded_net_is_ready_for_inference(path):
    net = weights.load(path)
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    assert net.body[0].weight.is_contiguous(memory_format=torch.channels_last)
    x = torch.rand(2, 1, 3, 8, 8)
    assert torch.allclose(net(*x), made()(*x), atol=1e-2)


def test_a_loaded_net_can_be_saved_again(path, tmp_path):
    again = weights.save(weights.load(path), tmp_path / "again.safetensors", steps=7)
    assert again.read_bytes() == path.read_bytes()


def test_the_same_net_gives_the_same_bytes(path, tmp_path):
    assert all(
        weights.save(made(), tmp_path / f"{i}.safetensors", steps=7).read_bytes()
        == path.read_bytes()
        for i in range(4)
    )


def test_notes_are_kept(tmp_path):
    notes = {"settings": {"stage": "face", "lr": 6e-4}, "steps": 9, "data": "Zürich"}
    path = weights.save(made(), tmp_path / "n.safetensors", **notes)
    assert weights.load(path).notes == {
        **notes,
        "file": "n.safetensors",
        "sha256": weights.check(path)[0]["sha256"],
    }


def test_other_readers_of_safetensors_can_read_it(path):
    with safe_open(path, "pt") as file:
        assert file.metadata()["net"] == "Refiner"
        assert {k: file.get_tensor(k).shape for k in file.keys()} == {
            k: v.shape for k, v in made().state_dict().items()
        }  # noqa: SIM118


def test_saving_leaves_no_other_file(path):
    assert [p.name for p in path.parent.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 1e6], ids=["nan", "inf", "beyond float16"]
)
def test_weights_that_are_not_finite_are_not_saved(tmp_path, value):
    net = made()
    net.body[0].weight.data[0, 0, 0, 0] = value
    with pytest.raises(
        WeightsError, match=r"refusing to save weights that are not finite: body\.0\.weight"
    ):
        weights.save(net, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


# ---- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["length", "header", "values"])
def test_every_flipped_bit_is_found(path, part):
    data = path.read_bytes()
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    low, high = {"length": (0, 8), "header": (8, begin), "values": (begin, len(data))}[part]
    bits = np.random.default_rng(0).permutation(range(8 * low, 8 * high))[:150]
    for bit in bits.tolist():
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        fails(path, bytes(damaged))


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.2, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_found(path, share):
    data = path.read_bytes()
    fails(path, data[: int(share * len(data))])


def test_two_tensors_that_have_changed_places_are_found(path):
    one, two, free = (f"body.2.body.{i}.weight".encode() for i in "02x")
    data = path.read_bytes().replace(one, free).replace(two, one).replace(free, two)
    assert data != path.read_bytes() and "its sha256 does not match" in fails(path, data)


def test_bytes_after_the_end_are_found(path):
    assert "damaged" in fails(path, path.read_bytes() + b"\0")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 7, b"\0" * 64, b"hello, this is a text\n" * 40, struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 4) + b"null", struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2**63) + b"{}" * 50, struct.pack("<Q", 2**40) + b"{}" * 50,
        struct.pack("<Q", 4000) + b"[" * 4000, serialise({"a": torch.zeros(2)}),
        serialise({"a": torch.zeros(2)}, {"net": "Refiner"}),
    ],
    ids=["empty", "7 bytes", "zeros", "text", "{}", "null", "[]", "length 2^63", "length 2^40",
         "deep", "safetensors", "few metadata"],
)  # fmt: skip
def test_what_is_no_weights_file_is_named(path, data):
    assert fails(path, data).startswith(
        "net.safetensors is not a weights file of mtrestore, or it is damaged"
    )


def test_a_file_of_torch_is_no_weights_file(tmp_path):
    torch.save(made().state_dict(), tmp_path / "face.pt")
    assert "face.pt is not a weights file of mtrestore" in fails(tmp_path / "face.pt")


class Hostile:
    def __init__(self, touched: str):
        self.touched = touched

    def __reduce__(self):
        return open, (self.touched, "w")


def test_a_pickle_is_refused_and_not_run(tmp_path):
    data = pickle.dumps(Hostile(str(tmp_path / "touched")))
    fails(tmp_path / "x.pt", data)
    assert not (tmp_path / "touched").exists()
    pickle.loads(data)
    assert (tmp_path / "touched").exists(), "the pickle would have run"


def test_a_missing_file_is_named(tmp_path):
    assert "nowhere.safetensors" in fails(tmp_path / "nowhere.safetensors")


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "x.safetensors").mkdir()
    assert "weights cannot be read" in fails(tmp_path / "x.safetensors")


# ---- right checksum, wrong content ---------------------------------------------------------------


def test_a_forged_file_with_our_own_content_loads(path):
    path.write_bytes(forged())
    assert all(
        torch.equal(v, made().state_dict()[k]) for k, v in weights.load(path).state_dict().items()
    )


def test_another_kind_of_net_is_refused(path):
    with pytest.raises(WeightsError, match=r"net\.safetensors holds a Refiner, expected a FaceNet"):
        weights.load(path, nets.FaceNet)
    assert isinstance(weights.load(path, nets.Refiner), nets.Refiner)


@pytest.mark.parametrize(
    ("net", "config"),
    [
        ("FaceNet", {"widths": [10**9] * 6}), ("RestorerNet", {"widths": [10**9, 10**9]}),
        ("Refiner", {"width": 10**9}), ("Refiner", {"width": 10**300}),
        ("Refiner", {"blocks": 10**9}), ("Refiner", {"width": 4, "blocks": 10**9}),
        ("RestorerNet", {"widths": [1] * 10**4}), ("RestorerNet", {"widths": []}),
        ("Critic", {"widths": [0] * 6}), ("Critic", {"widths": 5}), ("Critic", {"widths": "XXL"}),
        ("FaceNet", {"widths": "XXL"}), ("FaceNet", {"join": ["concat"]}),
        ("LandmarkNet", {"hidden": -1}), ("Refiner", {"width": "4"}), ("Refiner", {"width": None}),
        ("Refiner", {"width": 1.5}), ("Refiner", {"no_such": 1}), ("Refiner", []), ("Refiner", 3),
        ("Refiner", "not json"), ("Refiner", "[" * 10**5), ("Refiner", {"width": 8}),
        ("Sharpener", {"scale": 3}), ("Sharpener", {}), ("NoSuchNet", {}), ("", {}),
        ("GuidedFilter", {}), ("DeepGuidedFilter", {"eps": float("nan")}),
    ],
    ids=lambda v: str(v)[:30],
)  # fmt: skip
def test_a_hostile_or_wrong_configuration_is_refused_at_once(path, net, config):
    assert "does not fit its net" in fails(path, forged(net, config))


@pytest.mark.parametrize("notes", ["", "[]", "3", "{", "[" * 10**5], ids=lambda v: v[:5])
def test_notes_that_are_no_mapping_are_refused(path, notes):
    fails(path, forged(notes=notes))


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "integers"])
def test_tensors_that_do_not_fit_are_refused(path, change):
    tensors = dict(made().state_dict())
    if change == "missing":
        del tensors["body.0.bias"]
    elif change == "extra":
        tensors["more"] = torch.zeros(1)
    else:
        tensors["body.0.bias"] = (
            torch.zeros(5) if change == "shape" else torch.zeros(4, dtype=torch.int64)
        )
    assert "does not fit its net" in fails(path, forged(tensors=tensors))


# ---- names ---------------------------------------------------------------------------------------


def test_an_unknown_name_tells_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    assert (
        fails("fce")
        == "no weights called 'fce' are installed; there are: none; train them with `mtrestore "
        "train`"
    )
    for name in ("face", "restorer"):
        weights.save(made(), tmp_path / f"{name}.safetensors")
    assert "there are: face, restorer;" in fails("fce")
    assert isinstance(weights.load("face"), nets.Refiner)


@pytest.mark.parametrize("name", weights.shipped())
def test_shipped_weights_load_and_are_as_they_were_made(name):
    meta, _ = weights.check(name)
    net = weights.load(name)
    assert (
        net.notes["sha256"] == meta["sha256"]
        and net.notes["settings"]["stage"]
        and net.notes["steps"] >= 1
    )
    assert all(torch.isfinite(v).all() for v in net.state_dict().values())


def test_loading_every_shipped_net_leaves_torchs_compiler_alone():
    """torch._dynamo costs two seconds at every start, and some initialisers on the meta device
    import it.
    """
    program = (
        "import sys; from mtrestore import weights; [weights.load(n) for n in "
        "weights.shipped()]; print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr[-500:]
