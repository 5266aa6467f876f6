"""Choosing: which faces, how much of each, where a result goes, and what is said when a word is
wrong or no face is there.
"""

import csv
import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from faults import Here

import mtrestore as mt
from mtrestore import choice, cli, degrade, face, image, weights
from mtrestore.folder import one_file, pool, run
from mtrestore.folder.flags import flags
from mtrestore.folder.journal import known
from mtrestore.io.text import nearest
from mtrestore.lab import overview
from mtrestore.options import LIKE, Options, facts
from mtrestore.pipeline import Restorer, identity, keep_large

BOXES = [(20, 20, 80, 90), (120, 30, 170, 90), (200, 40, 240, 80)]  # largest first
SHAPE = (128, 260)
QUICK = {"restorer": identity, "upsampler": keep_large, "sharpener": identity, "landmarks": False}
QUICK |= {"device": "cpu", "face": lambda x: x * 0 + stripes(x.shape[-1])}


def stripes(size):
    """What a restored face is made of here: a pattern that no matching of colours takes away."""
    return (torch.arange(size) // 8 % 2).float().expand(size, size)


def sees(*boxes):
    """A detector that sees faces at these boxes of a 256 px wide copy of the photo."""

    def look(picture):
        rows = np.zeros((len(boxes), 15))
        k = picture.shape[1] / SHAPE[1]
        for row, made in zip(rows, face.faces_from(boxes) if boxes else ()):
            row[:14] = np.concatenate([made.box, made.landmarks.ravel()]) * k
            row[14] = 0.99
        return rows

    return look


@pytest.fixture
def photo():
    return np.full((*SHAPE, 3), (0.9, 0.8, 0.7), np.float32)


@pytest.fixture
def path(tmp_path, photo):
    (tmp_path / "in").mkdir()
    return image.write(tmp_path / "in" / "group.png", photo)


@pytest.fixture
def quick(monkeypatch):
    """The command with quick nets, and a detector that sees three faces."""
    look = [sees(*BOXES)]

    def models(settings):
        said = dict(settings.options) | QUICK | {"detector": look[0]}
        return Restorer(**said, keep_steps=False)

    monkeypatch.setattr(one_file, "models", models)
    monkeypatch.setattr(face, "_detector", lambda *_: (look[0], None))
    monkeypatch.setattr(pool, "Local", Here)
    return look


def command(*words):
    try:
        return cli.main(
            [os.fspath(word) if isinstance(word, Path) else str(word) for word in words]
        )
    except SystemExit as e:
        return e.code


def striped(picture, boxes=BOXES):
    """The numbers of the boxes whose middle was restored."""
    picture = image.read(picture) if isinstance(picture, Path) else picture
    middle = [(int(y0 + y1) // 2, int(x0 + x1) // 2) for x0, y0, x1, y1 in boxes]
    return [i for i, (y, x) in enumerate(middle, 1) if np.ptp(picture[y, x - 12 : x + 12]) > 0.3]


# ---------------------------------------------------------------- faces by number


@pytest.mark.parametrize(
    "options, numbers",
    [
        ({}, [1, 2, 3]),
        ({"faces": [2]}, [2]),
        ({"faces": (3, 1, 3)}, [1, 3]),
        ({"faces": {2, 3}}, [2, 3]),
        ({"faces": range(1, 3)}, [1, 2]),
        ({"faces": np.array([3])}, [3]),
        ({"faces": []}, []),
        ({"faces": False}, []),
        ({"skip_faces": [2]}, [1, 3]),
        ({"skip_faces": [1, 2, 3]}, []),
        ({"faces": [1, 2], "skip_faces": [2]}, [1]),
        ({"face_strength": {2: 0}}, [1, 3]),
        ({"face_strength": ((1, 0), (3, 0.0))}, [2]),
        ({"faces": [1], "more_faces": [BOXES[2]]}, [1, 3]),
        ({"faces": False, "more_faces": BOXES[1:]}, [2, 3]),
        ({"face_strength": 0}, []),
    ],
    ids=repr,
)
def test_these_faces_and_no_other_are_restored(photo, options, numbers):
    result = mt.restore(photo, **QUICK | {"detector": sees(*BOXES)} | options)
    assert striped(result.image) == numbers
    restored = [i for i, f in enumerate(result.faces, 1) if f.status == "restored"]
    if len(result.faces) == 3:
        assert restored == numbers
        assert {f.status for f in result.faces} <= {"restored", "left_out"}
    outside = np.ones(SHAPE, bool)
    for crop in result.crops:
        outside &= crop.mask(SHAPE) == 0
    assert np.array_equal(result.image[outside], photo[outside]), "the rest stays bit for bit"


@pytest.mark.parametrize(
    "options, count, words",
    [
        ({"faces": [4]}, 3, "no face 4: 3 faces were found, numbers 1 to 3"),
        ({"faces": [1, 99]}, 3, "no face 99: 3 faces were found"),
        ({"skip_faces": [5]}, 3, "no face 5: 3 faces were found"),
        ({"face_strength": {1: 0.5, 7: 1}}, 3, "no face 7: 3 faces were found"),
        ({"faces": [2]}, 1, "no face 2: one face was found, number 1"),
        ({"faces": [1]}, 0, "no face 1: no face was found; name one with --box"),
        ({"faces": [3], "more_faces": [(100, 100, 140, 128)]}, 1, "no face 3: 2 faces"),
    ],
    ids=repr,
)
def test_a_number_that_no_face_has_is_one_line(photo, options, count, words):
    with pytest.raises(mt.ImageError, match=words) as e:
        mt.restore(photo, **QUICK | {"detector": sees(*BOXES[:count])} | options)
    assert e.value.code == "E_FACE" and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"faces": 2}, r"faces must be True, False or numbers of faces.* got 2"),
        ({"faces": "1,3"}, "faces must be True, False or numbers"),
        ({"faces": [0]}, r"from 1 up, like \[1, 3\], got \[0\]"),
        ({"faces": [1.0]}, "numbers of faces from 1 up"),
        ({"faces": None}, "True, False or numbers"),
        ({"faces": (n for n in [1])}, "True, False or numbers"),
        ({"skip_faces": [True]}, "skip_faces must be numbers of faces"),
        ({"skip_faces": 1}, "skip_faces must be numbers of faces"),
        ({"skip_faces": [-1]}, "skip_faces must be numbers of faces"),
        ({"face_strength": {1: 1.5}}, "face_strength of face 1 must lie in 0..1, got 1.5"),
        ({"face_strength": {1: float("nan")}}, "face_strength of face 1 must lie in 0..1"),
        ({"face_strength": {"nose": 1}}, "the faces of face_strength must be numbers"),
        ({"face_strength": (1, 0)}, "face_strength must be a number, or a mapping"),
        ({"face_strength": [1, 2]}, "face_strength must lie in 0..1"),
        ({"more_faces": [(10, 10, 10, 40)]}, "a box of a face must be x0,y0,x1,y1 in px"),
        ({"more_faces": [(10, 40, 30, 20)]}, "x0 < x1 and y0 < y1"),
        ({"more_faces": (10, 10, 30, 40)}, "a box of a face must be"),
        ({"more_faces": [(0, 0, 1e400, 9)]}, "a box of a face must be"),
        ({"more_faces": 7}, "a box of a face must be"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", repr(value)),
)
def test_what_is_no_number_strength_or_box_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Options.of(options)


def test_each_face_has_its_own_strength(photo):
    def restored(strength):
        return mt.restore(photo, **QUICK, detector=sees(*BOXES), face_strength=strength).image

    whole, half, own = restored(1), restored(0.5), restored({1: 0.5, 3: 0.25})
    places = [((slice(y0, y1), slice(x0, x1))) for x0, y0, x1, y1 in BOXES]
    assert np.array_equal(own[places[0]], half[places[0]])
    assert np.array_equal(own[places[1]], whole[places[1]])
    change, most = own[places[2]] - photo[places[2]], whole[places[2]] - photo[places[2]]
    assert np.allclose(change, 0.25 * most, atol=1e-4) and np.abs(most).max() > 0.3


def test_faces_of_an_earlier_result_are_chosen_anew(photo):
    first = Restorer(**QUICK, detector=sees(*BOXES), faces=[1])(photo)
    assert [f.status for f in first.faces] == ["restored", "left_out", "left_out"]
    again = Restorer(**QUICK, detector=sees())(photo, first.faces)
    assert striped(again.image) == [1, 2, 3] and not again.notes


# ---------------------------------------------------------------- faces by hand


@pytest.mark.parametrize(
    "box, numbers, count",
    [
        ((90, 95, 120, 127), [1, 2, 3], 4),  # where none was found: one more
        ((22, 18, 82, 92), [1, 2, 3], 3),  # over the first: takes its place
        ((120, 30, 170, 90), [1, 2, 3], 3),
        ((-20, 95, 30, 140), [1, 2, 3], 4),  # cut by the edge
        ((100, 100, 110, 110), [1, 2, 3], 4),  # too small
    ],
)
def test_a_box_adds_a_face_or_takes_its_place(photo, box, numbers, count):
    result = mt.restore(photo, **QUICK, detector=sees(*BOXES), more_faces=[box])
    assert striped(result.image) == numbers and len(result.faces) == count
    assert tuple(map(float, box)) in [f.box for f in result.faces]
    by_hand = result.faces[-1].status if count == 4 else "restored"
    assert by_hand == ("too_small" if box[0] == 100 else "restored")


@pytest.mark.parametrize(
    "box",
    [(260, 0, 300, 40), (-50, 0, 0, 40), (0, 128, 40, 200), (0, -60, 40, 0), (900, 900, 999, 999)],
)
def test_a_box_beside_the_photo_is_one_line(photo, box):
    with pytest.raises(mt.ImageError, match="beside the photo, which is 260 px wide and 128") as e:
        mt.restore(photo, **QUICK, detector=sees(), more_faces=[box])
    assert e.value.code == "E_FACE"


def test_boxes_alone_name_all_faces_and_none_is_looked_for(photo):
    def never(picture):
        raise AssertionError("no face is looked for")

    assert striped(mt.restore(photo, boxes=BOXES[:1], **QUICK, detector=never).image) == [1]
    options = {"faces": False, "more_faces": BOXES[1:2]}
    assert striped(mt.restore(photo, **QUICK, detector=never, **options).image) == [2]


# ---------------------------------------------------------------- on the command line


@pytest.mark.parametrize(
    "words, said",
    [
        ("--faces-only 1,3", {"faces": (1, 3)}),
        ("--faces-only 3,1,3", {"faces": (1, 3)}),
        ("--skip-faces 2", {"skip_faces": (2,)}),
        ("--box 1,2,30,40 --box -3,0,5.5,9", {"more_faces": ((1, 2, 30, 40), (-3, 0, 5.5, 9))}),
        ("--box=-.5,-2,3,4", {"more_faces": ((-0.5, -2, 3, 4),)}),
        ("--no-faces --box 1,2,3,4", {"faces": False, "more_faces": ((1, 2, 3, 4),)}),
        ("--face-strength 1=0.5,3=0", {"face_strength": ((1, 0.5), (3, 0.0))}),
        ("--like light", {"photo_strength": 0.5, "face_strength": 0.5, "face_fidelity": 1.0}),
        ("--like light --face-strength 1", {"photo_strength": 0.5, "face_strength": 1.0}),
        ("--like light --photo-strength 1", {"photo_strength": 1.0, "face_fidelity": 1.0}),
        ("--like strong", {"photo_strength": 1.0, "face_fidelity": 0.0}),
        ("--like strong --face-fidelity 1", {"face_fidelity": 1.0}),
        ("--like normal", {"photo_strength": 1.0, "face_strength": 1.0, "face_fidelity": None}),
    ],
)
def test_flags_say_which_faces_and_how_much(words, said):
    from mtrestore.options import options_from

    options = options_from(cli.parser().parse_args(["restore", "x.jpg", *words.split()]))
    assert options | said == options and "like" not in options
    hash(tuple(options.items()))


@pytest.mark.parametrize(
    "words, hint",
    [
        ("--faces-only x", "expected numbers of faces, like 1,3, got 'x'"),
        ("--faces-only 0", "got '0'"),
        ("--skip-faces 1;2", "expected numbers of faces"),
        ("--box 1,2,3", "expected x0,y0,x1,y1 in px, got '1,2,3'"),
        ("--box a,b,c,d", "expected x0,y0,x1,y1"),
        ("--face-strength 1=x", "invalid strength value"),
        ("--face-strength 1=2=3", "invalid strength value"),
        ("--no-faces --faces-only 1", "not allowed with"),
        ("--like lihgt", "did you mean 'light'?"),
        ("--crop landmrk", "did you mean 'landmark'?"),
        ("--face-strenght 1", "did you mean '--face-strength'?"),
        ("--skipfaces 1", "did you mean '--skip-faces'?"),
        ("--photo_strength=1", "did you mean '--photo-strength'?"),
        ("--boxes 1,2,3,4", "did you mean '--box'?"),
    ],
)
def test_a_wrong_word_says_the_right_one(words, hint, capsys):
    assert command("restore", "x.jpg", *words.split()) == 2
    assert hint in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "words, hint",
    [
        (["restor", "x"], "did you mean 'restore'?"),
        (["model"], "did you mean 'models'?"),
        (["reprot", "x"], "did you mean 'report'?"),
        (["facse", "x"], "did you mean 'faces'?"),
        (["train", "restoraton", "--settings", "x"], "did you mean 'restoration'?"),
        (["models", "fecth", "yunet"], "did you mean 'fetch'?"),
        (["evaluate", ".", "--what", "face"], "did you mean 'faces'?"),
        (["sweep", "x", "--dryrun"], "did you mean '--dry-run'?"),
    ],
)
def test_a_mistyped_command_stage_or_part_is_told(words, hint, capsys):
    assert command(*words) == 2
    assert hint in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "do, hint",
    [
        (lambda: weights.find("fase"), "did you mean 'face'?"),
        (lambda: weights.fetch("yunnet"), "did you mean 'yunet'?"),
        (lambda: degrade.draw("sever", np.random.default_rng(0)), "did you mean 'severe'?"),
        (lambda: Options.of({"like": "Strong"}), "did you mean 'strong'?"),
        (lambda: Options.of({"detector": "yunett"}), "did you mean 'yunet'?"),
    ],
)
def test_a_mistyped_name_is_told_in_python(do, hint):
    with pytest.raises(ValueError) as e:
        do()
    assert hint in str(e.value)


