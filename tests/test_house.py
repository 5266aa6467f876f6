"""The rules of the house: which room knows which, and who touches the disk.

Read from the syntax tree, imports in functions too.
"""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mtrestore"
MODULES = sorted(str(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py"))
ROOMS = {"app", "degrade", "fast", "folder", "guard", "io", "lab", "nets", "training"}
CORE = {name for name in MODULES if "/" not in name} - {"cli.py", "__main__.py", "_moved.py"}
FLAT = {name.removesuffix(".py") for name in CORE} | {"_moved"}

# What breaks a rule today: (module, what it knows) -> why it is borne.
BORNE = {
    ("io/claims.py", "folder.names"): "names of outputs and of state folders; to be turned round",
}

# Modules beside io/ that touch the disk themselves -> the calls. The guard: what is no file of
# anybody's (/proc, the null device), and temporary files when the process has to end.
DISK = {
    "guard/forks.py": {"open"},
    "guard/terminal.py": {"os.open"},
    "guard/watchdog.py": {"open", "os.unlink"},
    "guard/lock.py": {"FileLock"},  # the one lock
    # Standard output in the place of a closed one.
    "folder/run.py": {"os.open"},
    # What is shipped beside the code or named by the user as data, read only; the system's own.
    "cli.py": {"read_text"},
    "lab/evaluate.py": {"np.load"},
    "training/batches.py": {"open", "np.load"},
    # A session's own folder; a result is opened to be sent, and stays whole meanwhile.
    "app/desk.py": {"tempfile.TemporaryDirectory"},
    "app/server.py": {"open"},
    # Folders and flags of experiments: made, emptied, locked; contents go through io.
    "fast/onnx.py": {"mkdir"},
    "lab/execute.py": {"mkdir", "unlink", "shutil.rmtree", "tempfile.TemporaryDirectory"},
    "lab/record.py": {"mkdir", "read_text"},  # and /proc/cpuinfo
    "lab/repeat.py": {"tempfile.TemporaryDirectory"},
    "lab/sweep.py": {"mkdir", "touch", "unlink", "rename"},
    "lab/workbench.py": {"tempfile.TemporaryDirectory", "write_bytes"},  # an upload, in its own
    # The log is appended to, old checkpoints are removed.
    "training/logbook.py": {"mkdir", "open", "read_text", "unlink"},
    "training/settings.py": {"mkdir"},
}


def tree_of(name: str) -> ast.Module:
    return ast.parse((PACKAGE / name).read_text("utf-8"))


def imports(tree: ast.AST, name: str) -> set[str]:
    """Dotted names that a module imports: those of the package begin with a dot, `.io.files`."""
    folder = name.split("/")[:-1]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) + 1 - node.level]
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f".{base}.{alias.name}" if base else f".{alias.name}" for alias in node.names}
    return {"." + n.removeprefix("mtrestore.") if n.startswith("mtrestore.") else n for n in names}


def known(tree: ast.AST, name: str) -> set[str]:
    """Rooms and modules of the core that a module knows, without its own room."""
    own = name.split("/")[0].removesuffix(".py")
    first = {n[1:].split(".")[0] for n in imports(tree, name) if n.startswith(".")}
    return {n for n in first if n in ROOMS or f"{n}.py" in MODULES} - {own}


def breaches(name: str, allowed: set[str]) -> set[str]:
    """What a module of the package knows beyond what it may, and is not borne."""
    borne = {what.split(".")[0] for module, what in BORNE if module == name}
    return known(tree_of(name), name) - allowed - borne


def of(room: str) -> list[str]:
    return [name for name in MODULES if name.startswith(f"{room}/")]


def test_nets_know_torch_and_the_standard_library():
    for name in of("nets"):
        tree = tree_of(name)
        outside = {n.split(".")[0] for n in imports(tree, name) if not n.startswith(".")}
        assert outside <= sys.stdlib_module_names | {"torch"} and not breaches(name, set()), name


def test_the_core_knows_no_folder_no_lab_and_no_training():
    for name in sorted(CORE):
        assert not breaches(name, {*ROOMS, *FLAT} - {"app", "folder", "lab", "training"}), name


