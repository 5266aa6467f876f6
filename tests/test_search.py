"""Claims about where faces are looked for: every face that would be restored is found, whatever the
photo's shape and whichever way up it lies, in bounded work; what was not looked for is said.
"""

import math
import threading

import numpy as np
import pytest

from mtrestore import cli, face, image, search
from mtrestore.lab import overview
from mtrestore.pipeline import Restorer

MIDDLE = np.array([224.5, 122.0]) - (100, 20)  # of the astronaut's face in her head's window
SIDE, WINDOW = 86, 240  # px, the width of her face and of that window
QUIET = {"device": "cpu", "keep_steps": False}


@pytest.fixture
def head(astronaut):
    """The astronaut's head, her face `side` px wide: samples, and the middle of the face there."""
    window = image.as_samples(astronaut[20:260, 100:340], np.uint8)

    def at(side: float, turns: int = 0, mirror: bool = False) -> tuple[np.ndarray, np.ndarray]:
        size = round(WINDOW * side / SIDE)
        small = image.resize(window, (size, size))
        x, y = MIDDLE * size / WINDOW
        if mirror:
            small, x = small[:, ::-1], size - 1 - x
        middle = [(x, y), (y, size - 1 - x), (size - 1 - x, size - 1 - y), (size - 1 - y, x)][turns]
        return np.rot90(small, turns), np.array(middle)

    return at


@pytest.fixture
def scene(head, rng):
    """A photo of that shape with heads (x, y, side, turns) on it, and the middles of the faces."""

    def of(height: int, width: int, heads: list[tuple]) -> tuple[np.ndarray, np.ndarray]:
        ramp = np.linspace(90, 170, width, dtype=np.float32)[None, :, None]
        photo = ramp + rng.normal(0, 2, (height, width, 3)).astype(np.float32)
        photo = photo.astype(np.uint8)
        middles = []
        for number, (x, y, side, turns) in enumerate(heads):
            part, middle = head(side, turns, mirror=number % 2 == 1)
            photo[y : y + len(part), x : x + len(part)] = part
            middles.append(middle + (x, y))
        return photo, np.array(middles)

    return of


def hits(faces: face.Faces, middles: np.ndarray, sides: list[float]) -> int:
    """How many middles have a face of about their side; no face may lie elsewhere."""
    places = np.array([(f.box[0] + f.box[2], f.box[1] + f.box[3]) for f in faces]) / 2
    apart = np.hypot(*(places.reshape(-1, 1, 2) - middles).transpose(2, 0, 1))
    near = apart < 0.4 * np.array(sides)
    assert near.any(1).all(), f"faces where none is: {places[~near.any(1)]}"
    assert (near.sum(0) <= 1).all(), "a face is found twice"
    return int(near.any(0).sum())


def turns_of(found: face.Face) -> int:
    """The quarter turns of np.rot90 that a face lies turned by."""
    x, y = found.five[3:].mean(0) - found.five[:2].mean(0)
    return round(math.atan2(x, y) / (math.pi / 2)) % 4


@pytest.mark.parametrize(
    "height, width, side, count",
    [
        (160, 3680, 40, 9),  # a panorama, 23:1
        (3400, 420, 24, 12),  # a long screenshot with small portraits
        (90, 2400, 18, 10),
        (2600, 100, 30, 8),
    ],
)
def test_wide_and_tall_photos_hide_no_face(scene, height, width, side, count):
    """Along the long side, the heads at the left or the top of a short one."""
    step, wide = max(height, width) // count, width > height
    heads = [(i * step, 6, side, 0) if wide else (6, i * step, side, 0) for i in range(count)]
    photo, middles = scene(height, width, heads)
    faces = face.detect(photo, "mtcnn")
    assert hits(faces, middles, [side] * count) == count
    assert faces.notes == ()


