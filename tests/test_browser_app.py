"""The app in a real Chromium: a photo is dropped, the slider dragged, a box drawn, the result
saved; all of it again by keyboard, and at a phone's width.
"""

import io
import os
import shutil

import numpy as np
import pytest
from app_server import App
from PIL import Image
from test_app import png

import mtrestore as mt
from mtrestore import image

api = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright (pip install playwright) to drive a browser"
)
pytestmark = pytest.mark.slow
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
DROP = """async ([name, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const event = new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: data});
    document.body.dispatchEvent(event);
    if (kind === "dragenter") window.invited = !document.getElementById("drop").hidden;
  }
}"""


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as p:
        if not CHROMIUM and not os.path.exists(p.chromium.executable_path):
            pytest.skip("needs Chromium: Debian's package chromium, or playwright install chromium")
        browser = p.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield browser
        browser.close()


@pytest.fixture
def app(tmp_path):
    app = App(tmp_path / "tmp", "--out", str(tmp_path / "saved"), "--device", "cpu")
    app.saved = tmp_path / "saved"
    yield app
    assert app.end() == 130 and not list(app.folder.iterdir())


@pytest.fixture
def page(browser, app):
    """The app's page; at the end nothing may have gone wrong or been asked of anybody else."""
    context = browser.new_context(viewport={"width": 1360, "height": 900}, accept_downloads=True)
    page, troubles = context.new_page(), []
    page.set_default_timeout(300_000)
    page.on("pageerror", lambda e: troubles.append(str(e)))
    page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
    ours = (app.address, f"blob:http://127.0.0.1:{app.port}")
    page.on("request", lambda r: None if r.url.startswith(ours) else troubles.append(r.url))
    # File choosers are caught from the start on: when first asked for, some open unseen.
    page.on("filechooser", lambda chooser: None)
    page.goto(app.address)
    page.locator("#presets input").first.wait_for(state="attached")
    yield page
    context.close()
    assert not troubles


@pytest.fixture
def portrait(astronaut) -> bytes:
    return png(image.resize(astronaut, (256, 256)))


def settled(page, version=1):
    """Waits until the photo that is shown has so many results, and nothing is under way."""
    page.wait_for_function(
        "v => { const img = document.querySelectorAll('#picture .mtr-canvas img')[1];"
        " return img?.complete && img.naturalWidth && +img.src.split('?')[1] >= v"
        " && document.querySelector('#state').className === 'done'; }",
        arg=version,
    )


def own(data: bytes, folder, **options) -> np.ndarray:
    path = folder / "photo.png"
    path.write_bytes(data)
    return mt.Restorer(device="cpu", keep_steps=False, **options)(path).samples


def downloaded(page, press) -> tuple[str, np.ndarray]:
    with page.expect_download() as download:
        press()
    with Image.open(download.value.path()) as picture:
        return download.value.suggested_filename, np.asarray(picture)


def test_drop_drag_draw_and_save(page, app, portrait, tmp_path):
    assert page.locator("#welcome").is_visible() and not page.locator("main").is_visible()
    page.evaluate(DROP, ["Oma & <b>Opa</b>.png", list(portrait)])
    assert page.evaluate("invited") and page.locator("#drop").is_hidden()
    settled(page)
    assert page.locator("#title").inner_text() == "Oma & <b>Opa</b>.png"
    assert "one face, 256 × 256 pixels" in page.locator("#state").inner_text()
    assert page.locator("#faces li").count() == 1 and page.locator(".badge").inner_text() == "1"

    canvas = page.locator("#picture .mtr-canvas")
    place = "e => parseFloat(e.style.getPropertyValue('--mtr-x'))"
    box = canvas.bounding_box()
    assert canvas.evaluate(place) == 50 and box["height"] > 500
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 70, steps=4)
    page.mouse.up()
    assert abs(canvas.evaluate(place) - 20) < 1
    name, result = downloaded(page, page.locator("#download").click)
    assert name == "b__restored.png", "what follows the last slash"
    assert np.array_equal(result, own(portrait, tmp_path))

    page.locator("#faces input[type=checkbox]").uncheck()
    settled(page, 2)
    assert abs(canvas.evaluate(place) - 20) < 1, "the slider stays where it was"
    assert "left" in page.locator("#faces small").inner_text()
    off = downloaded(page, page.locator("#download").click)[1]
    assert np.array_equal(off, own(portrait, tmp_path, skip_faces=[1]))
    page.locator("#faces input[type=checkbox]").check()
    settled(page, 3)

    page.locator("#view-faces").click()
    picture = page.locator("#boxes svg")
    box = picture.bounding_box()
    k = min(box["width"], box["height"]) / 256
    x, y = box["x"] + 150 * k, box["y"] + 150 * k
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60 * k, y + 65 * k, steps=4)
    page.mouse.up()
    page.locator("#faces li").nth(1).wait_for()
    page.locator("#view-compare").click()
    settled(page, 4)
    drawn = app.photo(1)["faces"][1]
    assert drawn["hand"] and drawn["box"] == pytest.approx([150, 150, 210, 215], abs=2)
    assert page.locator(".badge").count() == 2
    name, result = downloaded(page, page.locator("#download").click)
    expected = own(portrait, tmp_path, more_faces=[drawn["box"]])
    assert np.array_equal(result, expected)

    page.locator("#save").click()
    page.locator("#state").filter(has_text="saved as").wait_for()
    (saved,) = app.saved.iterdir()
    assert np.array_equal(image.load(saved).samples, expected)
    assert page.locator("#state").inner_text().endswith(saved.name)


