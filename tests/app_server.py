"""`mtrestore app` as a program of its own, for tests: started, asked over HTTP, ended."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, urlsplit


class App:
    """A running app; `folder` is its TMPDIR, in which the session's folder lies."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.errors = folder.with_name(f"{folder.name}.err")
        folder.mkdir()
        command = [sys.executable, "-m", "mtrestore", "app", "--no-browser", *options]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                command,
                env=os.environ | {"TMPDIR": str(folder)},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.words = self.process.stdout.readline()
        assert self.words.startswith("mtrestore app: http://127.0.0.1:"), self.errors.read_text()
        self.address = self.words.split()[-1]
        parts = urlsplit(self.address)
        self.port, self.top = parts.port, parts.path

    def ask(self, method, path, body=None, **headers):
        """Status, headers and bytes; a path below the token unless it begins with a slash."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        with contextlib.closing(connection):
            where = path if path.startswith("/") else self.top + path
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, where, body, names)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def get(self, path):
        """The bytes of an answer that must be good."""
        status, _, data = self.ask("GET", path)
        assert status == 200, data
        return data

    def post(self, path, words=""):
        """The status and the words of an answer."""
        body = words if isinstance(words, (str, bytes)) else json.dumps(words)
        status, _, data = self.ask("POST", path, body)
        return status, json.loads(data)

    def add(self, name, data, of_folder=0):
        """Hand over a photo; what is answered."""
        status, words = self.post(f"photos?name={quote(name)}&folder={of_folder}", data)
        assert status == 200, words
        return words

    def photo(self, number):
        photos = json.loads(self.get("state"))["photos"]
        return next(photo for photo in photos if photo["number"] == number)

    def settled(self, number):
        """A photo when nobody works on it any more."""
        for _ in range(6000):
            photo = self.photo(number)
            if photo["state"] in ("done", "failed", "stopped"):
                return photo
            time.sleep(0.1)
        raise AssertionError(photo)

    def restored(self, number, asked=None):
        """The photo restored, with these settings if any, and the bytes of its result."""
        if asked is not None:
            status, words = self.post(f"photos/{number}/restore", asked)
            assert status == 200, words
        photo = self.settled(number)
        assert photo["state"] == "done", photo
        return photo, self.get(f"photos/{number}/restored")

    def end(self, number=signal.SIGINT):
        """Its exit code after a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.stdout.close()
        return self.process.wait(300)
