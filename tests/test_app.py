"""The app without a browser: who may ask, what hostile files come to, and that a result is the
Restorer's own.
"""

import asyncio
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from app_server import App
from PIL import Image

import mtrestore as mt
from mtrestore import cli, image
from mtrestore.app import desk as desks
from mtrestore.app import server
from mtrestore.app.asked import Asked, Wish, labels
from mtrestore.app.desk import Desk, plain
from mtrestore.options import LIKE, Folders, facts

ASSETS = Path(mt.__file__).parent / "assets"


def png(photo) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.as_samples(photo, np.uint8)).save(file, "PNG")
    return file.getvalue()


def read(data: bytes, folder: Path) -> np.ndarray:
    """The samples of a picture's bytes."""
    path = folder / "read.png"
    path.write_bytes(data)
    return image.load(path).samples


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    app = App(folder / "tmp", "--out", str(folder / "out"), "--device", "cpu")
    app.out = folder / "out"
    yield app
    assert app.end() == 130 and app.errors.read_text() == "mtrestore: interrupted\n"


@pytest.fixture(scope="module")
def portrait(app, _astronaut):
    """The number of a photo that is restored with the usual settings, and its bytes."""
    data = png(image.resize(_astronaut, (256, 256)))
    return app.add("astronaut.png", data)["number"], data


@pytest.fixture
def grey_png() -> bytes:
    return png(np.full((40, 50, 3), 0.5, np.float32))


# ---- who may ask


def error_of(data: bytes) -> str:
    """The line that a refusal says."""
    words = json.loads(data)
    assert set(words) == {"error"} and words["error"].isprintable() and len(words["error"]) > 10
    return words["error"]


@pytest.mark.parametrize("path", ["", "state", "app.js", "photos/1/before", "restored.zip", "none"])
def test_without_the_token_nothing_is_answered(app, path):
    token = app.top.strip("/")
    assert len(token) >= 32
    for wrong in ("/", f"/{path}", f"/x/{path}", f"/{token[:-1]}/{path}", f"/{token}x/{path}"):
        status, _, data = app.ask("GET", wrong)
        assert status == 403 and "token" in error_of(data) and token not in data.decode()
    for name in ("photos?name=a.png", "stop", "sample", "photos/1/remove", "photos/1/restore"):
        status, _, data = app.ask("POST", f"/x/{name}", b"{}")
        assert status == 403 and "token" in error_of(data)
    assert app.ask("GET", "")[0] == 200


def test_the_token_is_another_each_time_and_compared_in_constant_time():
    words = inspect.getsource(server.Door.prepare)
    assert "hmac.compare_digest" in words and "== self.token" not in words
    assert "secrets.token_urlsafe(24)" in inspect.getsource(server.serve)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "localhost@evil.example"]
    + ["127.0.0.2", "0.0.0.0", "[::2]:80", "[", "", "127.0.0.1 evil", "localhost.", "LOCALHOST.EU"],
)
def test_another_host_is_refused(app, host):
    status, _, data = app.ask("GET", "state", Host=host)
    assert status in (400, 403) and b"photos" not in data


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1", "[::1]:80", "LocalHost"])
def test_this_machine_under_its_other_names_is_let_in(app, host):
    assert app.ask("GET", "state", Host=host)[0] == 200


@pytest.mark.parametrize(
    "origin",
    ["null", "http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1:1", "file://"]
    + ["http://127.0.0.1:{port}.evil.example", "http://localhost:{port}", ""],
)
def test_another_sites_page_is_refused(app, origin):
    origin = origin.format(port=app.port)
    for method, path in (("GET", "state"), ("POST", "stop"), ("POST", "photos?name=a")):
        status, _, data = app.ask(method, path, Origin=origin)
        assert status == 403 and "site" in error_of(data)
    assert app.ask("POST", "stop", Origin=f"http://127.0.0.1:{app.port}")[0] == 200


@pytest.mark.parametrize("path", ["", "app.js", "state", "photos/999/before", "/nothing"])
def test_every_answer_forbids_what_is_not_ours(app, path):
    _, headers, _ = app.ask("GET", path)
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    assert not re.search(r"https?:|\*", policy)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers and "Server" not in headers


def test_it_listens_on_this_machine_alone(app):
    listens = [
        c.laddr
        for c in psutil.Process(app.process.pid).net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    ]
    assert [(a.ip, a.port) for a in listens] == [("127.0.0.1", app.port)]


