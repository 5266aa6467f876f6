"""Who may ask the app for what: a server for one person on one machine.

It listens on 127.0.0.1 alone. Every address begins with a token that is made anew at each start
and compared in constant time. A request under another host's name (DNS rebinding) or from another
site's page is refused, and the page may load nothing but what this server gives (CSP). What goes
wrong is one line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body

from ..io.files import MAX_BYTES, ImageError, asset, make_folders, read_bytes
from ..io.text import one_line, shown
from . import asked
from .asked import Asked
from .desk import Desk, Photo, pack, session_folder

HERE = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MOST_WORDS = 1 << 20  # bytes of a request that is no photo
CHUNK = 1 << 20
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class Door(RequestHandler):
    """What every request passes: host, origin, token."""

    def initialize(self, desk: Desk, token: str) -> None:
        self.desk, self.token = desk, token

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        if name_of(self.request.host) not in HERE:
            raise HTTPError(403, "open the page as http://127.0.0.1, not under another name")
        origin = self.request.headers.get("Origin")
        if origin not in (None, f"http://{self.request.host}"):
            raise HTTPError(403, "another site's page may not ask here")
        token = self.path_kwargs.pop("token", "")
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            raise HTTPError(
                403, "open the address that `mtrestore app` printed; it ends in a token"
            )

    def photo(self, number: str) -> Photo:
        """The photo of that number; HTTPError 404."""
        photo = self.desk.photos.get(int(number[:9]))
        if photo is None:
            raise HTTPError(404, "this photo is not here any more")
        return photo

    def words(self) -> Any:
        """The JSON of a request; HTTPError 400."""
        try:
            return json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise HTTPError(400, "the request holds no JSON") from None

    def say(self, words: Any) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(words))

    def write_error(self, status_code: int, **facts: Any) -> None:
        error = facts.get("exc_info", (None, None, None))[1]
        if isinstance(error, HTTPError):
            words = error.log_message % () if error.log_message else self._reason
        else:
            words = one_line(error) if error else self._reason
        self.say({"error": shown(words)})

    def _handle_request_exception(self, e: BaseException) -> None:
        """A fault of what was asked is 400, another one 500; both say one line."""
        if isinstance(e, (ValueError, OSError)) and not isinstance(e, HTTPError):
            e = HTTPError(400, one_line(e))
        super()._handle_request_exception(e)

    def log_exception(self, kind: Any, value: Any, trace: Any) -> None:
        if not isinstance(value, (HTTPError, ValueError, OSError)):  # those the page says
            print(f"mtrestore app: {one_line(value)}", file=sys.stderr)


class Page(Door):
    """The page, its style and its script."""

    def get(self, name: str) -> None:
        name = name or "app.html"
        self.set_header("Content-Type", f"{KINDS[name.rpartition('.')[2]]}; charset=utf-8")
        self.finish(FILES[name]())


def script() -> str:
    """The page's script, with the before/after view of every other page in it."""
    return f"const slide = () => {{\n{asset('compare.js')}}};\n{asset('app.js')}"


FILES: dict[str, Callable[[], str]] = {
    "app.html": lambda: asset("app.html"),
    "app.css": lambda: asset("compare.css") + asset("boxes.css") + asset("app.css"),
    "app.js": script,
    "boxes.js": lambda: asset("boxes.js"),
    "app.svg": lambda: asset("app.svg"),
}


class State(Door):
    """What there is; with the first answer also what every option is called."""

    def get(self) -> None:
        first = (
            {"labels": asked.labels(), "most": MAX_BYTES} if self.get_argument("first", "") else {}
        )
        self.say(self.desk.json() | first)


@stream_request_body
class Photos(Door):
    """Takes a photo: its bytes are the request, its name is in the address."""

    def prepare(self) -> None:
        super().prepare()
        self.parts: list[bytes] = []
        if int(self.request.headers.get("Content-Length", 0)) > MAX_BYTES:
            raise HTTPError(413, f"the file has more than {MAX_BYTES >> 20} MiB")
        connection: Any = self.request.connection
        connection.set_max_body_size(MAX_BYTES)

    def data_received(self, chunk: bytes) -> None:
        self.parts.append(chunk)

    def post(self) -> None:
        name = self.get_query_argument("name", "photo")
        of_folder = self.get_query_argument("folder", "") == "1"
        photo = self.desk.add(name, b"".join(self.parts), of_folder)
        self.say({"ignored": photo} if isinstance(photo, str) else {"number": photo.number})


class Act(Door):
    """What is done with all photos."""

    async def post(self, name: str) -> None:
        desk = self.desk
        if name == "sample":
            return self.say({"number": desk.sample().number})
        if name == "all":
            desk.want_all(Asked.of(self.words()))
        elif name == "stop":
            desk.stop(desk.photos.values())
        elif name == "save":
            for photo in [p for p in desk.photos.values() if p.version and not p.saved]:
                desk.save(photo)
        self.say(desk.json())


