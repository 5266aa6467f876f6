"""What the notebooks share: samples, judging, cost, poses, the page, reading, the toy, faults."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import mtrestore as mt
from mtrestore import degrade, metrics, view
from mtrestore.lab import (
    cost,
    diagram,
    draws,
    failures,
    judge,
    ladder,
    page,
    poses,
    reading,
    samples,
    toy,
)
from mtrestore.training.fit import fit
from mtrestore.training.stages import GanPrior

# ---- samples


def test_the_sample_is_a_portrait_and_another_photo_takes_its_place(astronaut, tmp_path):
    np.testing.assert_array_equal(mt.sample(), astronaut)
    mt.write(tmp_path / "a.png", astronaut[:32, :48])
    assert mt.sample(tmp_path / "a.png").shape == (32, 48, 3)
    with pytest.raises(mt.ImageError, match="gone.png"):
        mt.sample(tmp_path / "gone.png")


def test_two_people_have_a_face_each():
    people = samples.people()
    assert {name: p.shape for name, p in people.items()} == {
        "astronaut": (512, 512, 3),
        "officer": (600, 512, 3),
    }
    assert all(samples.largest_face(p).score > 0.9 for p in people.values())


def test_without_a_face_the_whole_picture_is_one():
    face = samples.largest_face(np.full((40, 60, 3), 0.5, np.float32))
    assert face.box == (0, 0, 60, 40)


def test_one_fault_is_a_recipe_of_one_step(face_photo):
    recipe = degrade.Recipe(({"op": "gaussian_noise", "sigma": 9.0, "seed": 2},))
    worn = samples.worn(face_photo, "gaussian_noise", sigma=9.0, seed=2)
    np.testing.assert_array_equal(worn, degrade.apply(face_photo, recipe))


def test_batches_hang_on_seed_and_step_alone(astronaut):
    crop = mt.landmark_crop(samples.largest_face(astronaut))
    makers = [
        lambda seed: samples.around(astronaut, crop, 32, 2, seed),
        lambda seed: samples.small_faces(32, 3, seed),
    ]
    for make in makers:
        a, b, later, other = make(0)(5), make(0)(5), make(0)(6), make(1)(5)
        assert torch.equal(a["target"], b["target"]) and torch.equal(a["inputs"][0], b["inputs"][0])
        assert not torch.equal(a["target"], later["target"])
        assert not torch.equal(a["target"], other["target"])
        assert a["target"].shape[1:] == (3, 32, 32) and 0 <= a["target"].min()


def test_a_batch_by_heart_is_the_same_at_every_step(face_photo):
    face = mt.resize(face_photo, (32, 32))
    batches = samples.by_heart(face, 3, seed=1)
    assert batches(0) is batches(9)
    (poor,), truth = batches(0)["inputs"], batches(0)["target"]
    assert all(torch.equal(truth[0], t) for t in truth) and not torch.equal(poor[0], poor[1])


# ---- judge


def test_scores_are_those_of_metrics(face_photo):
    poor = samples.worn(face_photo, "gaussian_noise", sigma=20.0, seed=0)
    fair = samples.worn(face_photo, "gaussian_noise", sigma=10.0, seed=0)
    row = judge.scores(fair, face_photo, poor)
    assert list(row) == ["psnr", "ssim", "sharpness", "gain"]
    assert row["psnr"] == metrics.psnr(fair, face_photo)
    assert row["gain"] == metrics.psnr(fair, face_photo) - metrics.psnr(poor, face_photo)
    assert "gain" not in judge.scores(fair, face_photo)


def test_an_answer_is_the_nets_cut_to_a_photo(face_photo):
    np.testing.assert_allclose(judge.answer(lambda x: x, face_photo), face_photo, atol=1e-7)
    assert judge.answer(lambda x, y: x + y, face_photo, face_photo).max() == 1
    with pytest.raises(RuntimeError):
        judge.answer(nn.Conv2d(4, 3, 1), face_photo)


def test_worn_faces_hang_on_seed_and_place(face_photo):
    faces = {"a": mt.resize(face_photo, (64, 64)), "b": mt.resize(face_photo, (64, 64))}
    once, again = list(judge.worn_faces(faces, 3)), list(judge.worn_faces(faces, 3))
    assert [(n, s) for n, s, _, _ in once] == [
        ("a", "medium"),
        ("b", "medium"),
        ("a", "severe"),
        ("b", "severe"),
    ]
    assert all(np.array_equal(x[2], y[2]) for x, y in zip(once, again, strict=True))
    assert not np.array_equal(once[0][2], once[1][2])


def test_means_are_taken_within_each_group():
    rows = [{"arm": "x", "v": 1.0}, {"arm": "y", "v": 10.0}, {"arm": "x", "v": 3.0}]
    assert judge.means(rows, ["arm"], ["v"]) == {("x",): {"v": 2.0}, ("y",): {"v": 10.0}}


def test_coherence_is_one_with_itself_and_none_with_noise():
    rng = np.random.default_rng(0)
    truth = np.float32(np.rint(rng.uniform(0, 255, (64, 64, 3))) / 255)
    np.testing.assert_allclose(judge.coherence(truth, truth)[1:], 1, atol=1e-9)
    np.testing.assert_allclose(judge.coherence(np.rint(truth * 127) / 255, truth)[2:], 1, atol=0.01)
    other = np.float32(rng.uniform(0, 1, (64, 64, 3)))
    assert judge.coherence(other, truth)[8:].mean() < 0.05


def test_a_wave_stands_at_its_frequency():
    wave = 0.5 + 0.4 * np.sin(2 * np.pi * np.arange(64) / 8)  # 8 px: a quarter of the highest
    frequency, amplitude = judge.spectrum(np.tile(wave[None, :, None], (64, 1, 3)), bins=32)
    assert abs(frequency[amplitude.argmax()] - 0.25) < 1 / 32


# ---- cost


def test_what_a_convolution_costs():
    net, x = nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 10, 20)
    row = cost.of(net, x)
    assert row["parameters"] == 3 * 8 * 9 + 8
    assert row["MiB in fp16"] == 2 * row["parameters"] / 2**20
    assert row["GFLOP"] == pytest.approx(2 * 3 * 8 * 9 * 200 / 1e9)
    assert row["ms"] > 0


def test_time_is_a_median_after_a_warm_up():
    calls = []
    cost.milliseconds(calls.append, 1, times=4)
    assert calls == [1] * 5


# ---- poses

MEAN = np.random.default_rng(5).uniform(-1, 1, (468, 2))


def rotated(points, degrees):
    t = np.deg2rad(degrees)
    return points @ np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])


@pytest.mark.parametrize("degrees", [-170, -35, 0, 8, 100])
def test_a_roll_is_measured_back(degrees):
    assert poses.roll_of(50 * rotated(MEAN, degrees) + 7, MEAN) == pytest.approx(degrees, abs=1e-9)


@pytest.mark.parametrize("degrees", [-30, 0, 20])
def test_bending_keeps_the_order_and_moves_the_nose(degrees):
    u = np.linspace(-3, 3, 2001)
    assert (np.diff(poses.bend(u, degrees)) > 0).all()
    nose = float(poses.bend(np.array(0.0), degrees))
    assert nose == pytest.approx(0.7 * np.sin(np.deg2rad(degrees)))


def test_no_yaw_changes_nothing(face_photo):
    points = np.array([[20.0, 30.0], [60.0, 40.0], [40.0, 70.0]])
    picture, there = poses.aside(face_photo, points, 0)
    np.testing.assert_allclose(picture, face_photo, atol=1e-5)
    np.testing.assert_allclose(there, points, atol=1e-6)


def test_directions_lie_at_most_half_a_turn_apart():
    assert [poses.apart(*pair) for pair in ((179, -179), (10, 350), (0, 180))] == [2, 20, 180]
    assert poses.label(((0, 15), (15, 60)), -15) == "0..15°"
    assert poses.label(((0, 15), (15, 60)), 15.1) == "15..60°"


# ---- page


def shell(*cells, **names):
    return SimpleNamespace(user_ns={"In": list(cells), **names})


def test_the_tagged_cell_is_the_first_of_literals_alone():
    cells = ["", "import numpy as np", 'out = "x"  # where\nsizes = [1, 2]', "lr = 3"]
    space = {"out": "changed", "sizes": (4,), "lr": 3}
    assert page.tagged(shell(*cells, **space)) == {"out": "changed", "sizes": (4,)}


@pytest.mark.parametrize("source", ["x = f(1)", "x += 1", "a, b = 1, 2", "x: int = 1", "!ls", ""])
def test_what_computes_is_no_cell_of_literals(source):
    assert page.assigned(source) == []


def test_outside_a_notebook_there_are_no_parameters():
    with pytest.raises(RuntimeError, match="run the cell tagged parameters first"):
        page.tagged(shell("import os"))
    with pytest.raises(RuntimeError, match="run the cell tagged parameters first"):
        page.tagged()


@pytest.mark.parametrize(
    "given, right",
    [(1.0, 1.01), (3, 3), (np.array([1, 2]), [1, 2]), ("a", "a"), (True, True)]
    + [((0.7, 1.4), (0.7, 1.4))]
    + [({"a": 1.0}, {"a": 1.0}), (np.float32(5), 5), (np.int64(9216), 9216)],
)  # fmt: skip
def test_a_right_answer_is_right(given, right):
    assert page.check(given, right) == "right"


@pytest.mark.parametrize(
    "given, right",
    [(1.1, 1.0), (-1.0, 1.0), (float("nan"), 1.0), ("1", 1.0), ([1, 2], [1, 2, 3]), (1, True)]
    + [({"a": 1}, {"b": 1}), ([], 0.0), (print, 1), ("A", "a"), (0.5, 0.0), ("x", {"a": 1})],
)  # fmt: skip
def test_a_wrong_answer_is_told_its_hint(given, right):
    assert page.check(given, right, "look there") == "not yet: look there"


def test_no_answer_is_none_yet():
    assert page.check(None, 0).startswith("not answered yet")


def test_a_bar_is_plain_text_in_a_run_whose_page_is_kept(monkeypatch, capsys):
    monkeypatch.setenv("MTRESTORE_NOTEBOOK", "ab12 a.ipynb")
    assert list(page.progress(iter("abc"), 3, "letters")) == list("abc")
    assert "letters: 100%" in capsys.readouterr().err


# ---- reading


def line(arm, metric, low, high):
    return {"part": "all", "metric": metric, "arm": arm, "difference": [0.5, low, high, 9, 3]}


FOUND = {
    "arm": "join",
    "baseline": "a",
    "arms": ["a", "b", "c"],
    "lower": [],
    "runs": [
        {"parameters": {"join": j, "seed": s}, "rows": {"picture": ["p", "q"], "psnr": values}}
        for j, s, values in (("a", 0, [1, 2]), ("b", 0, [3, 5]), ("a", 1, [1, 1]), ("b", 1, [2, 9]))
    ],
    "table": [line("b", "psnr", 0.1, 0.9), line("c", "psnr", -0.1, 1.1), line("b", "ssim", 1, 2)]
    + [{"part": "all", "metric": "psnr", "arm": "a", "difference": None}],
}


def test_a_finished_experiment_is_read():
    assert reading.arms(FOUND).rows["b"] == {"rows": 4, "pictures": 2, "seeds": 2}
    assert [r["arm"] for r in reading.lines(FOUND, "psnr")] == ["b", "c"]
    said = {name: row["says"] for name, row in reading.differences(FOUND, "psnr").rows.items()}
    assert said == {"all, b": "better", "all, c": "no clear difference"}
    assert reading.numbers(FOUND, "psnr") == {"psnr_b_all": 0.5, "psnr_c_all": 0.5, "clear": 1}
    assert reading.per_picture(FOUND, "psnr", "b", "a", ()) == {"p": [2, 1], "q": [3, 8]}


# ---- draws


def test_a_walk_leads_over_the_sphere_from_end_to_end():
    a, b = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
    quarter = draws.between(a, b, 0.5)
    torch.testing.assert_close(quarter, torch.tensor([4.5, 4.5]).sqrt())  # length 3, half-way
    torch.testing.assert_close(draws.between(a, a, 0.3), a)
    ends = torch.stack([a, b]).reshape(2, 2, 1, 1)
    held, deepest = draws.walk([torch.ones(1, 1, 2, 2), ends[:1]], ends, 5)
    assert held.shape == (5, 1, 2, 2) and deepest.shape == (5, 2, 1, 1)
    torch.testing.assert_close(deepest[[0, -1]], ends)


def test_one_tensor_of_a_draw_is_renewed():
    held, fresh = [torch.zeros(1)] * 3, [torch.ones(1)] * 3
    assert [t.item() for t in draws.renewed(held, fresh, 1)] == [0, 1, 0]


def test_what_is_kept_of_the_trainings_is_read():
    assert draws.log("prior_128_2")["pictures"][-1] == 83200
    assert draws.rows("tried")[0]["what"] == "plain decoder"
    assert draws.told("prior_64_plain")["faces"] == 0
    assert draws.sheet("prior_64_plain").shape[2] == 3


# ---- the toy


def test_the_rings_points_lie_at_their_centres():
    points = toy.ring(8, 400, seed=0)(3)["target"][..., 0, 0].numpy()
    shares = toy.shares(points, 8)
    assert shares.sum() == pytest.approx(1) and shares.min() > 0.05
    assert toy.shares(np.full((10, 2), 0.5), 8).sum() == 0
    np.testing.assert_allclose(np.linalg.norm(toy.centres(8) - 0.5, axis=1), 0.35)


def test_the_stage_of_the_faces_trains_the_toy():
    torch.manual_seed(0)
    net, critic = toy.Points(), toy.Verdict()
    before = [p.clone() for p in (*net.parameters(), *critic.parameters())]
    stage = GanPrior(net, critic=critic, lr=1e-2, critic_lr=1e-2, r1=0.1, augment=())
    records = list(fit(stage, toy.ring(8, 64, 0), 60, seed=0, ema=0))
    after = (*net.parameters(), *critic.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert max(r.losses["balance"] for r in records) > 0.55
    assert net(net.draw(5)).shape == (5, 2, 1, 1) and critic(net(net.draw(5))).shape == (5, 1)


# ---- faults, one at a time, and photos that are hard


def test_every_operation_has_its_ladder():
    assert ladder.STRENGTHS.keys() == degrade.OPS.keys()


@pytest.mark.parametrize("op", [op for op in ladder.STRENGTHS if ladder.STRENGTHS[op][0]])
def test_every_rung_is_valid_and_changes_the_photo(op, face_photo):
    photo = mt.resize(face_photo, (48, 48))
    rungs = ladder.climb(photo, op, seed=1)
    assert len(rungs) == 4 and all(p.shape[2] == 3 for p in rungs.values())
    assert not any(np.array_equal(p, photo) for p in rungs.values())
    again = ladder.climb(photo, op, seed=1)
    assert all(np.array_equal(p, again[name]) for name, p in rungs.items())


@pytest.mark.parametrize("op", ["gaussian_blur", "gaussian_noise", "jpeg", "resize", "fade"])
def test_a_ladder_goes_away_from_the_truth(op, face_photo):
    quality = [metrics.psnr(p, face_photo) for p in ladder.climb(face_photo, op, 0).values()]
    assert quality == sorted(quality, reverse=True)


def test_what_turns_nothing_has_a_button(face_photo):
    words = {op: str(ladder.bench(face_photo, op, 0).children) for op in ("grey", "jpeg")}
    assert "Button" in words["grey"] and "IntSlider" in words["jpeg"]
    assert "Button" not in words["jpeg"]


def test_hard_photos_are_as_they_are_called(astronaut):
    cases = failures.cases(astronaut, seed=3)
    assert len(cases) == 10 and all(case.why for case in cases.values())
    assert cases["too small"].photo.shape == (64, 64, 3)
    np.testing.assert_array_equal(cases["sideways"].truth, np.rot90(astronaut))
    half = (cases["half covered"].photo == 0.15).all(-1).mean()
    eyes = (cases["eyes covered"].photo == 0.15).all(-1).mean()
    assert 0.005 < eyes < half < 0.1


# ---- diagrams


def test_a_name_in_two_paths_is_one_box_right_of_all_that_lead_to_it():
    plot = diagram.draw("a > b > d", "a > c > e > d", here=["c"])
    boxes = {text.get_text(): text for text in plot.axes[0].texts if text.get_text()}
    places = {name: box.get_position() for name, box in boxes.items()}
    assert places == {"a": (0, 0), "b": (1, 0), "d": (3, 0), "c": (1, 1), "e": (2, 1)}
    colours = {name: box.get_bbox_patch().get_facecolor() for name, box in boxes.items()}
    assert [name for name in colours if colours[name] != colours["a"]] == ["c"]
    arrows = [text for text in plot.axes[0].texts if not text.get_text()]
    ends = {(arrow.xyann, arrow.xy) for arrow in arrows}
    assert ends == {(places[a], places[b]) for a, b in ("ab", "bd", "ac", "ce", "ed")}


def test_an_arrow_goes_around_the_boxes_in_its_way():
    plot = diagram.draw("a > b > c", "a > c")
    arrows = [text for text in plot.axes[0].texts if not text.get_text()]
    bent = {arrow.xy: arrow.arrowprops.get("connectionstyle") for arrow in arrows[:2]}
    long = [a for a in arrows if (a.xyann, a.xy) == ((0, 0), (2, 0))]
    assert bent == {(1, 0): None, (2, 0): None} and len(long) == 1
    assert long[0].arrowprops["connectionstyle"].startswith("arc3,rad=-")


@pytest.mark.parametrize(
    ("paths", "here", "words"),
    [(["a > b > a"], [], "come back"), (["a > a"], [], "come back"), (["a"], ["b"], "'b' is none")],
)
def test_a_diagram_that_cannot_be_drawn_says_why(paths, here, words):
    with pytest.raises(ValueError, match=words):
        diagram.draw(*paths, here=here)


# ---- figures


def test_curves_draw_each_line_and_its_running_mean():
    plot = view.curves({"a": ([1, 2, 3, 4], [0, 2, 4, 6])}, level={"b": 1.0}, average=2, xlabel="x")
    (axes,) = plot.axes
    line, level = axes.lines
    np.testing.assert_array_equal(line.get_xydata(), [[2, 1], [3, 3], [4, 5]])
    assert level.get_ydata()[0] == 1.0 and axes.get_xlabel() == "x"
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["a", "b"]
    assert view.curves({"c": zip((1, 5), (2, 6), strict=True)}, axes) is plot
    np.testing.assert_array_equal(axes.lines[2].get_xydata(), [[1, 5], [2, 6]])


def test_bars_stand_beside_each_other_or_on_each_other():
    groups = {"a": {"x": 1.0, "y": 2.0}, "b": {"y": 4.0, "x": 3.0}}
    beside = view.bars(groups).axes[0].patches
    stacked = view.bars(groups, stacked=True).axes[0].patches
    assert [p.get_height() for p in beside] == [1, 2, 3, 4]
    assert [p.get_y() for p in beside] == [0, 0, 0, 0]
    assert [p.get_y() for p in stacked] == [0, 0, 1, 2]
    assert beside[0].get_x() + beside[0].get_width() == pytest.approx(beside[2].get_x())


def test_lanes_hold_every_step():
    steps = ("read", "detect", "faces", "shrink", "restore", "upsample", "paste", "sharpen")
    spans = {step: (i, i + 0.5) for i, step in enumerate(steps)}
    timings = dict.fromkeys(steps, 0.5) | {"total": 7.5}
    (axes,) = view.lanes(SimpleNamespace(spans=spans, timings=timings)).axes
    assert {p.get_x() for p in axes.patches} == set(range(8))
    assert axes.get_title() == "7.50 s; one after the other 4.00 s"