def test_the_page_asks_for_nothing_outside():
    for name in ("app.html", "app.css", "app.js", "boxes.js", "boxes.css", "compare.js"):
        words = (ASSETS / name).read_text()
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", words), name
    page = (ASSETS / "app.html").read_text()
    assert not re.search(r"\son\w+=|style=|<style|javascript:", page)
    assert not re.search(r"innerHTML|insertAdjacentHTML|outerHTML", (ASSETS / "app.js").read_text())


def test_the_server_needs_no_torch():
    words = "import sys, mtrestore.app.server; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", words]).returncode == 0


# ---- what comes in


@pytest.mark.parametrize(
    "kind, words",
    [
        ("cut", "truncated"),
        ("text", "no picture"),
        ("empty", "empty"),
        ("bomb", "pixels"),
        ("html", "no picture"),
    ],
)
def test_a_file_that_is_no_photo_is_one_line_and_the_others_go_on(app, grey_png, kind, words):
    wide = b"P6 90000 90000 255 "
    data = {"cut": grey_png[:60], "text": b"no picture at all", "empty": b"", "bomb": wide}
    data["html"] = b"<html><script>alert(1)</script></html>"
    bad = app.add(f"{kind}.png", data[kind])["number"]
    good = app.add("good.png", grey_png)["number"]
    photo = app.settled(bad)
    assert photo["state"] == "failed" and words in photo["error"], photo
    assert photo["error"].isprintable() and str(app.folder) not in photo["error"]
    assert app.settled(good)["state"] == "done"
    assert app.ask("GET", f"photos/{bad}/restored")[0] == 404
    for number in (bad, good):
        assert app.post(f"photos/{number}/remove")[0] == 200


@pytest.mark.parametrize(
    "name",
    ["../../../x<script>alert(1)</script>.png", "/etc/passwd", "..\\..\\x.png", "a\0b.png", "."]
    + ["", "..", "\u202egnp.exe", 'a"; filename="b.png', "a\r\nSet-Cookie: x=1.png", "ä" * 400],
)
def test_a_name_is_text_and_no_path(app, grey_png, name):
    around = {path for path in app.folder.parent.rglob("*") if app.folder not in path.parents}
    number = app.add(name, grey_png)["number"]
    photo, data = app.restored(number)
    assert photo["name"].isprintable() and photo["name"] in name or not name.isprintable()
    _, headers, _ = app.ask("GET", f"photos/{number}/restored")
    place = headers["Content-Disposition"]
    assert re.fullmatch(r"attachment; filename=\"[^\"/\\<>]+\"; filename\*=UTF-8''[\w.%~-]+", place)
    assert "Set-Cookie" not in headers
    (session,) = app.folder.iterdir()
    for path in session.rglob("*"):
        assert re.fullmatch(r"\d+(/(photo|before|after|restored\.\w+))?|sample.png",
                            str(path.relative_to(session))), path  # fmt: skip
    assert around == {p for p in app.folder.parent.rglob("*") if app.folder not in p.parents}
    app.post(f"photos/{number}/remove")
    assert not (session / str(number)).exists()


@pytest.mark.parametrize(
    "name, expected",
    [
        ("a.jpg", "a.jpg"),
        ("/x/y/Oma 1932.JPG", "Oma 1932.JPG"),
        ("..", "photo"),
        ("...a.png", "a.png"),
        ("<script>.png", "_script_.png"),
        ("C:\\x\\b.tif", "b.tif"),
        ("\u202ea.png", "_a.png"),
        ("$(rm -rf *);.png", "_(rm -rf _)_.png"),
        ("-o.png", "o.png"),
        ("a.png. ", "a.png"),
        ("ä.png", "ä.png"),
    ],
)
def test_a_name_outside_becomes_a_plain_file_name(name, expected):
    assert plain(name) == expected


def test_a_file_over_the_limit_is_refused_before_it_is_sent(app):
    status, _, data = app.ask("POST", "photos?name=a.png", b"", Content_Length=str((256 << 20) + 1))
    assert status == 413 and "256 MiB" in error_of(data)
    assert app.ask("GET", "state")[0] == 200


