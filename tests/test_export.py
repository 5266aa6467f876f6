"""An exported net gives what the net gives, at other sizes and batches too.

Once the shipped face net is exported, it is the one that is used.
"""

import numpy as np
import pytest
import torch

from mtrestore import cli, image, nets, weights
from mtrestore.fast.onnx import export, onnx_net
from mtrestore.pipeline import Restorer


@pytest.fixture(scope="module")
def face_onnx(tmp_path_factory):
    return export(weights.load("face"), tmp_path_factory.mktemp("onnx") / "face.onnx")


@pytest.mark.parametrize("shape", [(1, 3, 256, 256), (2, 3, 64, 96), (1, 3, 32, 160)])
def test_the_face_net_agrees_at_every_size(face_onnx, shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert (onnx_net(face_onnx)(x) - weights.load("face")(x)).abs().max() < 1e-4


def test_a_sharpener_that_enlarges_agrees(tmp_path):
    net = nets.Sharpener(2, 8, 1).eval()
    x = torch.rand(1, 3, 40, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert (onnx_net(export(net, tmp_path / "x2.onnx"))(x) - net(x)).abs().max() < 1e-4


def test_nets_that_do_not_take_one_picture_are_refused(tmp_path):
    with pytest.raises(
        ValueError,
        match="only nets that turn one picture into another can be exported, not LandmarkNet",
    ):
        export(nets.LandmarkNet().eval(), tmp_path / "landmarks.onnx")
    assert not list(tmp_path.iterdir())


def test_the_export_is_used_from_then_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(weights, "CACHE", tmp_path / "cache")
    assert isinstance(Restorer(device="cpu").face, nets.FaceNet)
    assert cli.main(["models", "export", "face"]) == 0
    assert capsys.readouterr().out.strip() == str(weights.exported("face"))
    fast = Restorer(device="cpu").face
    assert not isinstance(fast, torch.nn.Module)
    x = image.to_tensor(np.random.default_rng(0).random((64, 64, 3), np.float32))
    assert (fast(x) - weights.load("face")(x)).abs().max() < 1e-4
    assert isinstance(
        Restorer(device="cpu", face=weights.FOLDER / "face.safetensors").face, nets.FaceNet
    ), "what is asked for is taken"