@pytest.mark.parametrize(
    "text, hint",
    [
        ("notebook: 12_gan_piror.ipynb\nseeds: [0]", "did you mean '12_gan_prior.ipynb'?"),
        ("notebok: 12_gan_prior.ipynb\nnotebook: x\nseeds: [0]", "did you mean 'notebook'?"),
    ],
)
def test_a_mistyped_notebook_is_told(tmp_path, text, hint):
    from mtrestore.lab import sweep

    (tmp_path / "12_gan_prior.ipynb").write_text("{}")
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError)) as e:
        sweep.read(tmp_path / "s.yaml")
    assert hint in str(e.value)


@pytest.mark.parametrize("text", ["stage: fase\nsteps: 5", "stage: face\nsteps: 5\nbatchs: {}"])
def test_a_mistyped_stage_or_setting_is_told(tmp_path, text):
    from mtrestore.training import settings

    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ValueError, match="did you mean '(face|batches)'"):
        settings.read_settings(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    "word, hint",
    [("stron", "; did you mean 'strong'?"), ("LIGHT", "; did you mean 'light'?"), ("zzz", "")]
    + [("", ""), (None, ""), ([1], ""), ("normal ", "; did you mean 'normal'?")],
)
def test_the_nearest_word(word, hint):
    assert nearest(word, LIKE) == hint