def test_the_keyboard_does_all_of_it(page, app, portrait, tmp_path):
    def to(selector, most=40):
        """Tab until it has the focus."""
        for _ in range(most):
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"{selector} is not reached")

    path = tmp_path / "portrait.png"
    path.write_bytes(portrait)
    to("#choose")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(path)
    settled(page)
    to("#picture input[type=range]")
    page.keyboard.press("ArrowLeft")
    place = "e => e.style.getPropertyValue('--mtr-x')"
    assert page.locator("#picture .mtr-canvas").evaluate(place) == "49%"
    to("#presets input")
    page.keyboard.press("ArrowLeft")
    settled(page, 2)
    asked = app.photo(1)["asked"]
    assert asked["like"] == "light" and asked["photo_strength"] == 0.5
    to("#faces input[type=checkbox]")
    page.keyboard.press("Space")
    settled(page, 3)
    assert app.photo(1)["faces"][0]["status"] == "left out"
    page.keyboard.press("Space")
    settled(page, 4)
    to("#faces input[type=range]")
    page.keyboard.press("Home")
    settled(page, 5)
    assert app.photo(1)["faces"][0]["strength"] == 0
    to("#view-faces", 60)
    page.keyboard.press("Enter")
    to("#boxes svg")
    page.keyboard.press("n")
    page.wait_for_function("() => document.querySelectorAll('#faces li').length === 2")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    for _ in range(200):
        faces = app.photo(1)["faces"]
        if app.photo(1)["state"] == "done" and len(faces) == 2 and faces[1]["box"][0] > 91:
            break
        page.wait_for_timeout(100)
    assert faces[1]["box"] == pytest.approx([92.2, 76.8, 169, 181.8], abs=0.2)
    assert faces[1]["hand"] and faces[1]["status"] == "restored"
    assert page.evaluate("document.activeElement.matches('#boxes rect')"), "the focus stays"
    page.keyboard.press("Delete")
    page.wait_for_function("() => document.querySelectorAll('#faces li').length === 1")
    to("#download", 60)
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "portrait_restored.png"


def test_a_batch_shows_its_progress_and_one_line_for_what_failed(page, portrait):
    files = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": portrait} for n in "abc"]
    files.insert(1, {"name": "bad.png", "mimeType": "image/png", "buffer": portrait[:80]})
    page.locator("#files").set_input_files(files)
    page.locator("#progress").wait_for()
    page.wait_for_function("() => document.querySelectorAll('#cards .done').length === 3")
    page.locator("#batch").wait_for(state="hidden")
    failed = page.locator("#cards .failed")
    assert failed.count() == 1 and "truncated" in failed.inner_text()
    assert "/" not in failed.inner_text() and page.locator("#cards li").count() == 4
    page.get_by_role("radio", name="Light").check()
    page.locator("#all").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#cards img')].filter(e => e.src.endsWith('after?2'))"
        ".length >= 2 && document.querySelector('#batch').hidden"
    )
    with page.expect_download() as download:
        page.locator("#zip").click()
    import zipfile

    with zipfile.ZipFile(download.value.path()) as pack:
        assert pack.namelist() == ["a_restored.png", "b_restored.png", "c_restored.png"]
        sizes = [Image.open(io.BytesIO(pack.read(name))).size for name in pack.namelist()]
        assert sizes == [(256, 256)] * 3


def test_a_folder_is_taken_with_what_is_below_it(page, tmp_path, portrait):
    album = tmp_path / "album"
    (album / "sub").mkdir(parents=True)
    (album / "sub" / "a.png").write_bytes(portrait)
    (album / "notes.txt").write_text("words")
    page.locator("#files-of").set_input_files(album)
    settled(page)
    assert page.locator("#title").inner_text() == "album/sub/a.png"
    assert page.locator("#message").inner_text() == "1 other file is no photo"


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_hangs_over_on_a_narrow_screen(page, portrait, width):
    page.set_viewport_size({"width": width, "height": 740})
    narrow = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(narrow)
    files = [("a" * 60 + ".png", portrait), ("b.png", portrait), ("bad.png", b"no picture")]
    page.locator("#files").set_input_files(
        [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files]
    )
    page.wait_for_function("() => document.querySelectorAll('#cards .done').length === 2")
    settled(page)
    page.locator("#more summary").click()
    assert page.evaluate(narrow)
    for name in ("#view-faces", "#view-compare"):
        page.locator(name).click()
        assert page.evaluate(narrow)
    wide = page.locator("#picture .mtr-canvas").bounding_box()["width"]
    assert wide > min(0.85 * width, 0.75 * 740), "the picture is as large as the screen lets it be"
    small = "() => [...document.querySelectorAll('button, .button, .row label')].filter("
    small += "e => e.offsetParent && !e.closest('.mtr-bar, .who') && e.offsetHeight < 40).length"
    assert page.evaluate(small) == 0, "a finger finds every button"


def test_when_the_app_has_ended_the_page_says_so(browser, tmp_path):
    app = App(tmp_path / "tmp")
    page = browser.new_page()
    page.goto(app.address)
    page.locator("#presets input").first.wait_for(state="attached")
    app.end()
    page.get_by_role("button", name="Try a sample").click()
    page.get_by_text("mtrestore app does not answer; start it again").wait_for()
    page.close()
