"""The numbers of experiments/prior_report.py, each on a generator or a face of which it is known
what they must be.
"""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mtrestore import face, image, nets
from mtrestore.crop import five_from_mesh, landmark_crop
from mtrestore.lab import evaluate
from mtrestore.training import batches as data
from mtrestore.training import fit as train
from mtrestore.training import stages

PLAN = [4, 4, 8, 8, 8, 8]


@pytest.fixture(scope="module")
def report(root):
    spec = importlib.util.spec_from_file_location(
        "prior_report", root / "experiments/prior_report.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Sum(nn.Module):
    """Adds three of the tensors, by weights 1, 2 and 0: of the variance the first makes a fifth,
    the second four, the third nothing.
    """

    def draw(self, batch: int, size: int, generator: torch.Generator) -> list[torch.Tensor]:
        return [torch.randn(batch, 3, size, size, generator=generator) for _ in range(3)]

    def forward(self, feats):
        return feats[0] + 2 * feats[1] + 0 * feats[2]


def test_shares_of_the_variance_are_those_of_a_known_sum(report):
    shares = report.variance_shares(Sum(), 32, torch.Generator().manual_seed(0))
    assert list(shares) == ["s/4", "s/2", "s/1"]
    assert shares["s/1"] == pytest.approx(0.2, abs=0.01)
    assert shares["s/2"] == pytest.approx(0.8, abs=0.01)
    assert shares["s/4"] == 0


def test_a_fresh_generator_hears_its_deepest_tensor_alone(report):
    """The gains of the joins begin at 0, so all that varies comes from s/32."""
    net = nets.Generator(PLAN, decoder="synthesis").eval()
    shares = report.variance_shares(net, 32, torch.Generator().manual_seed(0), count=8)
    assert list(shares) == ["s/32", "s/16", "s/8", "s/4", "s/2", "s/1"]
    assert list(shares.values()) == [pytest.approx(1, rel=0.2), 0, 0, 0, 0, 0]


def test_a_running_training_is_read_from_its_newest_checkpoint(report, tmp_path):
    torch.manual_seed(0)
    widths = [4, 4, 8, 8, 12, 16]
    stage = stages.GanPrior(nets.Generator(PLAN, decoder="synthesis"), widths, hinge=True, r1=0)
    batch = {"inputs": (), "target": torch.rand(4, 3, 32, 32)}
    for _ in train.fit(stage, lambda n: {**batch, "inputs": (batch["target"],)}, 2, tmp_path):
        pass
    net, critic, step = report.from_checkpoint(tmp_path / "checkpoints")
    assert step == 2 and not net.training and not critic.training
    feats = net.draw(2, 32, torch.Generator().manual_seed(1))
    assert torch.allclose(net(feats), stage.ema(feats), atol=1e-5)
    stage.adversary.critic.eval()
    assert torch.allclose(
        critic(batch["target"]), stage.adversary.critic(batch["target"]), atol=1e-6
    )


def test_a_training_of_another_version_is_one_line(report, tmp_path):
    state = {f"decoder.gain.{k}": torch.zeros(1, 4, 1, 1) for k in range(5)} | {
        "decoder.start_place": torch.zeros(1, 8, 2, 2)
    }
    train.save_checkpoint(tmp_path, 1, {"step": 1, "ema": state, "stage": {}})
    with pytest.raises(SystemExit, match="holds the training of another version: ") as e:
        report.from_checkpoint(tmp_path)
    assert len(str(e.value).splitlines()) == 1


def test_a_folder_without_checkpoints_is_one_line(report, tmp_path):
    with pytest.raises(
        SystemExit,
        match=r"no checkpoint that can be read in .*; give the folder that holds step-\*\.pt",
    ):
        report.from_checkpoint(tmp_path)


def test_a_face_is_one_and_what_is_none_is_none(report, astronaut, rng):
    mesh = face.detect(astronaut, "mtcnn", landmarks=evaluate.landmark_net())[0].landmarks
    crop = landmark_crop(mesh, size=64)
    sample, mean = crop.cut(astronaut), (five_from_mesh(crop.points(mesh)) + 0.5) / 64
    look = face._detector("mtcnn", None)[0]
    assert report.is_face(sample, mean, look)
    assert not report.is_face(sample, mean + 0.2, look), (
        "a face that lies elsewhere is not what was trained"
    )
    assert not report.is_face(np.ascontiguousarray(sample[::-1]), mean, look), "upside down"
    assert not report.is_face(rng.random((64, 64, 3)).astype(np.float32), mean, look)
    flat = np.full((64, 64, 3), sample.mean((0, 1)), np.float32)
    assert not report.is_face(flat, mean, look)


def test_the_mean_face_is_in_sides(report):
    mesh = np.random.default_rng(0).random((468, 2)) * 64
    assert np.allclose(report.mean_five([mesh, mesh], 64), (five_from_mesh(mesh) + 0.5) / 64)


def test_verdicts_are_those_of_full_batches(report):
    faces = [np.full((8, 8, 3), i / 40, np.float32) for i in range(37)]
    seen = []

    class Mean(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x.mean((1, 2, 3))[:, None]

    assert np.allclose(report.verdicts(Mean(), faces), np.arange(32) / 40, atol=1e-6) and seen == [
        16,
        16,
    ]


def test_the_whole_report_on_a_few_faces(report, tmp_path, astronaut, hopper, monkeypatch, capsys):
    """Two training folders and the held faces, made of two photographs; every number is there and
    finite, the sheets have their sizes.
    """
    photos = [astronaut, hopper]
    found = [
        face.detect(photo, "mtcnn", landmarks=evaluate.landmark_net())[0].landmarks
        for photo in photos
    ]
    for folder in ("train_faces", "train_faces2", "dev_eval/faces_clean"):
        (tmp_path / folder).mkdir(parents=True)
        names = [f"{i}.png" for i in range(20)]
        for i, name in enumerate(names):
            image.write(tmp_path / folder / name, photos[i % 2])
        np.savez(
            tmp_path / folder / "mesh468.npz", names=np.array(names), points=np.float32(found * 10)
        )
        (tmp_path / folder / "manifest.csv").write_text("\n".join(["file", *names]))
    stage = stages.GanPrior(
        nets.Generator(PLAN, decoder="synthesis"), [4, 4, 8, 8, 12, 16], hinge=True, r1=0
    )
    target = data.stack([np.zeros((32, 32, 3), np.float32)] * 4)
    for _ in train.fit(
        stage, lambda n: {"inputs": (target,), "target": target}, 1, tmp_path / "run"
    ):
        pass
    out = tmp_path / "out"
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "prior_report.py",
            "--data",
            str(tmp_path),
            "--checkpoint",
            str(tmp_path / "run/checkpoints"),
            "--size",
            "32",
            "--count",
            "64",
            "--out",
            str(out),
        ],
    )
    report.main()
    said = capsys.readouterr().out
    for name in (
        "made against real",
        "faces",
        "share of s/32",
        "verdict, unseen",
        "memory",
        "nearest training face, made",
    ):
        assert f"\n{name}" in said
    assert image.read(out / "samples.png").shape == (6 * 32, 10 * 32, 3)
    assert image.read(out / "nearest.png").shape == (2 * 32, 10 * 32, 3)