def test_a_photo_without_a_command_is_told_the_command(path, capsys):
    assert command(path) == 2
    assert f"did you mean `mtrestore restore {path}`?" in capsys.readouterr().err


def test_numbers_choose_on_the_command_line_too(path, tmp_path, quick, capsys):
    out = tmp_path / "o.png"
    for words, numbers in {
        "--faces-only 1,3": [1, 3],
        "--skip-faces 2": [1, 3],
        "--no-faces --box 120,30,170,90": [2],
        "--face-strength 1=0,3=0": [2],
        "--faces-only 2 --box 200,40,240,80": [2, 3],
        "--face-strength 0": [],
    }.items():
        assert command("restore", path, "-o", out, "--overwrite", *words.split()) == 0
        assert striped(out) == numbers, words
    assert "3 faces (2 left out)" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["--faces-only 4", "--skip-faces 9", "--face-strength 5=1"])
def test_a_wrong_number_exits_1_in_one_line_and_writes_nothing(
    path, tmp_path, quick, words, capsys
):
    report = tmp_path / "r.json"
    line = ["restore", path, "-o", tmp_path / "o.png", "--report", report, *words.split()]
    assert command(*line) == 1 and not (tmp_path / "o.png").exists()
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and "3 faces were found, numbers 1 to 3" in errors[0]
    assert json.loads(report.read_text())["files"][0]["code"] == "E_FACE"