def test_a_session_is_bounded_too(tmp_path, grey_png, monkeypatch):
    desk = Desk(tmp_path, None, "cpu", 60)
    monkeypatch.setattr(desks, "MOST_PHOTOS", 2)
    desk.add("a", grey_png)
    desk.add("b", grey_png)
    with pytest.raises(image.ImageError, match="there are 2 photos here already; remove some"):
        desk.add("c", grey_png)
    monkeypatch.setattr(desks, "MOST_PHOTOS", 3)
    monkeypatch.setattr(desks, "MOST_BYTES", 3 * len(grey_png) - 1)
    with pytest.raises(image.ImageError, match="remove some"):
        desk.add("c", grey_png)
    assert len(desk.photos) == 2 and {p.name for p in tmp_path.iterdir()} == {"1", "2"}


def test_what_lies_in_a_folder_and_is_no_photo_is_left_out(app, grey_png):
    before = len(json.loads(app.get("state"))["photos"])
    assert app.add("album/notes.txt", b"words", 1) == {"ignored": "a text"}
    assert app.add("album/.DS_Store", b"\0\0\0\1Bud1", 1) == {"ignored": "hidden"}
    assert len(json.loads(app.get("state"))["photos"]) == before
    number = app.add("album/sub/a.png", grey_png, 1)["number"]
    assert app.settled(number)["name"] == "album/sub/a.png"
    app.post(f"photos/{number}/remove")


@pytest.mark.parametrize(
    "asked, words",
    [
        ({"like": "loud"}, "like must be one of light, normal, strong"),
        ({"scale": 99}, "scale must lie in 0.1..8"),
        ({"scale": "2"}, "scale must be a number"),
        ({"photo_strength": None}, "photo_strength must be a number"),
        ({"photo_strength": -1}, "photo_strength must lie in 0..1"),
        ({"faces": [{"box": [0, 0, 9, 9], "strength": 2}]}, "face_strength must lie in 0..1"),
        ({"faces": [{"box": [9, 0, 0, 9], "strength": 1}]}, "x0 < x1"),
        ({"faces": [{"box": [0, 0, 9], "strength": 1}]}, "x0,y0,x1,y1"),
        ({"faces": [{"box": [0, 0, 9, 1e999], "strength": 1}]}, "x0,y0,x1,y1"),
        ({"faces": [[0, 0, 9, 9]]}, "a face has box, strength and hand"),
        ({"faces": [{"box": [0, 0, 9, 9], "strength": 1}] * 201}, "at most 200"),
        ({"faces": {"box": 1}}, "faces must be a list"),
        ({"face": "/etc/passwd"}, "settings are like,"),
        ({"faces": [{"box": [900, 0, 950, 9], "strength": 1, "hand": True}]}, "box of a face"),
        ([], "settings are like,"),
        (None, "settings are like,"),
    ],
)
def test_settings_that_are_none_are_one_line(app, portrait, asked, words):
    number, _ = portrait
    before = app.settled(number)
    status, answer = app.post(f"photos/{number}/restore", asked)
    assert status == 400 and words in answer["error"] and answer["error"].isprintable()
    assert app.photo(number) == before


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_one_line(app, portrait, body):
    status, answer = app.post(f"photos/{portrait[0]}/restore", body)
    assert (status, answer) == (400, {"error": "the request holds no JSON"})


def test_addresses_that_lead_nowhere_are_one_line(app):
    for path in (
        "photos/99/before",
        "photos/99999999999999999999/after",
        "photos/1/none",
        "%2e%2e/",
    ):
        status, _, data = app.ask("GET", path)
        assert status in (403, 404) and error_of(data)


# ---- what comes out


def own(data: bytes, folder: Path, **options) -> np.ndarray:
    """What a Restorer of these options makes of a photo."""
    path = folder / "photo.png"
    path.write_bytes(data)
    return mt.Restorer(device="cpu", keep_steps=False, **options)(path).samples


def test_a_download_is_what_the_restorer_gives(app, portrait, tmp_path):
    number, data = portrait
    photo, result = app.restored(number)
    assert np.array_equal(read(result, tmp_path), own(data, tmp_path))
    assert [face["status"] for face in photo["faces"]] == ["restored"]
    assert photo["title"] == "astronaut_restored.png" and not photo["faces"][0]["hand"]
    for name in ("before", "after"):
        assert read(app.get(f"photos/{number}/{name}"), tmp_path).shape == (256, 256, 3)
    assert np.array_equal(read(app.get(f"photos/{number}/after"), tmp_path), read(result, tmp_path))


