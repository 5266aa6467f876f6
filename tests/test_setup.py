"""What installing and shipping promise: ranges and pins agree, one torch and one cv2, small files,
nothing unsafe in the package.
"""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
CORE = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
ALL = CORE + [Requirement(line) for extra in EXTRAS.values() for line in extra]
LINES = [
    line
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
PINS = dict(
    (canonicalize_name(name), version) for name, version in (line.split("==") for line in LINES)
)
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
SOURCES = sorted((ROOT / "mtrestore").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Where the name to import is not the name to install.
INSTALLED_AS = {
    "cv2": "opencv-python",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
    "mtcnnruntime": "mtcnn-runtime",
}


def shipped() -> list[Path]:
    """Every file that git tracks or would; without git (an unpacked archive), those below the
    folders that are ours.
    """
    try:
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.split(
            b"\0"
        )
        paths = [ROOT / os.fsdecode(name) for name in names if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [
            path
            for folder in ("mtrestore", "notebooks", "experiments", "benchmarks", "tests")
            for path in (ROOT / folder).rglob("*")
        ]
    return [path for path in paths if path.is_file()]


# Versions


def test_every_range_has_a_lower_end_and_a_pin_inside_it():
    for requirement in ALL:
        assert any(part.operator in (">=", "==", "~=") for part in requirement.specifier), (
            f"{requirement} admits any old version"
        )
        name = canonicalize_name(requirement.name)
        assert name in PINS, f"{requirement} has no pin in constraints.txt"
        assert PINS[name] in requirement.specifier, (
            f"constraints.txt pins {name}=={PINS[name]}, outside {requirement}"
        )


def test_every_pin_is_exact_and_stands_once():
    wrong = [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)]
    assert not wrong, "name==version, without +cpu or other local parts"
    assert len(PINS) == len(LINES)


def test_torch_is_pinned_and_what_breaks_it_is_absent():
    assert PINS["torch"] == "2.13.0"
    assert not {
        "torchvision",
        "torchaudio",
        "opencv-python-headless",
        "opencv-contrib-python",
        "mtrestore",
    } & set(PINS)


def test_pins_cover_what_the_pins_need():
    """Each installed package's own requirements are pinned too, so that an install today and one in
    a year agree.
    """
    missing = set()
    for name in PINS:
        try:
            needs = [Requirement(line) for line in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            continue
        for need in needs:
            wanted = need.marker is None or need.marker.evaluate({"extra": ""})
            if (
                wanted
                and canonicalize_name(need.name) not in PINS
                and not need.name.startswith(("nvidia", "cuda", "triton"))
            ):
                missing.add(f"{name} needs {need}")
    assert not missing


def locked(text: str) -> dict[str, tuple[str, int]]:
    """name -> (version and marker, number of hashes) in a lock; raises ValueError for a line of
    another kind.
    """
    found, name = {}, ""
    for line in text.splitlines():
        if pin := re.fullmatch(r"([\w.-]+)==([\w.]+(?: ; [^\\]+?)?) \\", line):
            name = canonicalize_name(pin[1])
            if name in found:
                raise ValueError(f"{name} stands twice")
            found[name] = (pin[2], 0)
        elif re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) and name:
            found[name] = (found[name][0], found[name][1] + 1)
        elif not line.startswith("#") and line != "--only-binary :all:":
            raise ValueError(f"{line!r} is no pin and no hash")
    return found


def test_every_package_but_torch_is_locked_by_its_hashes():
    versions = {name: version.split(" ")[0] for name, (version, _) in locked(LOCK).items()}
    assert versions == {name: version for name, version in PINS.items() if name != "torch"}, (
        "run make lock"
    )
    assert not [name for name, (_, hashes) in locked(LOCK).items() if hashes == 0]
    assert "--only-binary :all:" in LOCK.splitlines(), (
        "a source archive runs its own code when it is installed"
    )


@pytest.mark.parametrize(
    "line", ["pillow>=13", "pillow==13.0.0", "git+https://x/y", "    --hash=md5:00", "-e ."]
)
def test_a_lock_with_anything_else_is_noticed(line):
    with pytest.raises(ValueError):
        locked(f"{LOCK}{line}\n")


def test_other_systems_get_what_they_need_and_this_one_does_not():
    """Markers: Windows' terminals and macOS' App Nap are locked too; an install here has exactly
    what the lock says for here.
    """
    found = locked(LOCK)
    assert (
        "win32" in found["colorama"][0]
        and "nt" in found["pywinpty"][0]
        and "darwin" in found["appnope"][0]
    )
    markers = {name: version.partition(" ; ")[2] for name, (version, _) in found.items()}
    here = {name for name, marker in markers.items() if not marker or Marker(marker).evaluate()}
    assert {canonicalize_name(requirement.name) for requirement in ALL} - {"torch"} <= here
    assert "setuptools" in here, "the package itself is built with it, without looking for another"
    for minor in ("3.11", "3.12", "3.13"):
        for platform in (
            {"sys_platform": "win32", "os_name": "nt"},
            {"sys_platform": "darwin", "os_name": "posix"},
        ):
            there = {"python_version": minor, "python_full_version": f"{minor}.0", **platform}
            assert {"pillow", "setuptools"} <= {
                n for n, m in markers.items() if not m or Marker(m).evaluate(there)
            }


def test_torch_has_one_version_everywhere():
    stated = re.findall(r"torch==([\d.]+)", (ROOT / "Makefile").read_text("utf-8"))
    assert set(stated) == {PINS["torch"]}


def test_python_range_admits_this_python():
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in SpecifierSet(
        PROJECT["project"]["requires-python"]
    )
    assert "3.11" in SpecifierSet(PROJECT["project"]["requires-python"])


def test_version_is_the_same_everywhere():
    version = PROJECT["project"]["version"]
    assert re.search(
        rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    (stated,) = re.findall(
        r'^__version__ = "(.*)"$', (ROOT / "mtrestore/__init__.py").read_text("utf-8"), re.MULTILINE
    )
    assert stated == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == version


def test_environment_leaves_everything_but_python_to_pip():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert environment["channels"] == ["conda-forge"]
    conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    (pip,) = (line["pip"] for line in environment["dependencies"] if isinstance(line, dict))
    assert [re.split("[=<>]", name)[0] for name in conda] == ["python", "pip"], (
        "a cv2 or torch from conda would be a second one"
    )
    assert pip == ["-c constraints.txt", f"torch=={PINS['torch']}", "-e .[dev]"]
    (python,) = (line for line in conda if line.startswith("python="))
    assert python.split("=")[1] in SpecifierSet(PROJECT["project"]["requires-python"])


# Package


def test_all_that_is_imported_is_declared():
    extras = [
        Requirement(line)
        for name, lines in PROJECT["project"]["optional-dependencies"].items()
        if name != "dev"
        for line in lines
    ]
    declared, missing = (
        {canonicalize_name(requirement.name) for requirement in [*CORE, *extras]},
        set(),
    )
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module)
            for top in (
                {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"mtrestore"}
            ):
                if canonicalize_name(INSTALLED_AS.get(top, top)) not in declared:
                    missing.add(f"{path.name} imports {top}")
    assert not missing, "name it among the dependencies in pyproject.toml"


def test_every_package_folder_and_every_weight_is_shipped():
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in SOURCES
        if path.name == "__init__.py"
    }
    assert packages == set(PROJECT["tool"]["setuptools"]["packages"])
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["mtrestore"]
    data = {
        path
        for path in shipped()
        if path.is_relative_to(ROOT / "mtrestore") and path.suffix != ".py"
    }
    left = data - {path for pattern in patterns for path in (ROOT / "mtrestore").glob(pattern)}
    assert not left, (
        "these would be missing from a wheel: add them to package-data in pyproject.toml"
    )


def test_console_command_exists():
    module, function = PROJECT["project"]["scripts"]["mtrestore"].split(":")
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text("utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert (ROOT / "mtrestore/__main__.py").is_file(), "the Makefile calls python -m mtrestore"


# Files


def test_files_are_small_and_weights_fit_the_promise():
    large = {
        str(path.relative_to(ROOT)): path.stat().st_size
        for path in shipped()
        if path.stat().st_size > 16 << 20
    }
    assert not large, f"over 16 MiB: {large}"
    weights = sum(
        path.stat().st_size for path in (ROOT / "mtrestore/weights").glob("*.safetensors")
    )
    assert weights <= 40 << 20, (
        f"the weights are {weights / 2**20:.1f} MiB together, 40 are allowed"
    )


def test_licence_is_whole_and_names_its_holder():
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert (
        "Version 2.0, January 2004" in text
        and "END OF TERMS AND CONDITIONS" in text
        and "Copyright 2026 The mtrestore authors" in text
    )


def test_notebooks_are_committed_clean():
    """Without outputs, with stable ids, with one cell of parameters that are literals."""
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert not any(cell["outputs"] or cell["execution_count"] for cell in code), (
            f"{path.name} holds outputs: run nbstripout --keep-id"
        )
        assert all(cell.get("id") for cell in cells), f"{path.name} has a cell without id"
        (parameters,) = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
        for node in ast.parse("".join(parameters["source"])).body:
            assert isinstance(node, ast.Assign), (
                f"{path.name}: only assignments among the parameters"
            )
            ast.literal_eval(node.value)


# The two commands


@pytest.mark.parametrize(
    "target",
    [
        "help",
        "setup",
        "venv",
        "app",
        "restore",
        "test",
        "axe",
        "soak",
        "audit",
        "lock",
        "lint",
        "types",
        "bench",
        "docs",
        "notebooks",
        "clean",
    ],
)
def test_make_knows_its_targets(target):
    plan = subprocess.run(
        ["make", "-n", target], cwd=ROOT, env=outside(), capture_output=True, text=True
    )
    assert plan.returncode == 0, plan.stderr


def outside() -> dict[str, str]:
    """The environment without what a make that runs these tests has put there."""
    ours = (
        "MAKEFLAGS",
        "MAKELEVEL",
        "MFLAGS",
        "MAKEOVERRIDES",
        "PHOTO",
        "OUT",
        "ARGS",
        "WORKERS",
        "PYTHON",
        "TORCH_INDEX",
    )
    return {name: value for name, value in os.environ.items() if name not in ours}


@pytest.fixture
def toy(tmp_path):
    """A folder with a space in its name whose .venv is ready and whose Python only prints what it
    was asked.
    """
    folder = tmp_path / "a clone"
    (folder / ".venv/bin").mkdir(parents=True)
    for name in ("pyproject.toml", "requirements.lock", "Makefile"):
        (folder / name).write_text((ROOT / name).read_text("utf-8"))
    python = folder / ".venv/bin/python"
    python.write_text(
        '#!/bin/sh\nfor a in "$@"; do printf "[%s]" "$a"; done; echo; case "$*" in *fail*) exit '
        "7;; esac\n"
    )
    python.chmod(0o755)
    (folder / ".venv/.ready").touch()

    def make(*words, **env):
        return subprocess.run(
            ["make", "-s", *words], cwd=folder, env=outside() | env, capture_output=True, text=True
        )

    make.folder = folder
    return make


@pytest.mark.parametrize(
    "photo", ["old.jpg", "my photo.jpg", "it's.jpg", 'a "b".jpg', "$HOME `x` $$.jpg"]
)
def test_make_restore_hands_over_the_name_as_it_is(toy, photo):
    assert (
        toy("restore", f"PHOTO={photo}").stdout
        == f"[-m][mtrestore][restore][{photo}][-o][outputs][--html][--overwrite]\n"
    )
    assert (
        toy("restore", PHOTO=photo).stdout
        == f"[-m][mtrestore][restore][{photo}][-o][outputs][--html][--overwrite]\n"
    )


def test_make_restore_without_a_photo_runs_the_sample(toy):
    assert toy("restore", "OUT=my folder").stdout == "[-m][mtrestore][demo][-o][my folder]\n"


def test_make_test_honours_its_arguments_and_fails_with_the_tests(toy):
    assert (
        toy("test", 'ARGS=-k "crop or face"').stdout.splitlines()[-1]
        == "[-m][pytest][-n][2][-k][crop or face]"
    )
    assert toy("test", "ARGS=fail").returncode != 0


def test_make_lint_asks_for_style_and_types_and_fails_with_the_last(toy):
    python = toy.folder / ".venv/bin/python"
    python.write_text(python.read_text().replace("*fail*", "*basedpyright*"))
    lint = toy("lint")
    assert lint.stdout.splitlines() == [
        "[-m][ruff][check][.]",
        "[-m][ruff][format][--check][.]",
        "[-m][basedpyright]",
    ]
    assert lint.returncode != 0


def test_set_up_repeats_when_the_pins_change_and_only_then(toy):
    assert "pip" not in toy("lint").stdout
    ready = (toy.folder / ".venv/.ready").stat().st_mtime_ns
    os.utime(toy.folder / "requirements.lock", ns=(ready + 10**9, ready + 10**9))
    first, second = toy("lint").stdout, toy("lint").stdout
    assert [line for line in first.splitlines() if "[pip]" in line] == [
        "[-m][pip][install][--no-deps][torch==2.13.0]",  # first, so that its build can be chosen
        "[-m][pip][install][--require-hashes][--no-deps][-r][requirements.lock]",
        "[-m][pip][install][--no-deps][--no-build-isolation][-e][.]",
        "[-m][pip][install][torch==2.13.0]",  # what a build for GPUs needs
    ]
    assert "pip" in second, "the pins still look newer than the set-up"
    os.utime(toy.folder / "requirements.lock", ns=(ready, ready))
    assert "pip" not in toy("lint").stdout


def test_torch_comes_from_the_index_that_is_named_and_nothing_else_does(toy):
    (toy.folder / ".venv/.ready").unlink()
    lines = toy("setup", TORCH_INDEX="https://example.org/whl/a b").stdout.splitlines()
    named = "[--index-url][https://example.org/whl/a b][torch==2.13.0]"
    assert [line.endswith(named) for line in lines if "[install]" in line] == [
        True,
        False,
        False,
        True,
    ]
    assert sum("--index-url" in line for line in lines) == 2


def test_set_up_without_a_fitting_python_says_so_in_one_line(toy):
    (toy.folder / ".venv/bin/python").unlink()
    (toy.folder / ".venv/.ready").unlink()
    run = toy("setup", "PYTHON=no-such-python")
    assert (
        run.returncode != 0
        and run.stderr.startswith("make: needs Python 3.11")
        and run.stderr.count("\n") <= 2
    )


def test_continuous_integration_runs_make_test_and_reports_failure(toy):
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    (toy.folder / ".ci").mkdir()
    copy = toy.folder / ".ci/run"
    copy.write_text(script.read_text("utf-8"))
    copy.chmod(0o755)
    good = subprocess.run([copy], cwd="/", env=outside(), capture_output=True, text=True)
    assert good.returncode == 0 and good.stdout.splitlines()[-1].startswith("[-m][pytest]"), (
        good.stderr
    )
    bad = subprocess.run(
        [copy], cwd="/", capture_output=True, text=True, env=outside() | {"ARGS": "fail"}
    )
    assert bad.returncode != 0


# The audit


@pytest.fixture
def audit(monkeypatch):
    """.ci/audit.py with tools that answer as they are told: service -> name==version -> advisories,
    None for "not found".
    """
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci/audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.known, module.flaws = {}, 0

    def tool(*words):
        if words[0] == "bandit":
            return subprocess.CompletedProcess(words, module.flaws, "", "")
        pins, service, out = (Path(words[words.index(option) + 1]) for option in ("-r", "-s", "-o"))
        if (database := module.known.get(str(service))) is not None:
            rows = []
            for name, version in re.findall(
                r"^([\w.-]+)==([\w.]+)$", pins.read_text(), re.MULTILINE
            ):
                vulns = database.get(f"{name}=={version}", [])
                skipped = {"name": name, "skip_reason": "Dependency not found on PyPI"}
                rows.append(
                    skipped
                    if vulns is None
                    else {"name": name, "version": version, "vulns": [{"id": v} for v in vulns]}
                )
            out.write_text(json.dumps({"dependencies": rows, "fixes": []}))
        return subprocess.CompletedProcess(
            words, 0, "", "No known vulnerabilities found"
        )  # pip-audit says so of a mirror as well

    monkeypatch.setattr(module, "tool", tool)
    monkeypatch.setattr(module.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0))
    return module


def test_an_audit_that_nobody_answered_is_not_a_clean_one(audit, capsys):
    assert audit.audit() == 3
    audit.known = {"pypi": {audit.FAULTY: None}}  # a mirror: it answers, and knows nothing
    assert audit.audit() == 3
    audit.known = {"pypi": {}}  # not even what everybody knows
    assert audit.audit() == 3
    assert (
        capsys.readouterr().out.count(
            "packages: NOT CHECKED, no database of advisories answers (pypi, osv)"
        )
        == 3
    )


def test_an_audit_tells_what_is_known_and_which_packages_were_not_looked_up(audit, capsys):
    audit.known = {"osv": {audit.FAULTY: ["PYSEC-1"]}}
    assert (
        audit.audit() == 0
        and f"{len(PINS)} looked up at osv, 0 with advisories, 0 NOT CHECKED"
        in capsys.readouterr().out
    )
    audit.known["osv"]["zipp==" + PINS["zipp"]] = None
    assert audit.audit() == 3 and "1 NOT CHECKED ['zipp==']" in capsys.readouterr().out
    audit.known["osv"]["torch==" + PINS["torch"]] = ["GHSA-2", "GHSA-3"]
    assert (
        audit.audit() == 1 and f"torch=={PINS['torch']}: GHSA-2, GHSA-3" in capsys.readouterr().out
    )
    audit.known, audit.flaws = {}, 1
    assert audit.audit() == 1 and "our code: findings are above" in capsys.readouterr().out
