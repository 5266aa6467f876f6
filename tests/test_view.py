"""What the views promise: pages that need nothing from outside, markup that survives without
scripts, figures with one panel each.
"""

import base64
import io
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from mtrestore import view
from mtrestore.image import ImageError
from mtrestore.io.files import page


class Page(HTMLParser):
    """Tags in order with their attributes, and the text of those elements that are neither script
    nor style.
    """

    def __init__(self, markup: str):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "elements must close in the order in which they were opened"

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def decode(uri: str) -> np.ndarray:
    head, data = uri.split(",", 1)
    assert re.fullmatch(r"data:image/(png|jpeg);base64", head)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))


def to8(photo):
    return (photo * 255 + 0.5).astype(np.uint8)  # halves go up, as in a file that is written


def stripped(markup: str) -> str:
    """What a notebook that is not trusted leaves: no script, no style, neither as element nor as
    attribute.
    """
    return re.sub(
        r' style="[^"]*"', "", re.sub(r"<(script|style)\b.*?</\1>", "", markup, flags=re.DOTALL)
    )


@pytest.fixture
def pair(face_photo):
    return np.clip(face_photo * 0.5, 0, 1), face_photo


def test_pictures_are_inside_and_lossless(pair):
    before, after = (decode(img["src"]) for img in Page(view.compare(*pair).html).all("img"))
    np.testing.assert_array_equal(before, to8(pair[0]))
    np.testing.assert_array_equal(after, to8(pair[1]))


def test_nothing_is_asked_of_the_network(pair, tmp_path):
    page = view.compare(*pair, title="t").save(tmp_path / "a.html").read_text("utf-8")
    code = re.sub(r'src="data:[^"]*"', "", page)
    assert "//" not in code.replace("</", "") and "@import" not in code and "url(" not in code
    assert all(
        attrs.get("src", "data:").startswith("data:") and "href" not in attrs
        for _, attrs in Page(page).tags
    )


def test_a_large_picture_travels_as_jpeg_close_to_itself(astronaut):
    photo = np.concatenate([astronaut, astronaut[:, ::-1], astronaut])
    uri = view.data_uri(photo)
    assert (
        uri.startswith("data:image/jpeg") and photo.shape[0] * photo.shape[1] > view.LOSSLESS_PIXELS
    )
    assert np.sqrt(np.mean((decode(uri) / 255.0 - photo) ** 2)) < 0.02  # 34 dB
    assert view.data_uri(astronaut).startswith("data:image/png")


def test_values_outside_the_range_are_clipped_before_they_are_stored():
    photo = np.array([[[-0.5, 0.5, 1.5]]], np.float32)
    np.testing.assert_array_equal(decode(view.data_uri(photo)), [[[0, 128, 255]]])


def test_words_are_escaped_everywhere(pair, tmp_path):
    evil = "</title><script>alert(1)</script>\"'&"
    comparison = view.compare(*pair, labels=(evil, "b"), title=evil)
    page = Page(comparison.save(tmp_path / "a.html").read_text("utf-8"))
    assert len(page.all("script")) == 1 and page.text.count(evil) == 3  # title, heading, label
    assert page.all("img")[0]["alt"] == evil and not page.open


def test_without_script_and_style_two_pictures_stand_side_by_side(pair):
    page = Page(stripped(view.compare(*pair, labels=("old", "new"), title="Ada").html))
    assert not page.all("script") and not page.all("style") and not page.all("input")
    assert [tag for tag, _ in page.tags if tag in ("tr", "img")] == ["tr", "tr", "img", "img"], (
        "both pictures in one row of the table"
    )
    assert [img["alt"] for img in page.all("img")] == ["old", "new"]
    assert all(word in page.text for word in ("Ada", "old", "new", "86×118"))


def test_pictures_of_two_sizes_are_shown_at_one_size(face_photo):
    page = Page(view.compare(face_photo[::2, ::2], face_photo).html)
    small, large = page.all("img")
    assert (small["width"], small["height"]) == (large["width"], large["height"]) == ("86", "118")
    assert decode(small["src"]).shape[:2] == (59, 43)
    box = page.all("div")[0]
    assert (box["data-width"], box["data-height"]) == ("86", "118")


@pytest.mark.parametrize(
    "shape, width",
    [((1, 1), 320), ((512, 512), 512), ((100, 4000), 960), ((2000, 1000), 400), ((4000, 3), 120)],
)
def test_default_width_fits_a_screen(shape, width):
    photo = np.zeros((*shape, 3), np.float32)
    assert view.compare(photo, photo).width == width
    assert view.compare(photo, photo, width=77).width == 77


def test_a_picture_too_large_for_the_page_is_made_smaller_and_says_so():
    photo = np.zeros((30, 100, 3), np.float32)
    page = Page(view.compare(photo[:10, :20], photo, max_side=50).html)
    assert [decode(img["src"]).shape[:2] for img in page.all("img")] == [(10, 20), (15, 50)]
    assert "100×30, shown at 50×15" in page.text and "20×10, shown" not in page.text


