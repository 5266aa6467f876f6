"""A report in a real browser, from disk and without a network: the sliders move, the figures are
there, and without scripts both pictures are.
"""

import os
import shutil

import pytest
from test_report import made_up_sweep

from mtrestore.lab import report

api = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright (pip install playwright) to drive a browser"
)
pytestmark = pytest.mark.slow
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, _astronaut):
    folder = tmp_path_factory.mktemp("a report")
    about = {
        "title": "How to join",
        "question": "What is a skip worth?",
        "arm": "join",
        "baseline": "concat",
        "by": ["severity"],
    }
    return report.write(
        made_up_sweep(folder / "runs", _astronaut[60:146, 181:267], about), folder / "it's.html"
    )


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as p:
        if not CHROMIUM and not os.path.exists(p.chromium.executable_path):
            pytest.skip("needs Chromium: Debian's package chromium, or playwright install chromium")
        browser = p.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )  # the sandbox does not start as root; the page is our own
        yield browser
        browser.close()


def opened(browser, path, **options):
    """The page, and what went wrong or was asked of the network so far."""
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 900}, **options)
    page, troubles = context.new_page(), []
    page.on(
        "console", lambda m: troubles.append(m.text) if m.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda e: troubles.append(str(e)))
    page.on(
        "request",
        lambda r: troubles.append(r.url) if not r.url.startswith(("file:", "data:")) else None,
    )
    page.goto(path.as_uri(), wait_until="load")
    return page, troubles


def drawn(picture):
    return picture.evaluate(
        "e => e.complete && e.naturalWidth > 0 && e.getBoundingClientRect().width > 20 && "
        "e.getBoundingClientRect().height > 20"
    )


def test_a_slider_is_dragged_and_moves(browser, page_file):
    page, troubles = opened(browser, page_file)
    sliders = page.locator(".mtr-canvas")
    assert sliders.count() == 12
    where = lambda: float(
        sliders.nth(1).evaluate("e => e.style.getPropertyValue('--mtr-x')").rstrip("%")
    )
    assert where() == 50
    sliders.nth(1).scroll_into_view_if_needed()
    box = sliders.nth(1).bounding_box()
    y = box["y"] + box["height"] / 2
    before = page.screenshot(clip=box)
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, y, steps=5)
    page.mouse.up()
    assert where() == pytest.approx(20, abs=1) and page.screenshot(clip=box) != before
    page.keyboard.press("ArrowRight")
    assert where() == pytest.approx(21, abs=1), "the arrow keys move it too"
    assert sliders.nth(0).evaluate("e => e.style.getPropertyValue('--mtr-x')") == "50%", (
        "its neighbours stay"
    )
    assert not troubles


def test_all_pictures_and_figures_are_drawn(browser, page_file):
    page, troubles = opened(browser, page_file)
    pictures = page.locator("img")
    assert pictures.count() == 2 + 1 + 24 and all(
        drawn(pictures.nth(i)) for i in range(pictures.count())
    )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
        "nothing hangs over the side"
    )
    assert not troubles


def test_on_a_telephone_only_tables_scroll(browser, page_file):
    page, _ = opened(browser, page_file)
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_without_scripts_both_pictures_stand_side_by_side(browser, page_file):
    page, troubles = opened(browser, page_file, java_script_enabled=False)
    pairs = page.locator(".mtr-compare")
    assert pairs.count() == 12 and page.locator(".mtr-canvas").count() == 0
    for i in range(12):
        left, right = (pairs.nth(i).locator("img").nth(k) for k in range(2))
        a, b = left.bounding_box(), right.bounding_box()
        assert (
            left.is_visible()
            and right.is_visible()
            and a["width"] > 90
            and abs(a["y"] - b["y"]) < 1
            and a["x"] + a["width"] <= b["x"]
        )
    assert not troubles


def test_it_prints(browser, page_file, tmp_path):
    page, _ = opened(browser, page_file)
    assert page.pdf(path=tmp_path / "a.pdf", format="A4").startswith(b"%PDF")
