"""The gallery of a folder run in a real browser, from disk and without a network.

A click, or a key, lays before and after over each other.
"""

import os
import shutil

import numpy as np
import pytest
from faults import IDENTITY, Here

from mtrestore import image
from mtrestore.folder import one_file, pool, run
from mtrestore.folder.names import plan

api = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright (pip install playwright) to drive a browser"
)
pytestmark = pytest.mark.slow
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
SHAPES = {"a.jpg": (300, 400), "b & <i>.png": (500, 200), "sub/c'd #1.jpg": (24, 32)}


def darker(x):
    return x * 0.25


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The gallery of three light pictures that came out dark, and of two files that failed."""
    folder = tmp_path_factory.mktemp("an album")
    for name, shape in SHAPES.items():
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        image.write(folder / "in" / name, np.full((*shape, 3), 0.8, np.float32))
    (folder / "in" / "text.jpg").write_text("no picture")
    (folder / "in" / "nothing.png").touch()
    options = IDENTITY | {"sharpener": darker}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "Local", Here)
        jobs = plan([str(folder / "in")], str(folder / "out"))
        run.folder(jobs, one_file.Settings(tuple(options.items()), made_by="darker"))
    return folder / "out" / "index.html"


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as p:
        if not CHROMIUM and not os.path.exists(p.chromium.executable_path):
            pytest.skip("needs Chromium: Debian's package chromium, or playwright install chromium")
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser, index, **options):
    """The page, and what went wrong or was asked of anything but the disk."""
    context = browser.new_context(offline=True, viewport={"width": 1300, "height": 900}, **options)
    page, troubles = context.new_page(), []
    page.on("pageerror", lambda e: troubles.append(str(e)))
    page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
    page.on("request", lambda r: troubles.append(r.url) if not r.url.startswith("file:") else None)
    page.goto(index.as_uri(), wait_until="load")
    return page, troubles


def shades(page) -> tuple[float, float]:
    """The mean grey of a strip at the left and at the right edge of the dialog's pictures."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('.stage img')]"
        ".every(e => e.complete && e.naturalWidth)"
        " && document.querySelector('.stage').clientHeight > 50"
    )
    box = page.locator(".stage").bounding_box()
    grey = image.read(page_picture(page, box)).mean(-1)
    middle = grey[len(grey) // 2 :][:40]
    return float(middle[:, 4:24].mean()), float(middle[:, -24:-4].mean())


def page_picture(page, box):
    from io import BytesIO

    from PIL import Image

    return Image.open(BytesIO(page.screenshot(clip=box)))


def test_a_click_shows_before_and_after(browser, index):
    page, troubles = opened(browser, index)
    assert page.locator("figure").count() == 3 and not page.locator("dialog").is_visible()
    page.locator("figure img").first.click()
    assert page.locator("dialog").is_visible()
    before, after = shades(page)
    assert before == pytest.approx(0.8, abs=0.03) and after == pytest.approx(0.2, abs=0.03)
    box = page.locator(".stage").bounding_box()
    assert box["width"] > 600 and box["width"] / box["height"] == pytest.approx(400 / 300, rel=0.01)
    page.mouse.click(box["x"] + 0.99 * box["width"], box["y"] + box["height"] / 2)
    assert shades(page)[1] == pytest.approx(0.8, abs=0.03), "all of it is before"
    page.get_by_role("button", name="close").click()
    assert not page.locator("dialog").is_visible() and not troubles


def test_the_keyboard_does_all_of_it(browser, index):
    page, troubles = opened(browser, index)
    page.locator("a.both").first.focus()
    page.keyboard.press("Enter")
    shown = page.locator("dialog span")
    assert page.locator("dialog").is_visible() and shown.inner_text().startswith("a.jpg")
    where = "() => document.querySelector('.stage').style.getPropertyValue('--x')"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(where) == "51%"
    page.keyboard.press("End")
    assert page.evaluate(where) == "100%" and shades(page)[1] == pytest.approx(0.8, abs=0.03)
    page.keyboard.press("PageDown")
    assert shown.inner_text().startswith("b & <i>.png") and page.evaluate(where) == "50%"
    assert shades(page)[1] == pytest.approx(0.2, abs=0.03)
    page.keyboard.press("PageDown")
    page.keyboard.press("PageDown")
    page.keyboard.press("PageUp")
    assert shown.inner_text().startswith("sub/c'd #1.jpg") and shades(page)[0] > 0.7
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert page.evaluate(
        "() => document.activeElement.closest('figure').innerText.includes('c\\'d')"
    )
    assert not troubles


def test_without_scripts_a_click_opens_both_side_by_side(browser, index):
    page, troubles = opened(browser, index, java_script_enabled=False)
    page.locator("a.both").nth(0).click()
    page.wait_for_url("**/thumbs/*.jpg")
    both = image.read(page_picture(page, page.locator("img").bounding_box())).mean(-1)
    assert both[:, :100].mean() == pytest.approx(0.8, abs=0.03)
    assert both[:, -100:].mean() == pytest.approx(0.2, abs=0.03)
    assert not troubles


@pytest.mark.parametrize("width", [1300, 390])
def test_failures_stand_below_and_nothing_hangs_over(browser, index, width):
    page, troubles = opened(browser, index)
    page.set_viewport_size({"width": width, "height": 800})
    pictures = [box["y"] + box["height"] for box in map(box_of, page.locator("figure").all())]
    assert box_of(page.locator("#failed"))["y"] > max(pictures)
    assert page.locator("table tr").count() == 3 and "E_EMPTY" in page.locator("table").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not troubles


def box_of(element):
    return element.bounding_box()