def test_sliders_cannot_interfere(pair):
    """No ids that could collide, no global names; each run of the script takes only the boxes that
    are not live yet.
    """
    comparison = view.compare(*pair)
    page = Page(comparison.html + comparison.html + view.compare(*pair[::-1]).html)
    assert not any("id" in attrs for _, attrs in page.tags) and len(page.all("script")) == 3
    assert (
        "getElementById" not in view.SCRIPT
        and ":not(.mtr-live)" in view.SCRIPT
        and 'classList.add("mtr-live")' in view.SCRIPT
    )
    for rule in re.findall(r"^([^{\n ][^{\n]*)\{", view.STYLE, re.MULTILINE):
        assert all(selector.startswith(".mtr-") for selector in rule.split(",")), (
            f"{rule} would reach the rest of the page"
        )


def test_slider_can_be_named_and_moved_without_a_mouse():
    assert (
        'type: "range"' in view.SCRIPT
        and '"aria-label"' in view.SCRIPT
        and '"aria-valuetext"' in view.SCRIPT
    )
    assert ":focus-visible" in view.STYLE
    assert '[range, button]) control.setAttribute("data-lm-suppress-shortcuts"' in view.SCRIPT, (
        "JupyterLab would take the arrow keys"
    )


def test_the_same_pair_gives_the_same_page(pair):
    assert view.compare(*pair).html == view.compare(*pair).html


def test_a_notebook_shows_the_fragment_and_a_repr_stays_short(pair):
    comparison = view.compare(*pair)
    assert comparison._repr_html_() == comparison.html and comparison.html.startswith("<div")
    assert len(repr(comparison)) < 200


def test_save_writes_a_whole_page_or_nothing(pair, tmp_path):
    comparison = view.compare(*pair)
    path = tmp_path / "before and after.html"
    assert comparison.save(path) == path and comparison.save(path) == path
    page = path.read_text("utf-8")
    assert (
        page.startswith("<!doctype html>")
        and page.rstrip().endswith("</html>")
        and comparison.html in page
    )
    assert not Page(page).open and [p.name for p in tmp_path.iterdir()] == [path.name], (
        "no temporary file stays behind"
    )
    with pytest.raises((ImageError, OSError)):
        comparison.save(tmp_path / "nowhere" / "a.html")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_compare_takes_what_read_takes(face_photo):
    grey = to8(face_photo)[..., 0]
    images = Page(view.compare(Image.fromarray(grey), grey).html).all("img")
    assert images[0]["src"] == images[1]["src"]
    with pytest.raises(ValueError):
        view.compare(grey, grey, labels=("only one",))


# Figures


def test_show_draws_each_picture_once_with_name_and_size(face_photo):
    plot = view.show(
        {"face": face_photo, "mask": face_photo[..., 0], "wide": face_photo[:10]}, columns=2
    )
    assert [axes.get_title() for axes in plot.axes] == [
        "face  86×118",
        "mask  86×118",
        "wide  86×10",
    ]
    assert all(
        axes.images[0].get_interpolation() == "nearest" and axes.get_aspect() == 1
        for axes in plot.axes
    )
    np.testing.assert_array_equal(plot.axes[0].images[0].get_array(), face_photo)


@pytest.mark.parametrize(
    "count, rows, columns", [(1, 1, 1), (4, 1, 4), (5, 2, 3), (8, 2, 4), (9, 3, 3)]
)
def test_show_fills_even_rows(face_photo, count, rows, columns):
    plot = view.show([face_photo[::8, ::8]] * count)
    assert len(plot.axes) == count
    assert plot.axes[0].get_gridspec().get_geometry() == (rows, columns)


def test_figures_do_not_alias_large_photos(astronaut):
    assert view.show([astronaut], size=2).axes[0].images[0].get_interpolation() != "nearest"


def test_figures_show_themselves_and_pyplot_holds_none(face_photo):
    open_before = plt.get_fignums()
    plot = view.show([face_photo], size=1)
    assert plt.get_fignums() == open_before
    assert Image.open(io.BytesIO(plot._repr_png_())).size[0] > 50


def test_steps_keep_their_order_and_number_lists(face_photo):
    steps = {
        "photo": face_photo,
        "crops": [face_photo, face_photo[:9]],
        "map": face_photo[..., 0],
        "out": face_photo,
    }
    titles = [
        axes.get_title().split("  ")[0] for axes in view.steps(SimpleNamespace(steps=steps)).axes
    ]
    assert titles == ["photo", "crops 1", "crops 2", "map", "out"]


def test_faces_draws_boxes_landmarks_and_crops_where_they_are(astronaut):
    points = np.array([[205.0, 105], [245, 105], [225, 125], [208, 150], [242, 150]])
    face = SimpleNamespace(box=(181, 60, 267, 178), landmarks=points, score=0.987, status="found")
    crop = SimpleNamespace(
        size=64, matrix=np.array([[0.0, -2, 300], [2, 0, 40]])
    )  # a quarter turn, twice as large
    axes = view.faces(astronaut, [face], [crop]).axes[0]
    box, dots, square, top = (line.get_xydata() for line in axes.lines)
    assert (box.min(0).tolist(), box.max(0).tolist()) == ([181, 60], [267, 178])
    np.testing.assert_array_equal(dots, points)
    np.testing.assert_allclose(square[:4], [[301, 39], [301, 167], [173, 167], [173, 39]])
    np.testing.assert_allclose(top, square[:2])
    assert axes.texts[0].get_text() == "1: 0.99 found"