@pytest.mark.parametrize(
    "words", ["--faces-only 1", "--skip-faces 1", "--box 1,2,30,40", "--face-strength 1=0.5"]
)
def test_numbers_are_of_one_photo(path, words, capsys):
    assert command("restore", path.parent, *words.split()) == 2
    assert command("restore", path, path, "-o", "out", *words.split()) == 2
    assert "give one picture" in capsys.readouterr().err


# ---------------------------------------------------------------- where a result goes


@pytest.mark.parametrize(
    "name, place",
    [
        ("photo.jpg", "photo_restored.jpg"),
        ("Photo.JPEG", "Photo_restored.JPEG"),
        ("a.b.png", "a.b_restored.png"),
        ("anim.gif", "anim_restored.png"),
        ("noname", "noname_restored.png"),
        (".hidden", ".hidden_restored.png"),
        ("with space é.tif", "with space é_restored.tif"),
        ("photo_restored.jpg", "photo_restored_restored.jpg"),
        ("x" * 251 + ".jpg", "x" * 242 + "_restored.jpg"),
        ("é" * 125 + ".webp", "é" * 120 + "_restored.webp"),
        ("bad\udcff.bmp", "bad\udcff_restored.bmp"),
    ],
)
def test_a_result_goes_beside_its_photo(tmp_path, name, place):
    assert run.beside(os.path.join(tmp_path, name), "restored") == tmp_path / place
    assert len(os.fsencode(place)) <= 255


