"""Claims about finding faces: where they are, whichever way up the photo is, and what happens when
there is none.
"""

import math
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrestore import face as face_module
from mtrestore.crop import eye_crop, landmark_crop
from mtrestore.face import Face, dense, detect, faces_from, five_from_mesh, suppress
from mtrestore.image import resize

FIVE = np.array(
    [[204.0, 101.3], [247.0, 103.0], [224.7, 127.6], [202.6, 139.3], [245.3, 141.2]]
)  # on the astronaut, by hand
WINDOW = np.s_[
    20:260, 100:340
]  # a part of the astronaut with the whole head: keeps the detector quick
OFFSET = np.array([100, 20])


def row(x0, y0, x1, y1, score=1.0):
    five = np.array([x0, y0]) + face_module.MEAN_FIVE * [x1 - x0, y1 - y0]
    return np.array([x0, y0, x1, y1, *five.ravel(), score])


def unturned(points: np.ndarray, turns: int, shape: tuple) -> np.ndarray:
    """Points on np.rot90(photo, turns) taken back with an index picture instead of formulas (whole
    pixels).
    """
    y, x = np.indices(shape[:2])
    turned = np.rot90(np.stack([x, y], -1), turns)
    i, j = np.rint(points).astype(int)[:, ::-1].T
    return turned[i, j]


def mean_apart(face: Face, five: np.ndarray) -> float:
    return np.hypot(*(face.five - five).T).mean()


# ---- MTCNN on real photos


@pytest.mark.parametrize("turns", range(4))
def test_the_astronaut_is_found_whichever_way_up(astronaut, turns):
    photo = astronaut[WINDOW]
    (face,) = detect(np.rot90(photo, turns), "mtcnn")
    assert face.status == "found" and face.score > 0.95
    apart = np.hypot(*(unturned(face.five, turns, photo.shape) + OFFSET - FIVE).T)
    assert apart.max() < 8 and apart.mean() < 4  # eye distance 43
    corners = unturned(np.array(face.box).reshape(2, 2), turns, photo.shape)
    assert (corners.min(0) < (FIVE - OFFSET).min(0)).all() and (
        corners.max(0) > (FIVE - OFFSET).max(0)
    ).all()
    roll = math.remainder(landmark_crop(face).roll + turns * math.pi / 2, 2 * math.pi)
    assert abs(roll) < 0.3


def test_grey_and_the_other_portrait(astronaut, hopper):
    grey = np.repeat(astronaut[WINDOW].mean(2, keepdims=True), 3, 2)
    (face,) = detect(grey, "mtcnn")
    assert mean_apart(face, FIVE - OFFSET) < 5
    (face,) = detect(hopper, "mtcnn")
    assert face.five[:2, 1].mean() < face.five[2, 1] < face.five[3:, 1].mean()


@pytest.mark.parametrize("name", ["dark and noisy", "faded", "noisy"])
def test_poor_pictures_get_a_second_look(astronaut, rng, name):
    photo, noise = (
        astronaut[WINDOW],
        rng.standard_normal(astronaut[WINDOW].shape).astype(np.float32),
    )
    poor = {
        "dark and noisy": 0.1 * photo + 0.015 * noise,
        "faded": 0.7 + 0.08 * photo,
        "noisy": photo + 0.25 * noise,
    }[name]
    (face,) = detect(np.clip(poor, 0, 1), "mtcnn")
    assert mean_apart(face, FIVE - OFFSET) < 9


@pytest.mark.parametrize("height", [60, 100])
def test_a_tiny_portrait_is_enlarged_first(astronaut, height):
    photo = astronaut[WINDOW]
    (face,) = detect(resize(photo, (height, height)), "mtcnn")
    ratio = height / photo.shape[0]
    assert mean_apart(face, (FIVE - OFFSET + 0.5) * ratio - 0.5) < 5 * ratio


def test_a_large_photo_is_shrunk_and_answered_in_its_own_pixels(astronaut):
    photo = resize(astronaut[WINDOW], (960, 960))
    (face,) = detect(photo, "mtcnn", size=240)
    assert mean_apart(face, (FIVE - OFFSET + 0.5) * 4 - 0.5) < 16


@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_a_flat_picture_has_no_faces(value):
    assert detect(np.full((80, 120, 3), value, np.float32), "mtcnn") == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (7, 2), (15, 30), (33, 17)])
def test_pictures_too_small_for_a_face_have_none(shape):
    assert detect(np.full((*shape, 3), 0.5, np.float32), "mtcnn") == []