@pytest.mark.parametrize("least, most, lines, across", [(20, 28, 4, 15), (34, 56, 3, 17)])
def test_rows_of_many_small_faces(scene, rng, least, most, lines, across):
    step = round(WINDOW / SIDE * most) + 4
    sides = rng.uniform(least, most, lines * across).tolist()
    heads = [
        (4 + i % across * step, 4 + i // across * step, side, 0) for i, side in enumerate(sides)
    ]
    photo, middles = scene(lines * step + 8, across * step + 8, heads)
    assert hits(face.detect(photo, "mtcnn"), middles, sides) >= 0.95 * lines * across


@pytest.mark.parametrize("turns", [(0, 1, 2, 3), (0, 2), (3, 1, 1), (2, 2, 0, 1, 3, 0, 1, 2, 3)])
def test_prints_on_a_page_lie_in_directions_of_their_own(scene, turns):
    unit, across = 330, math.ceil(len(turns) ** 0.5)
    sides = [58 + 7 * (i % 4) for i in range(len(turns))]
    heads = [
        (40 + i % across * unit, 40 + i // across * unit, sides[i], turn)
        for i, turn in enumerate(turns)
    ]
    photo, middles = scene(unit * math.ceil(len(turns) / across), unit * across, heads)
    faces = face.detect(photo, "mtcnn")
    assert hits(faces, middles, sides) == len(turns)
    assert sorted(map(turns_of, faces)) == sorted(turns)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_group_that_lies_on_its_side_is_found_small_as_it_is(scene, turns):
    """None of them shows in the first look, in any direction."""
    heads = [(30 + 330 * (i % 4), 40 + 330 * (i // 4), 30, turns) for i in range(12)]
    photo, middles = scene(1000, 1500, heads)
    faces = face.detect(photo, "mtcnn")
    assert hits(faces, middles, [30] * 12) == 12 and set(map(turns_of, faces)) == {turns}


def test_a_face_across_the_edge_of_tiles_is_found_once(scene):
    """Large and small ones, every 90 px, so that wherever tiles meet some lie across."""
    heads = [(90 * i, 0, 30, 0) for i in range(26)] + [(600 * i, 150, 150, 0) for i in range(4)]
    photo, middles = scene(620, 2440, heads)
    sides = [30] * 26 + [150] * 4
    assert hits(face.detect(photo, "mtcnn"), middles, sides) == 30


def test_a_large_face_does_not_end_the_search_for_small_ones(scene):
    heads = [(20, 20, 260, 0), (900, 40, 24, 0), (1100, 500, 22, 0), (800, 700, 30, 0)]
    photo, middles = scene(900, 1250, heads)
    assert hits(face.detect(photo, "mtcnn"), middles, [260, 24, 22, 30]) == 4


# ---- what it costs, and what is said


class Counting:
    """MTCNN, and how many pixels it was shown."""

    def __init__(self):
        self.look, self.pixels, self.largest = face._mtcnn(), 0, 0

    def __call__(self, picture):
        self.pixels += picture[..., 0].size
        self.largest = max(self.largest, *picture.shape)
        return self.look(picture)


@pytest.fixture
def counting(monkeypatch):
    look = Counting()
    monkeypatch.setattr(face, "_mtcnn", lambda: look)
    monkeypatch.setattr(face, "_mine", threading.local())
    return look


def test_a_large_photo_with_one_face_costs_little_and_says_what_it_leaves_out(scene, counting):
    photo, middles = scene(2828, 4243, [(1500, 900, 150, 0)])
    faces = face.detect(photo, "mtcnn")
    assert hits(faces, middles, [150]) == 1
    assert counting.pixels < 4.5e6 and counting.largest <= 1024
    (note,) = faces.notes
    assert note == (
        "faces under 44 px, turned ones under 133 px, were not looked for in so large a photo "
        "(12 megapixels); name one with --box x0,y0,x1,y1"
    )


@pytest.mark.parametrize("shape", [(2000, 3000), (300, 20000)])
def test_work_is_bounded_where_no_face_is(counting, shape):
    assert face.detect(np.full((*shape, 3), 128, np.uint8), "mtcnn") == []
    most = 4 * search.USUAL + search.MOST + 8 * 640**2  # four ways, one way, first and cleared
    assert counting.pixels < 1.5 * most and counting.largest <= 1024


def test_a_small_photo_needs_no_note(astronaut):
    assert face.detect(astronaut, "mtcnn").notes == ()


def test_a_function_of_ones_own_sees_the_whole_photo_and_that_is_said():
    faces = face.detect(np.zeros((600, 1200, 3), np.float32), lambda x: np.zeros((0, 15)))
    (note,) = faces.notes
    assert note == "the detector function saw the whole photo at 640x320 px, not in tiles"


def test_notes_of_the_search_reach_the_result_and_the_command(tmp_path, monkeypatch, capsys):
    said = face.Faces([], ["faces under 44 px were not looked for"])
    monkeypatch.setattr("mtrestore.pipeline.detect", lambda *a, **k: said)
    monkeypatch.setattr(face, "detect", lambda *a, **k: said)
    photo = tmp_path / "a.png"
    image.write(photo, np.full((40, 50, 3), 0.5, np.float32))
    assert said.notes[0] in Restorer(**QUIET)(photo).notes
    assert cli.main(["faces", str(photo), "-o", str(tmp_path / "b.png")]) == 0
    assert "\nfaces under 44 px were not looked for\n" in capsys.readouterr().out


# ---- which rows stay


def rows_of(*boxes: tuple[float, ...]) -> np.ndarray:
    """Rows of boxes x0, y0, x1, y1, score, with the points of a mean face."""
    rows = [
        [*b[:4], *(b[:2] + face.MEAN_FIVE * np.subtract(b[2:4], b[:2])).ravel(), b[4]]
        for b in boxes
    ]
    return np.array(rows)


@pytest.mark.parametrize("turned, direction", [(0.999, 2), (0.9, 0)])
def test_where_directions_overlap_the_surest_stays(turned, direction):
    """A print upside down, taken for an upright one at 0.93."""
    photo = np.full((300, 300, 3), 128, np.uint8)
    answers = {0: 0.93, 2: turned}
    order = iter([0, 1, 2, 3])

    def look(picture):
        turns = next(order, None)
        if turns is None:  # alone on a sheet: it is found again
            return rows_of((34, 34, 94, 94, 1.0))
        return rows_of((125, 125, 250, 250, answers[turns])) if turns in answers else []

    scores = search.Scores(0.9, 0.5, 0.95)
    rows, _ = search.everywhere(look, photo, 1.25, scores)
    assert len(rows) == 1 and rows[0, 14] == max(0.93, turned)
    assert search._quarter(rows).tolist() == [direction]


def test_what_is_not_found_again_alone_is_left_out(rng):
    photo = rng.integers(0, 256, (300, 300, 3)).astype(np.uint8)
    seen = []

    def look(picture):
        seen.append(picture.shape)
        return rows_of((100, 100, 200, 200, 0.999)) if len(seen) == 2 else []

    rows, _ = search.everywhere(look, photo, 1.25, search.Scores(0.9, -1, 0.95))
    assert len(rows) == 0 and (128, 128, 3) in seen


# ---- how a box is written


def test_a_box_at_the_edge_has_no_minus_before_its_zero():
    (edge,) = face.faces_from([(-0.4, -0.3, 60.2, 70.5)])
    assert overview.table([edge]).rows["1"]["box"] == "0,0,60,70"


# ---- photos that came with too few


@pytest.mark.parametrize(
    "case, name, count",
    [
        ("03_wide_or_tall_picture_no_faces", "panorama.jpg", 9),
        ("03_wide_or_tall_picture_no_faces", "screenshot.jpg", 21),
        ("05_album_page_turned_prints", "album_1.jpg", 4),
    ],
)
def test_as_many_faces_as_there_are(shared, case, name, count):
    picture = image.load(shared / "cases" / case / name)
    assert len(face.detect(picture.samples, "mtcnn")) == count