def test_a_name_that_is_taken_is_counted_on(tmp_path):
    source = tmp_path / "a.png"
    places = []
    for make in (Path.touch, Path.mkdir, lambda p: p.symlink_to("nowhere"), os.mkfifo):
        places.append(run.beside(str(source), "restored"))
        make(places[-1])
    names = ["a_restored.png", "a_restored_2.png", "a_restored_3.png", "a_restored_4.png"]
    assert [p.name for p in places] == names
    assert run.beside(str(source), "restored", again=True).name == "a_restored.png"


@pytest.mark.parametrize("name", ["album", "album/", "./album", "album/.", "album/../album"])
def test_a_folder_goes_beside_itself_whatever_is_there(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "album").mkdir()
    (tmp_path / "album_restored").mkdir()
    assert os.path.abspath(run.beside(name, "restored")) == str(tmp_path / "album_restored")
    monkeypatch.chdir(tmp_path / "album")
    assert os.path.abspath(run.beside(".", "restored")) == str(tmp_path / "album_restored")
    with pytest.raises(image.ImageError, match="give -o OUT"):
        run.beside("/", "restored")


def test_beside_a_photo_that_may_only_be_read_is_said_before_any_work(path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)  # as on a disc, or a phone
    monkeypatch.setattr(one_file, "models", None)
    for words in (["restore", path], ["restore", path.parent], ["faces", path]):
        assert command(*words) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and "give -o OUT" in lines[0]
    assert run.beside("nowhere/x.jpg", "restored") == Path("nowhere/x_restored.jpg")


def test_without_a_name_nothing_is_written_over(path, quick, capsys):
    before = path.read_bytes()
    for name in ("group_restored.png", "group_restored_2.png", "group_restored_3.png"):
        assert command("restore", path, "--faces-only", 1) == 0
        assert f"-> {path.with_name(name)}" in capsys.readouterr().out
    precious = path.with_name("group_restored.png")
    precious.write_text("mine")
    assert command("restore", path, "--html") == 0 and precious.read_text() == "mine"
    assert path.with_name("group_restored_4.html").exists() and path.read_bytes() == before
    assert command("restore", path, "--overwrite", "--skip-faces", 3) == 0
    assert striped(precious) == [1, 2] and path.read_bytes() == before


def test_a_folder_without_a_name(path, quick, capsys):
    out = path.parent.with_name("in_restored")
    assert command("restore", path.parent, "--jobs", 1) == 0 and striped(out / "group.png") == [
        1,
        2,
        3,
    ]
    assert command("restore", path.parent, "--jobs", 1) == 1, "as for every file that is there"
    assert "--overwrite" in capsys.readouterr().err
    assert command("restore", path.parent, "--jobs", 1, "--resume") == 0
    assert "1 skipped" in capsys.readouterr().out
    assert command("restore", path, path.parent) == 2, "where to, of several, has to be said"
    assert "2 inputs need -o FOLDER" in capsys.readouterr().err
    assert command("restore", path, "--resume") == 2, "no journal beside a photo unasked"
    assert "name it with -o" in capsys.readouterr().err