def test_a_faces_switch_and_strength_change_the_outcome(app, portrait, tmp_path):
    number, data = portrait
    photo, usual = app.restored(number, {})
    (face,) = photo["faces"]
    wish = {"box": face["box"], "hand": False}

    photo, off = app.restored(number, {"faces": [wish | {"strength": 0}]})
    assert photo["faces"][0]["status"] == "left out" and photo["faces"][0]["strength"] == 0
    assert np.array_equal(read(off, tmp_path), own(data, tmp_path, skip_faces=[1]))

    photo, half = app.restored(number, {"faces": [wish | {"strength": 0.5}]})
    assert np.array_equal(read(half, tmp_path), own(data, tmp_path, face_strength=0.5))
    assert photo["faces"][0]["strength"] == 0.5 and len({usual, off, half}) == 3


def test_presets_and_sliders_are_the_packages_options(app, portrait, tmp_path):
    number, data = portrait
    photo, light = app.restored(number, {"like": "light"})
    assert np.array_equal(read(light, tmp_path), own(data, tmp_path, like="light"))
    assert photo["faces"][0]["strength"] == photo["asked"]["photo_strength"] == 0.5
    photo, larger = app.restored(number, {"scale": 1.5, "photo_strength": 0.25})
    expected = own(data, tmp_path, scale=1.5, photo_strength=0.25)
    assert (photo["out_width"], photo["out_height"]) == (384, 384)
    assert np.array_equal(read(larger, tmp_path), expected)
    app.restored(number, {})


def test_a_face_by_hand_is_restored_and_can_be_taken_back(app, portrait, tmp_path):
    number, data = portrait
    photo, usual = app.restored(number, {})
    seen = [{name: face[name] for name in ("box", "strength", "hand")} for face in photo["faces"]]
    hand = {"box": [150.5, 150, 300, 215], "strength": 1, "hand": True}  # beyond the right edge
    photo, more = app.restored(number, {"faces": [*seen, hand]})
    assert [face["hand"] for face in photo["faces"]] == [False, True]
    assert photo["faces"][1]["box"] == [150.5, 150, 256, 215]
    assert photo["faces"][1]["status"] == "restored"
    expected = own(data, tmp_path, more_faces=[(150.5, 150, 256, 215)])
    assert np.array_equal(read(more, tmp_path), expected)

    x0, y0, x1, y1 = seen[0]["box"]  # on the found one: it takes its place and its number
    moved = {"box": [x0 + 2, y0, x1 + 2, y1], "strength": 1, "hand": True}
    photo, _ = app.restored(number, {"faces": [seen[0] | {"strength": 0}, moved]})
    assert [face["hand"] for face in photo["faces"]] == [True]
    assert app.restored(number, {"faces": seen})[1] == usual


def test_the_zip_holds_every_result_under_its_own_name(app, portrait, grey_png):
    number, _ = portrait
    others = [app.add(name, grey_png)["number"] for name in ("x/astronaut.png", "Astronaut.png")]
    results = [app.restored(n)[1] for n in (number, *others)]
    with zipfile.ZipFile(io.BytesIO(app.get("restored.zip"))) as pack:
        names = pack.namelist()
        assert names[0] == "astronaut_restored.png" and len({n.lower() for n in names}) == 3
        assert names[1] == "astronaut_restored_2.png" and names[2] == "Astronaut_restored_3.png"
        assert [pack.read(name) for name in names] == results
    for other in others:
        app.post(f"photos/{other}/remove")


def test_saving_writes_into_the_folder_and_over_nothing(app, portrait):
    number, _ = portrait
    _, result = app.restored(number)
    (app.out / "astronaut_restored.png").write_bytes(b"mine")
    status, words = app.post(f"photos/{number}/save")
    assert status == 200 and words["photos"][0]["saved"] == "astronaut_restored_2.png"
    assert (app.out / "astronaut_restored_2.png").read_bytes() == result
    assert (app.out / "astronaut_restored.png").read_bytes() == b"mine"
    app.post(f"photos/{number}/save")
    assert {path.name for path in app.out.iterdir()} == {
        f"astronaut_restored{n}.png" for n in ("", "_2", "_3")
    }


def test_without_a_folder_the_page_cannot_save(tmp_path, grey_png):
    desk = Desk(tmp_path, None, "cpu", 60)
    with pytest.raises(image.ImageError, match="start with --out FOLDER"):
        desk.save(desk.add("a.png", grey_png))