class ActOnOne(Door):
    """What is done with one photo."""

    def post(self, number: str, name: str) -> None:
        desk, photo = self.desk, self.photo(number)
        if name == "restore":
            desk.want(photo, Asked.of(self.words()))
        elif name == "stop":
            desk.stop([photo])
        elif name == "remove":
            desk.remove(photo)
        elif name == "save":
            ready(photo)
            desk.save(photo)
        self.say(desk.json())


class Picture(Door):
    """A photo before and after, for the screen, and the result itself."""

    async def get(self, number: str, name: str) -> None:
        photo = self.photo(number)
        if name == "restored":
            ready(photo)
            return await send(self, open(photo.restored, "rb"), photo.title)
        try:
            data = read_bytes(photo.folder / name)
        except ImageError:
            raise HTTPError(404, "this picture is not there yet") from None
        self.set_header("Content-Type", "image/png" if data[:4] == b"\x89PNG" else "image/jpeg")
        self.finish(data)


class Pack(Door):
    """All results in one file."""

    async def get(self) -> None:
        results = self.desk.results()
        if not results:
            raise HTTPError(404, "nothing is restored yet")
        file = await asyncio.to_thread(pack, results, self.desk.folder)
        await send(self, file, "restored.zip")


def ready(photo: Photo) -> None:
    """HTTPError 404 unless there is a result."""
    if not photo.version:
        raise HTTPError(404, "this photo is not restored yet")


async def send(door: Door, file: IO[bytes], title: str) -> None:
    """An open file as a download, in pieces: it stays whole when another takes its name."""
    plain = title.encode("ascii", "replace").decode().replace("?", "_").replace('"', "_")
    names = f"filename=\"{plain}\"; filename*=UTF-8''{quote(title, safe='')}"
    door.set_header("Content-Disposition", f"attachment; {names}")
    door.set_header("Content-Type", "application/octet-stream")
    with file:
        door.set_header("Content-Length", str(file.seek(0, os.SEEK_END)))
        file.seek(0)
        while chunk := file.read(CHUNK):
            door.write(chunk)
            await door.flush()
    door.finish()


def name_of(host: str) -> str:
    """`localhost` of `localhost:8000`, without a port; nothing of what is no host."""
    with contextlib.suppress(ValueError):
        return (urlsplit(f"//{host}").hostname or "") if "@" not in host else ""
    return ""


def application(desk: Desk, token: str) -> Application:
    """The addresses, below the token."""
    facts = {"desk": desk, "token": token}
    top, one = "/(?P<token>[^/]*)/", "photos/(?P<number>[0-9]+)/"
    files = "|".join(FILES).replace(".", r"\.")
    return Application(
        [
            (f"{top}(?P<name>|{files})", Page, facts),
            (f"{top}state", State, facts),
            (f"{top}photos", Photos, facts),
            (f"{top}(?P<name>sample|all|stop|save)", Act, facts),
            (f"{top}{one}(?P<name>restore|stop|remove|save)", ActOnOne, facts),
            (f"{top}{one}(?P<name>before|after|restored)", Picture, facts),
            (f"{top}restored.zip", Pack, facts),
        ],
        default_handler_class=Door,
        default_handler_args=facts,
        log_function=lambda handler: None,
        compress_response=False,
    )


async def serve(
    out: Path | None, port: int, device: str, timeout: float, ready: Callable[[str], None]
) -> None:
    """Serve until cancelled; `ready` is told the address. Raises ValueError for a taken port."""
    logging.getLogger("tornado").addHandler(logging.NullHandler())
    logging.getLogger("tornado").propagate = False
    if out is not None:
        make_folders(out)
    try:
        sockets = bind_sockets(port, HERE[0])
    except (OSError, OverflowError) as e:
        raise ValueError(f"port {port} cannot be had: {one_line(e)}; give another --port") from e
    token = secrets.token_urlsafe(24)
    with session_folder() as folder:
        desk = Desk(folder, out, device, timeout)
        server = HTTPServer(application(desk, token), max_body_size=MOST_WORDS)
        server.add_sockets(sockets)
        try:
            ready(f"http://{HERE[0]}:{sockets[0].getsockname()[1]}/{token}/")
            await desk.run()
        finally:
            server.stop()
            desk.close()


def start(out: Path | None, port: int, device: str, timeout: float, browse: bool) -> None:
    """Serve until Ctrl-C, and open the page in the browser of who started it."""

    def ready(address: str) -> None:
        print(f"mtrestore app: {address}\nyour photos stay on this machine; Ctrl-C ends it")
        sys.stdout.flush()
        if browse:
            import webbrowser

            webbrowser.open(address)

    asyncio.run(serve(out, port, device, timeout, ready))