# ---------------------------------------------------------------- the overview


def test_the_table_says_number_box_size_and_status():
    faces = face.faces_from([*BOXES, (5, 5, 15, 15)])
    assert repr(overview.table(faces)).splitlines() == [
        "face  box            size      status",
        "1     20,20,80,90    60×70 px  found",
        "2     120,30,170,90  50×60 px  found",
        "3     200,40,240,80  40×40 px  found",
        "4     5,5,15,15      10×10 px  too small",
    ]


@pytest.mark.parametrize(
    "shape", [(128, 260, 3), (9, 9, 3), (40, 4000, 3), (3000, 30, 3), (1, 1, 3)]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_picture_of_any_shape_gets_its_numbers(shape, dtype):
    photo = image.as_samples(np.full(shape, 0.5, np.float32), dtype)
    faces = face.faces_from([(0, 0, shape[1], shape[0]), (-9, -9, 3, 5)])
    numbered = overview.numbered(photo, faces)
    assert 640 <= max(numbered.shape) <= 1600
    assert np.ptp(numbered, axis=-1).max() > 0.3, "boxes are drawn in colour"
    assert overview.picture(photo, faces).shape[1] >= 720
    assert overview.picture(photo, []).shape[0] > numbered.shape[0]


def test_faces_prints_the_numbers_and_writes_the_picture(path, tmp_path, quick, capsys):
    assert command("faces", path) == 0 and command("faces", path, "--box", "90,95,120,127") == 0
    out = capsys.readouterr().out
    assert "20,20,80,90" in out and "90,95,120,127" in out and "group_faces_2.png" in out
    assert image.read(path.with_name("group_faces.png")).shape == (315 + 16 + 28 * 4, 720, 3)
    page = tmp_path / "<b> & o.html"
    assert command("faces", path, "-o", page) == 0
    text = page.read_text()
    assert ">20,20,80,90</td>" in text and "data:image/" in text and "http" not in text
    assert command("faces", path, "-o", page) == 1 and command("faces", path, "-o", path) == 1
    assert command("faces", path, "-o", path, "--overwrite") == 1 and striped(path) == []
    assert command("faces", tmp_path / "none.jpg") == 1
    assert command("faces", path, "-o", tmp_path / "x.txt") == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 5


def test_the_numbers_of_the_overview_are_those_of_the_restoration(path, tmp_path, quick, capsys):
    quick[0] = sees(*BOXES[::-1])
    command("faces", path)
    boxes = [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:4]]
    for number, box in enumerate(boxes, 1):
        out = tmp_path / f"{number}.png"
        assert command("restore", path, "-o", out, "--faces-only", number) == 0
        assert striped(out, [tuple(map(int, box.split(",")))]) == [1]


# ---------------------------------------------------------------- no face, soft, blurred


@pytest.mark.parametrize(
    "detector, there, words",
    [
        ("auto", False, "--detector yunet after `mtrestore models fetch yunet`"),
        ("auto", True, "--detector mtcnn"),
        ("mtcnn", True, "--detector yunet"),
        ("yunet", True, "--detector mtcnn"),
        (len, False, "name it with --box x0,y0,x1,y1 (in Python boxes=)"),
    ],
)
def test_where_no_face_is_the_next_step_is_said(tmp_path, monkeypatch, detector, there, words):
    file = tmp_path / "yunet.onnx"
    monkeypatch.setenv("MTRESTORE_YUNET", str(file))
    if there:
        file.touch()
    assert choice.no_face(detector).startswith("no face was found: if there is one, name it")
    assert choice.no_face(detector).endswith(words)


def test_a_result_without_faces_says_so_where_one_was_looked_for(photo, path, quick, capsys):
    quick[0] = sees()
    assert "no face was found" in mt.restore(photo, **QUICK, detector=sees()).notes[-1]
    for options in ({"faces": False}, {"more_faces": BOXES[:1]}, {"boxes": []}):
        assert not mt.restore(photo, **QUICK, detector=sees(), **options).notes
    assert command("restore", path) == 0
    assert "0 faces" in (out := capsys.readouterr().out) and "name it with --box" in out
    assert command("restore", path, "--no-faces") == 0
    assert "no face was found" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "sigma, words", [(0, []), (0.6, []), (2, ["soft"]), (3.6, ["blurred"]), (9, ["blurred"])]
)
def test_soft_and_blurred_are_told_apart(astronaut, hopper, sigma, words):
    for photo in (astronaut, hopper):
        worn = cv2.GaussianBlur(photo, (0, 0), sigma) if sigma else photo
        for dtype in (np.uint8, np.uint16, np.float32):
            assert flags(image.as_samples(worn, dtype), ["restored"], True) == words


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 900, 3), (300, 300, 3)])
def test_a_flat_picture_is_neither(shape):
    flat = np.full(shape, 0.4, np.float32)
    assert flags(flat, [], True) == ["no face"] and flags(flat, [], False) == []
    assert flags(flat, ["too_small"], True) == []