def test_two_faces_come_largest_first(astronaut):
    head = astronaut[WINDOW]
    photo = np.concatenate(
        [resize(head, (120, 120)).repeat(1, 0), np.zeros((120, 120, 3), np.float32)]
    )
    faces = detect(np.concatenate([photo, head], axis=1), "mtcnn")
    assert len(faces) == 2 and faces[0].side > 1.7 * faces[1].side
    assert faces[0].five[0, 0] > 120 > faces[1].five[0, 0]


def test_photos_are_not_written(astronaut):
    photo = astronaut[WINDOW].copy()
    photo.flags.writeable = False
    detect(photo, "mtcnn")


def test_threads_have_their_own_detector(astronaut):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(detect(astronaut[WINDOW], "mtcnn")))
        for _ in range(2)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 2
    np.testing.assert_array_equal(results[0][0].landmarks, results[1][0].landmarks)


# ---- the search, with a detector made of paper


class Paper:
    """Answers from a list, one for each look; keeps what it was shown."""

    def __init__(self, *answers):
        self.answers, self.seen = list(answers), []

    def __call__(self, picture):
        self.seen.append(picture)
        return self.answers.pop(0) if self.answers else np.zeros((0, 15))


def test_a_function_sees_bytes_and_is_believed():
    look = Paper(row(10, 20, 110, 140, 0.2)[None])
    (face,) = detect(np.full((300, 400, 3), 0.5, np.float32), look)
    assert face.box == (10, 20, 110, 140) and face.score == 0.2 and len(look.seen) == 1
    assert (
        look.seen[0].dtype == np.uint8
        and look.seen[0].shape == (300, 400, 3)
        and (look.seen[0] == 128).all()
    )


def test_nothing_upright_means_turns_and_then_a_cleared_copy(rng):
    look = Paper()
    assert detect(0.4 + 0.1 * rng.random((256, 300, 3), np.float32), look) == []
    assert [p.shape[:2] for p in look.seen] == [(256, 300), (300, 256), (256, 300), (300, 256)] + [
        (256, 300),
        (300, 256),
    ] * 2
    np.testing.assert_array_equal(look.seen[1], np.rot90(look.seen[0]))
    assert np.ptp(look.seen[0]) < 30 and np.ptp(look.seen[4]) == 255


@pytest.mark.parametrize("upright, looks", [(0.995, 5), (0.95, 9), (0.5, 12)])
def test_how_sure_is_sure(monkeypatch, upright, looks):
    """MTCNN's scores: sure from 0.99 and then no cleared copy, kept from 0.9, dropped below, and
    without any face the finer look is in all directions.
    """
    look = Paper(row(10, 20, 110, 140, upright)[None])
    monkeypatch.setattr(face_module, "_mtcnn", lambda: look)
    monkeypatch.setattr(face_module, "_mine", threading.local())
    faces = detect(np.full((300, 400, 3), 0.5, np.float32), "mtcnn")
    assert len(look.seen) == looks and len(faces) == (upright >= 0.9)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_answers_come_back_to_the_pixel(turns):
    none, found = np.zeros((0, 15)), row(30, 40, 90, 121)[None]
    look = Paper(none, *[none] * (turns - 1), found)
    (face,) = detect(np.full((300, 400, 3), 0.5, np.float32), look)
    expected = unturned(np.round(found[0, :14]).reshape(7, 2), turns, (300, 400))
    assert np.abs(face.landmarks - expected[2:]).max() <= 0.5
    np.testing.assert_allclose(face.box, [*expected[:2].min(0), *expected[:2].max(0)])


def test_answers_on_a_shrunk_photo_come_back_to_the_pixel_centre():
    look = Paper(row(-0.5, -0.5, 99.5, 149.5)[None])  # from edge to edge of a 100 x 150 corner
    (face,) = detect(np.full((600, 1200, 3), 0.5, np.float32), look, size=300)
    np.testing.assert_allclose(face.box, (-0.5, -0.5, 399.5, 599.5))


@pytest.mark.parametrize("side, status", [(15.9, "too_small"), (16.1, "found")])
def test_too_small_a_face_is_kept_and_said(side, status):
    look = Paper(np.array([row(20, 20, 20 + side, 60), row(100, 100, 180, 190)]))
    faces = detect(
        np.full((300, 300, 3), 0.5, np.float32),
        look,
        landmarks=lambda x: torch.full((1, 468, 2), torch.nan),
    )
    assert [f.status for f in faces] == ["found", status]


# ---- suppression