@pytest.mark.parametrize("name, suffix", [("a.JPG", ".jpg"), ("a.gif", ".png"), ("a", ".png")])
def test_a_result_keeps_its_format_where_that_can_be_written(tmp_path, grey_png, name, suffix):
    photo = Desk(tmp_path, None, "cpu", 60).add(name, grey_png)
    assert photo.suffix == suffix and photo.title == f"a_restored{suffix}"


def test_every_option_of_the_page_is_stated_once():
    words = labels()
    assert set(words["presets"]) == set(LIKE) and words["presets"]["light"]["face_strength"] == 0.5
    for name, slider in words["sliders"].items():
        assert facts(name)["help"].startswith(slider["help"]) and slider["help"]
        assert (slider["low"], slider["high"], slider["step"]) == facts(name)["slider"]
    place = Folders.__dataclass_fields__["strip_location"].metadata["help"]
    assert place.startswith(words["strip_location"])
    page = (ASSETS / "app.html").read_text() + (ASSETS / "app.js").read_text()
    assert facts("photo_strength")["help"] not in page and "keeps half" not in page


def test_settings_survive_their_json():
    asked = Asked("light", 0.25, 2.0, True, (Wish((1.5, 2, 3, 4), 0.5, True),))
    assert Asked.of(json.loads(json.dumps(asked.json()))) == asked
    assert Asked.of({}) == Asked() and Asked.of({"like": "light"}).photo_strength == 0.5


# ---- one at a time, and what goes wrong meanwhile


def fine(photo, *_):
    return {"faces": [], "width": 1, "height": 1, "out_width": 1, "out_height": 1, "notes": []}


def slow(photo, *_):
    time.sleep(0.5)
    return fine(photo)


def hang(photo, *_):
    """For ever on the first photo."""
    return time.sleep(600) if photo.parent.name == "1" else fine(photo)


def crash(photo, *_):
    return os.kill(os.getpid(), signal.SIGSEGV) if photo.parent.name == "1" else fine(photo)


def memory(photo, *_):
    if photo.parent.name == "1":
        raise MemoryError
    return fine(photo)


def run_until(desk, condition):
    """Runs a desk until the condition holds."""

    async def until() -> None:
        task = asyncio.create_task(desk.run())
        while not condition():
            assert not task.done(), task
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    try:
        asyncio.run(asyncio.wait_for(until(), 600))
    finally:
        desk.close()


@pytest.mark.parametrize(
    "fault, words",
    [
        (crash, "this photo ended its worker process (SIGSEGV)"),
        (memory, "there is not enough memory for this photo: MemoryError"),
        (hang, "this photo took more than 5 s and was stopped"),
    ],
)
def test_a_photo_that_ends_its_worker_costs_no_other(tmp_path, grey_png, monkeypatch, fault, words):
    desk = Desk(tmp_path, None, "cpu", 5)
    bad, good = desk.add("bad", grey_png), desk.add("good", grey_png)
    monkeypatch.setattr(desks, "restore", fine)
    monkeypatch.setattr(desks, "look", fault)
    run_until(desk, lambda: good.state == "done")
    assert (bad.state, bad.error) == ("failed", words)


def test_what_is_stopped_ends_at_once_and_can_be_restored_again(tmp_path, grey_png, monkeypatch):
    desk = Desk(tmp_path, None, "cpu", 600)
    one, two, three = (desk.add(name, grey_png) for name in "abc")
    monkeypatch.setattr(desks, "look", fine)
    monkeypatch.setattr(desks, "restore", hang)
    states = []

    def ended():
        if one.state == "restoring" and not states:
            states.append([photo.state for photo in (one, two, three)])
            desk.stop([one, two])
            states.append([photo.state for photo in (one, two, three)])
            monkeypatch.setattr(desks, "restore", fine)
        if three.state == "done" and one.state == "stopped":
            desk.want(one)
        return one.state == "done"

    run_until(desk, ended)
    assert states == [["restoring", "waiting", "waiting"], ["stopped", "stopped", "waiting"]]
    assert (two.state, two.version, one.version) == ("stopped", 0, 1)


def test_a_photo_that_is_removed_while_it_is_worked_on_is_forgotten(
    tmp_path, grey_png, monkeypatch
):
    desk = Desk(tmp_path, None, "cpu", 600)
    one, two = desk.add("a", grey_png), desk.add("b", grey_png)
    monkeypatch.setattr(desks, "look", hang)
    monkeypatch.setattr(desks, "restore", fine)

    def ended():
        if one.state == "looking":
            desk.remove(one)
        return two.state == "done"

    run_until(desk, ended)
    assert list(desk.photos.values()) == [two] and not one.folder.exists()