def test_flags_and_boxes_reach_journal_report_and_gallery(path, tmp_path, quick):
    quick[0] = sees()
    out = tmp_path / "out"
    for _ in range(2):
        assert command("restore", path.parent, "-o", out, "--jobs", 1, "--resume") == 0
        page = (out / "index.html").read_text()
        assert '<span class="flag">no face</span>' in page
    row = json.loads((out / ".mtrestore" / "report.json").read_text())["files"][0]
    assert row["status"] == "skipped" and row["flags"] == ["no face"] and row["boxes"] == []
    quick[0] = sees(*BOXES)
    command("restore", path.parent, "-o", out, "--jobs", 1, "--overwrite")
    row = next(csv.DictReader((out / ".mtrestore" / "report.csv").open()))
    assert row["boxes"] == "20,20,80,90; 120,30,170,90; 200,40,240,80" and row["flags"] == ""
    line = {"name": "a", "status": "restored", "output_sha256": "1", "flags": [1]}
    assert known(json.dumps(line).encode()) is None


# ---------------------------------------------------------------- presets, models, widgets


def test_presets_are_named_once_and_change_what_they_say():
    for name, values in LIKE.items():
        options = Options.of({"like": name})
        assert {k: getattr(options, k) for k in values} == values
    assert LIKE["light"]["face_strength"] < 1 and LIKE["light"]["face_fidelity"] == 1
    assert Options.of({"like": "normal"}) == Options()
    assert Options.of({"like": "light", "face_fidelity": None}).face_fidelity is None


def test_light_keeps_more_of_the_photo(photo):
    worn = np.clip(photo + np.random.default_rng(0).normal(0, 0.1, photo.shape), 0, 1)
    worn = worn.astype(np.float32)
    own = {"detector": sees(BOXES[0]), "restorer": lambda x: x * 0 + 0.9, "device": "cpu"}
    own |= {"upsampler": lambda low, target, large: target, "sharpener": identity}
    own |= {"landmarks": False, "face": lambda x: 1 - x}
    light, normal, mine = (
        mt.restore(worn, **own, **more).image
        for more in (
            {"like": "light", "face_fidelity": 0},
            {},
            {"like": "light", "photo_strength": 1},
        )
    )
    corner = (slice(100, 128), slice(100, 118))
    assert np.allclose(normal[corner], 0.9, atol=0.01)
    assert np.allclose(light[corner], (worn[corner] + 0.9) / 2, atol=0.01)
    assert np.allclose(mine[corner], 0.9, atol=0.01), "what is said wins"


def test_models_say_what_for_how_large_by_whom_and_under_which_licence():
    lines = weights.about()
    for name in (*weights.shipped(), "mtcnn", "yunet"):
        at = next(i for i, line in enumerate(lines) if line.split()[0] == name)
        assert len(lines[at].split()) > 3, f"{name} says what it is for"
        licence = "Apache-2.0" if name in ("mtcnn", "yunet") else "CC BY-NC-SA 4.0"
        assert licence in lines[at + 1] and ("MiB" in lines[at + 1] or "fetch" in lines[at + 1])
        assert "by mtrestore" in lines[at + 1] or "et al." in lines[at + 1]
    assert set(weights.ABOUT) == set(weights.shipped())


@pytest.mark.parametrize("name", ["scale", "working_size", "face_strength"])
def test_the_workbench_begins_where_the_options_do(name):
    import inspect

    from mtrestore.lab import workbench

    default = getattr(Options, name)
    assert inspect.signature(workbench.workbench).parameters[name].default == default
    slider = workbench.slider(name, default)
    low, high, step = facts(name)["slider"]
    assert (slider.value, slider.min, slider.max, slider.step) == (default, low, high, step)
    assert facts(name)["low"] <= low < high <= facts(name)["high"]
