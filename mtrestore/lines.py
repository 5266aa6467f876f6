"""Text from outside on one printable line: errors, file names and metadata, safe for a terminal and for a table."""


def one_line(e: BaseException) -> str:
    """An error as at most 500 characters on one line; its kind where it says nothing."""
    return " ".join(str(e).split())[:500] or type(e).__name__


def shown(text: str) -> str:
    """Text that is safe to print on one line of a terminal, whatever a file was called."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text).encode("utf-8", "backslashreplace").decode()