def test_settings_that_change_meanwhile_are_done_next(tmp_path, grey_png, monkeypatch):
    desk = Desk(tmp_path, None, "cpu", 600)
    one, two = desk.add("a", grey_png), desk.add("b", grey_png)
    monkeypatch.setattr(desks, "look", fine)
    monkeypatch.setattr(desks, "restore", slow)
    order = []

    def ended():
        if one.state == "restoring" and one.asked.like == "normal":
            desk.want(one, Asked("strong"))
        order.append((one.version, two.version))
        return two.state == "done"

    run_until(desk, ended)
    assert (2, 0) in order and one.asked.like == "strong", "what a person changed comes first"


def test_the_same_settings_for_all(tmp_path, grey_png):
    desk = Desk(tmp_path, None, "cpu", 60)
    one, two = desk.add("a", grey_png), desk.add("b", grey_png)
    one.facts = {"width": 50, "height": 40}
    wishes = Wish((1, 2, 3, 4), 1.0, True), Wish((5, 6, 7, 8), 0.0)
    desk.want(one, Asked(faces=wishes))
    desk.want_all(Asked.of({"like": "light", "scale": 2}))
    assert (two.asked.like, two.asked.scale, two.asked.faces) == ("light", 2, None)
    assert one.asked.faces == (Wish((1, 2, 3, 4), 0.5, True), Wish((5, 6, 7, 8), 0.0)), "off is off"


def test_the_page_is_told_what_is_asked_before_it_is_done(tmp_path, grey_png):
    photo = Desk(tmp_path, None, "cpu", 60).add("a", grey_png)
    face = {"box": (1, 2, 3, 4), "strength": 1.0, "hand": False, "status": "restored"}
    photo.facts = {"width": 50, "height": 40, "faces": [face]}
    photo.asked = Asked(faces=(Wish((1, 2, 3, 4), 0.25), Wish((5, 6, 9, 9), 1.0, True)))
    photo.expect()
    told = [(f["strength"], f["hand"], f["status"]) for f in photo.json()["faces"]]
    assert told == [(0.25, False, "restored"), (1.0, True, "new")]
    photo.asked = Asked.of({"like": "light"})
    photo.expect()
    assert [f["strength"] for f in photo.json()["faces"]] == [0.5, 0.5]


def test_a_box_that_was_drawn_before_the_size_was_known_is_cut_too(tmp_path, grey_png, monkeypatch):
    desk = Desk(tmp_path, None, "cpu", 600)
    photo = desk.add("a", grey_png)
    monkeypatch.setattr(desks, "look", fine)
    monkeypatch.setattr(desks, "restore", fine)
    desk.want(photo, Asked(faces=(Wish((-9.0, 0.0, 1e9, 1.0), 1.0, True),)))
    run_until(desk, lambda: photo.state == "done")
    assert photo.asked.faces == (Wish((0, 0.0, 1, 1.0), 1.0, True),), "the photo is 1 by 1 here"


# ---- the program


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_at_its_end_nothing_is_left(tmp_path, grey_png, number, code):
    app = App(tmp_path / "tmp")
    app.add("a.png", grey_png)
    children = psutil.Process(app.process.pid).children(recursive=True)
    (session,) = app.folder.glob("mtrestore-app-*")
    assert session.stat().st_mode & 0o077 == 0, "nobody else may look"
    assert app.end(number) == code
    assert not list(app.folder.iterdir())
    psutil.wait_procs(children, 20)
    assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
    assert "Traceback" not in app.errors.read_text()


def test_a_port_that_is_taken_is_one_line(app, capsys):
    assert cli.main(["app", "--no-browser", "--port", str(app.port)]) == 1
    words = capsys.readouterr().err
    assert words.count("\n") == 1 and f"port {app.port} cannot be had" in words
    assert "give another --port" in words


def test_the_browser_is_opened_once_unless_it_is_not_wanted(monkeypatch, capsys):
    import webbrowser

    opened = []

    async def serve(out, port, device, timeout, ready):
        ready("http://127.0.0.1:1/token/")

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert cli.main(["app"]) == 0 and opened == ["http://127.0.0.1:1/token/"]
    assert cli.main(["app", "--no-browser"]) == 0 and len(opened) == 1
    assert "http://127.0.0.1:1/token/\n" in capsys.readouterr().out