def test_faces_without_any_face_is_the_photo(face_photo):
    axes = view.faces(face_photo, []).axes[0]
    assert not axes.lines and len(axes.images) == 1


def test_losses_have_a_panel_each_and_a_mean_that_is_the_mean(rng):
    records = [
        SimpleNamespace(
            step=i, losses={"pixel": rng.random(), **({"r1": 2.0} if i % 4 == 0 else {})}
        )
        for i in range(100)
    ]
    pixel, r1 = view.losses(iter(records)).axes
    assert (pixel.get_title(), r1.get_title()) == ("pixel", "r1")
    values, mean = (line.get_xydata() for line in pixel.lines)
    np.testing.assert_allclose(values[:, 1], [r.losses["pixel"] for r in records])
    np.testing.assert_allclose(mean[10], [12, values[10:15, 1].mean()])  # a twentieth of 100 is 5
    np.testing.assert_array_equal(r1.lines[0].get_xdata(), np.arange(0, 100, 4))
    np.testing.assert_allclose(r1.lines[1].get_ydata(), 2.0)


@pytest.mark.parametrize(
    "empty",
    [
        lambda: view.show({}),
        lambda: view.losses([]),
        lambda: view.grid([]),
    ],
)
def test_nothing_to_draw_is_said(empty):
    with pytest.raises(ValueError, match="needs at least one"):
        empty()


def test_grid_puts_each_picture_in_its_place(rng):
    pictures = rng.uniform(-0.2, 1.2, (5, 4, 6, 3)).astype(np.float32)
    sheet = view.grid(pictures, columns=3, gap=1)
    assert sheet.dtype == np.float32 and sheet.shape == (2 * 4 + 1, 3 * 6 + 2, 3)
    for i, picture in enumerate(pictures):
        y, x = 5 * (i // 3), 7 * (i % 3)
        np.testing.assert_array_equal(sheet[y : y + 4, x : x + 6], picture.clip(0, 1))
    np.testing.assert_array_equal(sheet[4], 1)
    np.testing.assert_array_equal(sheet[5:, 14:], 1)  # the sixth place stays empty


def test_a_table_shows_every_number_and_escapes_every_word():
    table = view.Table(
        {"<b>": {"dB": 28.123456, "n": 3}, "plain": {"n": 12345, "word": "a & b"}}, "method"
    )
    page = Page(table._repr_html_())
    assert not page.open and not page.all("b") and len(page.all("tr")) == 3
    assert page.text == "methoddBnword<b>28.123plain12,345a & b"
    assert [line.split("  ")[0].strip() for line in repr(table).splitlines()] == [
        "method",
        "<b>",
        "plain",
    ]
    assert "28.12" in repr(table) and "a & b" in repr(table)


def test_a_columns_numbers_have_the_same_places_and_words_begin_at_the_left():
    rows = {
        "worn": {"psnr": 26.306, "id": 4.9e-5, "n": 3, "says": "no"},
        "clean": {"psnr": 27.0, "id": 0.0039, "n": 12345, "says": "better"},
    }
    assert repr(view.Table(rows)).splitlines() == [
        "       PSNR, dB       id       n  says",
        "worn      26.31  4.9e-05       3  no",
        "clean     27.00   0.0039  12,345  better",
    ]
    assert view.Table(rows)._repr_html_().count("text-align:right") == 3 * 3
    table = view.Table({"a": {"x": 0.553, "y": float("nan")}, "b": {"x": -0.04957, "y": 289.4}})
    assert [line[1:] for line in table.cells()[1:]] == [["0.5530", "nan"], ["-0.0496", "289.4"]]


def test_the_numbers_of_a_run_are_folded_away_to_four_digits():
    page = view.numbers({"psnr_in": 26.31175, "faces": 1.0})._repr_html_()
    assert page.startswith("<details><summary>2 numbers, as metrics.json has them</summary><table>")
    assert "26.31<" in page and "26.311" not in page and ">1<" in page


def test_a_page_replaces_only_a_page_of_its_kind(pair, tmp_path):
    comparison, path = view.compare(*pair), tmp_path / "notes.html"
    path.write_text("NOTES")
    with pytest.raises(ImageError, match="exists already"):
        comparison.save(path)
    assert path.read_text() == "NOTES"
    assert comparison.save(path, overwrite=True).read_text() == comparison.save(path).read_text()


def test_a_page_says_which_word_it_lacks_and_takes_words_as_they_are():
    with pytest.raises(KeyError, match="title"):
        page("page.html", mark="", width=1, body="")
    text = page("page.html", mark="", width=480, title="$width", body="<p>${mark} {x}</p>")
    assert "<title>$width</title>" in text and "max-width:480px" in text
    assert "<p>${mark} {x}</p>" in text