def test_near_duplicates_go_and_the_surest_stays():
    rows = np.array(
        [
            row(0, 0, 100, 100, 0.8),
            row(4, 3, 103, 101, 0.9),
            row(300, 0, 400, 100, 0.5),
            row(35, 60, 65, 90, 0.7),
        ]
    )
    np.testing.assert_array_equal(
        suppress(rows)[:, 14], [0.9, 0.5]
    )  # the mouth inside the face goes too


def test_neighbours_stay():
    rows = np.array(
        [row(0, 0, 100, 100, 0.8), row(70, 0, 170, 100, 0.9), row(70, 75, 170, 175, 0.7)]
    )
    assert len(suppress(rows)) == 3


@given(
    st.lists(
        st.tuples(*[st.integers(0, 50)] * 2, *[st.integers(5, 60)] * 2, st.integers(1, 9)),
        max_size=12,
    )
)
@settings(max_examples=50, deadline=None)
def test_suppression_is_idempotent_and_leaves_no_pair(boxes):
    rows = np.array([row(x, y, x + w, y + h, s / 10) for x, y, w, h, s in boxes]).reshape(-1, 15)
    kept = suppress(rows)
    np.testing.assert_array_equal(suppress(kept), kept)
    assert len(kept) >= bool(boxes) and (np.diff(kept[:, 14]) <= 0).all()
    for i, a in enumerate(kept):
        for b in kept[:i]:
            shared = np.prod(np.maximum(np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2]), 0))
            areas = [(r[2] - r[0]) * (r[3] - r[1]) for r in (a, b)]
            assert (
                shared <= 0.4 * (sum(areas) - shared) + 1e-9 and shared <= 0.7 * min(areas) + 1e-9
            )


# ---- what a person gives


def test_a_box_gets_a_mean_face_that_frames_alike(astronaut):
    (found,) = detect(astronaut[WINDOW], "mtcnn")
    (given_box,) = faces_from([found.box])
    assert mean_apart(given_box, found.five) < 0.15 * found.side
    a, b = eye_crop(found), eye_crop(given_box)
    assert math.dist(a.centre, b.centre) < 0.12 * a.side and 0.8 < a.side / b.side < 1.25


def test_landmarks_get_a_box_and_go_the_same_way_round():
    (face,) = faces_from([FIVE])
    np.testing.assert_array_equal(face.landmarks, FIVE)
    x0, y0, x1, y1 = face.box
    assert (
        x0 < FIVE[:, 0].min()
        and x1 > FIVE[:, 0].max()
        and y0 < FIVE[:, 1].min()
        and y1 > FIVE[:, 1].max()
    )
    box = np.array([10.0, 20, 110, 140])
    (again,) = faces_from([faces_from([box])[0].five])
    np.testing.assert_allclose(again.box, box, atol=1e-9)


def test_given_faces_are_sorted_and_small_ones_marked():
    faces = faces_from(
        [(0, 0, 10, 12), (0, 0, 300, 300), np.vstack([FIVE, np.tile(FIVE[2], (463, 1))])]
    )
    assert [f.status for f in faces] == ["found", "found", "too_small"] and [
        len(f.landmarks) for f in faces
    ] == [5, 468, 5]
    assert faces_from([]) == []


@pytest.mark.parametrize(
    "item",
    [
        (1, 2, 3),
        (5, 5, 5, 9),
        (9, 0, 2, 5),
        np.zeros((4, 2)),
        (0, 0, np.nan, 9),
        np.full((5, 2), np.inf),
    ],
)
def test_what_is_no_face_is_refused(item):
    with pytest.raises(ValueError, match="a face is"):
        faces_from([item])


# ---- Face


def test_a_face_keeps_its_own_read_only_points():
    points = FIVE.copy()
    face = Face((0, 0, 10, 20), points)
    points[:] = 0
    np.testing.assert_array_equal(face.landmarks, FIVE)
    with pytest.raises(ValueError):
        face.landmarks[0] = 1
    with pytest.raises(AttributeError):
        face.status = "restored"
    assert face.side == 10 and face.score == 1 and face.status == "found"


@pytest.mark.parametrize(
    "box, points",
    [
        ((0, 0, 1), FIVE),
        ((0, 0, np.inf, 1), FIVE),
        ((0, 0, 9, 9), FIVE[:4]),
        ((0, 0, 9, 9), FIVE * np.nan),
    ],
)
def test_a_broken_face_is_refused(box, points):
    with pytest.raises(ValueError, match="a face is a finite box"):
        Face(box, points)


# ---- dense landmarks


def mesh_around(five: np.ndarray) -> np.ndarray:
    points = np.tile(five.mean(0), (468, 1)) + np.random.default_rng(0).normal(0, 8, (468, 2))
    for i, j in zip((33, 133, 362, 263, 1, 61, 291), (0, 0, 1, 1, 2, 3, 4), strict=True):
        points[i] = five[j]
    return points


