"""Text from outside on one printable line: errors, file names and metadata, safe for a terminal and
for a table.
"""

import difflib
import unicodedata
from collections.abc import Iterable


def one_line(e: BaseException) -> str:
    """An error as at most 500 printable characters; its kind where it says nothing."""
    return shown(" ".join(str(e).split()))[:500] or type(e).__name__


def shown(text: str) -> str:
    """Text that is safe to print on one line of a terminal, whatever a file was called."""
    return (
        "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
        .encode("utf-8", "backslashreplace")
        .decode()
    )


def cell(text: str) -> str:
    """Text for a cell of a table: on one line, and with an apostrophe before what a spreadsheet
    would take for a formula.
    """
    first = unicodedata.normalize("NFKC", text.strip()[:1])
    return ("'" if first in tuple("=+-@") or text[:1] in tuple("\t\r\n") else "") + shown(text)


def nearest(word: object, words: Iterable[object]) -> str:
    """`; did you mean 'face'?` where one of the words is like this one, else nothing."""
    names = {str(name).lower(): str(name) for name in words}
    near = difflib.get_close_matches(str(word).lower(), names, 1)
    return f"; did you mean {names[near[0]]!r}?" if near else ""
