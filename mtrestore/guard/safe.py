"""Switched off before anything else is imported: code from the current folder, and what
dependencies send or keep unasked.

An album is data, also where it holds a signal.py. Python looks into the current folder where a
program starts as `python -m` or `python -c`, as worker processes do; so each process that we start
has PYTHONSAFEPATH, and `python -m mtrestore` leaves the folder out. Until that is done this module
imports only what every Python has loaded by itself.
"""

import os
import sys

OURS = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)  # the folder that holds the package stays on the path
SWITCHES = {
    # onnxruntime keeps a device number and a queue of events, and looks their collector up
    "ORT_DISABLE_TELEMETRY": "1",
    # numba's default, said here, since ./.numba_config.yaml could name a folder of pickles
    "NUMBA_CACHE_DIR": "",
    "NUMBA_CACHE_LOCATOR_CLASSES": "",
}


def here() -> str:
    """The current folder, or nothing where it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def as_module() -> bool:
    """Is this `python -m mtrestore` or `python -m mtrestore.lab.execute`? While a package is looked
    up, argv[0] is -m.
    """
    if sys.flags.safe_path or sys.argv[:1] != ["-m"]:
        return False
    name = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
    return name.partition(".")[0] == "mtrestore"


if as_module() and sys.path[:1] == [here()] != [OURS]:
    del sys.path[0]
for _name, _value in SWITCHES.items():
    os.environ.setdefault(_name, _value)  # a setting of the user's own wins

import contextlib  # noqa: E402
from collections.abc import Iterator  # noqa: E402


def inherited() -> list[str]:
    """The folders of PYTHONPATH, without the empty and relative ones: those are other folders for
    each process.
    """
    return [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(p)]


def environment() -> dict[str, str]:
    """What a process's environment needs so that it imports nothing from where it starts."""
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(inherited())}


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Inside, neither this process nor one that it starts imports from the current folder.

    `import site` is Python's own matter.
    """
    given, path = os.environ.get("PYTHONPATH", ""), list(sys.path)
    from_relative = (
        {os.path.abspath(p) for p in given.split(os.pathsep) if not os.path.isabs(p)}
        if given
        else set()
    )
    before = {name: os.environ.get(name) for name in environment()}
    os.environ.update(environment())
    sys.path[:] = [p for p in path if p == OURS or (os.path.isabs(p) and p not in from_relative)]
    try:
        yield
    finally:
        sys.path[:] = path
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