def answering(points: np.ndarray, face: Face, shown: list):
    """A net that knows the answer: `points` on the photo, told in the crop's 0..1 from edge to
    edge.
    """

    def net(x):
        shown.append(x)
        return torch.tensor((eye_crop(face.five, 128).points(points) + 0.5) / 128)[None]

    return net


def test_dense_points_come_back_to_the_photo(astronaut):
    face, shown = faces_from([FIVE])[0], []
    points = mesh_around(FIVE)
    result = dense(astronaut, face, answering(points, face, shown))
    np.testing.assert_allclose(result.landmarks, points, atol=1e-3)
    np.testing.assert_allclose(result.five, FIVE, atol=1e-3)
    assert (result.box, result.score, result.status) == (face.box, face.score, face.status) and len(
        face.landmarks
    ) == 5
    assert shown[0].shape == (1, 3, 128, 128) and not shown[0].requires_grad
    np.testing.assert_allclose(
        shown[0][0].permute(1, 2, 0).numpy(), eye_crop(FIVE, 128).cut(astronaut), atol=1e-6
    )


@pytest.mark.parametrize(
    "shift, believed", [(0.3, True), (0.4, False), (5, False), (np.nan, False)]
)
def test_an_implausible_answer_is_not_believed(astronaut, shift, believed):
    face = faces_from([FIVE])[0]
    points = mesh_around(FIVE) + [0, shift * math.dist(*FIVE[:2])]
    result = dense(astronaut, face, answering(points, face, []))
    assert len(result.landmarks) == (468 if believed else 5)


@pytest.mark.parametrize("shape", [(1, 68, 2), (1, 468, 3)])
def test_an_answer_of_another_shape_is_not_believed(astronaut, shape):
    face = faces_from([FIVE])[0]
    assert dense(astronaut, face, lambda x: torch.zeros(shape)) is face


def test_detect_adds_dense_landmarks(astronaut):
    face = faces_from([FIVE])[0]
    look = Paper(np.r_[face.box, FIVE.ravel(), 1][None])
    (result,) = detect(astronaut, look, landmarks=answering(mesh_around(FIVE), face, []))
    assert result.landmarks.shape == (468, 2)
    np.testing.assert_allclose(five_from_mesh(result.landmarks), FIVE, atol=1e-3)


# ---- choosing a detector


def test_an_unknown_detector_is_named():
    with pytest.raises(ValueError, match='"auto", "mtcnn", "yunet".*retina'):
        detect(np.zeros((64, 64, 3), np.float32), "retina")


def test_a_missing_yunet_file_is_said_in_one_line(tmp_path):
    for detector in ("yunet", "auto"):
        with pytest.raises(FileNotFoundError, match="YuNet's file is not at .*nowhere.onnx; ") as e:
            detect(
                np.zeros((64, 64, 3), np.float32), detector, yunet_file=tmp_path / "nowhere.onnx"
            )
        assert "\n" not in str(e.value)


def test_a_missing_package_is_said_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "mtcnnruntime", None)
    monkeypatch.setattr(face_module, "_mine", threading.local())
    with pytest.raises(ModuleNotFoundError, match="pip install mtcnn-runtime") as e:
        detect(np.zeros((64, 64, 3), np.float32), "mtcnn")
    assert "\n" not in str(e.value)


def test_auto_takes_yunet_only_where_its_file_is(monkeypatch, tmp_path):
    file, made = tmp_path / "yunet.onnx", []
    monkeypatch.setattr(face_module, "_yunet", lambda f: made.append(f) or Paper())
    monkeypatch.setattr(face_module, "_mtcnn", lambda: made.append("mtcnn") or Paper())
    monkeypatch.setenv("MTRESTORE_YUNET", str(file))
    for expected in ("mtcnn", file):
        monkeypatch.setattr(face_module, "_mine", threading.local())
        detect(np.zeros((64, 64, 3), np.float32))
        assert made[-1] == expected
        file.touch()


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_yunet_finds_the_astronaut(astronaut, shared, turns):
    photo = astronaut[WINDOW]
    (face,) = detect(
        np.rot90(photo, turns), "yunet", yunet_file=shared / "models/yunet_s_dynamic.onnx"
    )
    apart = np.hypot(*(unturned(face.five, turns, photo.shape) + OFFSET - FIVE).T)
    assert apart.mean() < 9 and face.score > 0.8  # its points are coarser than MTCNN's
