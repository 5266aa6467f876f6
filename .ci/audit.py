"""What is known against our code (bandit) and against the pinned packages (pip-audit).

    make audit

Exit 0: both were asked and know nothing. 1: something was found. 3: nothing was found, but the
database (or a tool) could not be asked: NOT CHECKED is not the same as clean. A database counts
only when it knows the faults of an old version that everybody knows: a package mirror answers too,
with "not found", and pip-audit takes that for a pass.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.prefix) / "audit"
PINNED = ("bandit==1.9.4", "pip-audit==2.10.1")
FAULTY = "pillow==8.0.0"  # has dozens of advisories
SERVICES = ("pypi", "osv")


def tool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """A module of the tools' folder, run with our Python."""
    env = {**os.environ, "PYTHONPATH": str(TOOLS)}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=env, capture_output=True, text=True
    )


def advisories(pins: Path, service: str) -> dict[str, list[str]] | None:
    """name==version -> its advisories, None if not looked up; None alone if nothing answered."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "audit.json")
        words = (
            "--no-deps",
            "--disable-pip",
            "--progress-spinner",
            "off",
            "-s",
            service,
            "-f",
            "json",
            "-o",
            out,
        )
        tool("pip_audit", "-r", pins, *words)
        packages = json.loads(out.read_text("utf-8"))["dependencies"] if out.is_file() else None
    if packages is None:
        return None
    return {
        f"{p['name']}=={p.get('version', '')}": None
        if "vulns" not in p
        else [v["id"] for v in p["vulns"]]
        for p in packages
    }


def answers(service: str) -> bool:
    """Whether a database knows what everybody knows."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder, "pins.txt")
        pins.write_text(FAULTY)
        return any((advisories(pins, service) or {}).values())


def audit() -> int:
    install = ("pip", "install", "-q", "--disable-pip-version-check", "--target", TOOLS, *PINNED)
    if (
        not (TOOLS / "bandit").is_dir()
        and subprocess.run([sys.executable, "-m", *install], stderr=subprocess.DEVNULL).returncode
    ):
        print(f"audit: NOT CHECKED, {' and '.join(PINNED)} cannot be installed here")
        return 3
    code = tool(
        "bandit", "-q", "-ll", "-r", "mtrestore", "experiments", "benchmarks", "tests/long", ".ci"
    )
    print(code.stdout, end="")
    flaws = "findings are above" if code.returncode else "bandit finds nothing of medium severity"
    print(f"audit: our code: {flaws}")
    service = next((name for name in SERVICES if answers(name)), None)
    if service is None:
        names = ", ".join(SERVICES)
        print(f"audit: packages: NOT CHECKED, no database of advisories answers ({names})")
        return 1 if code.returncode else 3
    known = advisories(ROOT / "constraints.txt", service) or {}
    bad = {pin: ids for pin, ids in known.items() if ids}
    missing = [pin for pin, ids in known.items() if ids is None]
    for pin, ids in bad.items():
        print(f"   {pin}: {', '.join(ids)}")
    asked = f"{len(known) - len(missing)} looked up at {service}, {len(bad)} with advisories"
    print(f"audit: packages: {asked}, {len(missing)} NOT CHECKED {missing or ''}")
    return 1 if bad or code.returncode else 3 if missing or not known else 0


if __name__ == "__main__":
    sys.exit(audit())