def test_a_training_knows_no_pipeline_no_lab_and_no_folder():
    for name in of("training"):
        assert not breaches(name, {*ROOMS, *FLAT} - {"pipeline", "lab", "folder", "app"}), name


def test_io_knows_itself_and_the_guard():
    for name in of("io"):
        assert not breaches(name, {"guard"}), name


def test_the_guard_knows_itself_and_io():
    for name in of("guard"):
        assert not breaches(name, {"io"}), name


def test_degradations_know_the_guard_alone():
    for name in of("degrade"):
        assert not breaches(name, {"guard"}), name


def test_the_command_imports_rooms_inside_functions():
    """Only what must stand before anything else: import path, terminal, printable text, options."""
    top = [n for n in tree_of("cli.py").body if isinstance(n, (ast.Import, ast.ImportFrom))]
    assert known(ast.Module(top, []), "cli.py") == {"guard", "io", "options"}
    assert known(tree_of("cli.py"), "cli.py") >= {"app", "folder", "lab", "training", "pipeline"}


def test_the_app_knows_no_lab_and_no_training_and_nobody_knows_the_app():
    for name in of("app"):
        assert not breaches(name, {*ROOMS, *FLAT} - {"lab", "training"}), name
    for name in [name for name in MODULES if not name.startswith("app/") and name != "cli.py"]:
        assert "app" not in known(tree_of(name), name), name


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_says_at_its_door_what_may_be_touched(room):
    words = ast.get_docstring(tree_of(f"{room}/__init__.py"))
    assert "May be touched:" in words


# ---- the disk ----------------------------------------------------------------------------------

METHODS = {"read_text", "write_text", "read_bytes", "write_bytes", "touch", "symlink_to"}
METHODS |= {"unlink", "rename", "mkdir", "rmdir", "hardlink_to"}
FUNCTIONS = {"open", "os.open", "os.write", "os.replace", "os.rename", "os.link", "os.symlink"}
FUNCTIONS |= {"os.unlink", "os.remove", "os.mkdir", "os.makedirs", "os.rmdir", "os.ftruncate"}
FUNCTIONS |= {"shutil.rmtree", "shutil.copy", "shutil.copy2", "shutil.move", "shutil.copytree"}
FUNCTIONS |= {"shutil.copyfile", "np.load", "np.save", "np.savez", "tempfile.mkdtemp"}
FUNCTIONS |= {"tempfile.TemporaryDirectory", "tempfile.NamedTemporaryFile", "filelock.FileLock"}
DOORS = {"files", "image"}  # read_bytes and write_bytes of io, under the names it is known by


def touches(tree: ast.AST) -> set[str]:
    """The calls that reach the disk without io."""
    calls = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        owner, _, method = name.rpartition(".")
        if name in FUNCTIONS or name == "FileLock":
            calls.add(name)
        elif method in METHODS and owner and owner not in DOORS:
            calls.add(method)
        elif method == "open" and owner not in ("os", "io"):
            calls.add(method)
    return calls


def test_only_io_touches_the_disk():
    for name in [name for name in MODULES if not name.startswith("io/")]:
        assert touches(tree_of(name)) <= DISK.get(name, set()), name


@pytest.mark.parametrize(
    "line",
    ["open(p)", "p.open()", "p.write_text(s)", "Path(p).read_bytes()", "os.replace(a, b)"]
    + ["shutil.rmtree(p)", "np.load(p)", "p.unlink()", "f().mkdir()", "FileLock(p)"],
)
def test_the_search_finds_what_touches_the_disk(line):
    assert touches(ast.parse(line))


@pytest.mark.parametrize("line", ["image.write_bytes(p, b)", "files.read_bytes(p)", "os.stat(p)"])
def test_the_search_leaves_the_doors_alone(line):
    assert not touches(ast.parse(line))


@pytest.mark.parametrize(
    "line, names",
    [
        ("from ..lab import record", {"lab"}),
        ("def f():\n    from .. import pipeline", {"pipeline"}),
        ("import mtrestore.folder.run", {"folder"}),
        ("from mtrestore.io.files import head", {"io"}),
        ("from . import fit\nimport os", set()),
    ],
)
def test_the_search_finds_what_a_module_knows(line, names):
    assert known(ast.parse(line), "training/x.py") == names
