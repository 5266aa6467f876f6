"""The pins written anew: requirements.lock with hashes for all systems, constraints.txt without.

    make lock                                 # the same versions, and what pyproject.toml asks anew
    make lock ARGS=--upgrade                  # the newest versions that the ranges admit
    make lock ARGS="--upgrade-package pillow"

torch is the exception: its version stands in the Makefile, and the user chooses its index.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCHS = ("torch", "nvidia-", "cuda-", "triton")  # its build for GPUs brings the others
LOCK = """\
# Every package but torch, with the sha256 of each file that PyPI has of that version, for Python
# 3.11 to 3.13 on Linux with glibc (x86-64, ARM), Windows and macOS 14 (ARM). Only wheels are taken:
# no code of others runs to install them.
# Made by `make lock`, installed by `make setup`:
#     python -m pip install --require-hashes --no-deps -r requirements.lock
--only-binary :all:
"""
PINS = """\
# The versions of requirements.lock, and torch, for installs without hashes (environment.yml):
#     python -m pip install -c constraints.txt -e ".[dev]"
# Made by `make lock`. torch is whichever build the chosen index offers, such as +cpu.
"""


def blocks(text: str) -> dict[str, str]:
    """name==version -> its lines in a file with hashes: version, marker, a hash on each line."""
    matches = re.finditer(r"^([\w.-]+==[\w.]+).*(?:\n +--hash=.*)+\n", text, re.MULTILINE)
    return {match[1]: match[0] for match in matches}


def main() -> int:
    (torch,) = set(re.findall(r"torch==[\d.]+", (ROOT / "Makefile").read_text("utf-8")))
    with tempfile.TemporaryDirectory() as folder:
        out, fixed = Path(folder, "lock.txt"), Path(folder, "torch.txt")
        out.write_text(
            (ROOT / "constraints.txt").read_text("utf-8")
        )  # versions that stand there stay
        fixed.write_text(torch)
        options = (
            "--universal",
            "--python-version",
            "3.11",
            "--fork-strategy",
            "fewest",
            "--only-binary",
            ":all:",
        )
        style = ("--all-extras", "--generate-hashes", "--no-annotate", "--no-header", "--quiet")
        command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", *options, *style]
        done = subprocess.run([*command, "-c", fixed, "-o", out, *sys.argv[1:]], cwd=ROOT)
        if done.returncode:
            return done.returncode
        pins = blocks(out.read_text("utf-8"))
    names = sorted(pins)
    names = [name for name in names if not name.startswith(TORCHS)]
    locked = [pins[name] for name in names]
    (ROOT / "requirements.lock").write_text(LOCK + "".join(locked), "utf-8")
    (ROOT / "constraints.txt").write_text(
        PINS + "".join(f"{pin}\n" for pin in sorted([*names, torch])), "utf-8"
    )
    hashes = sum(pin.count("--hash") for pin in locked)
    print(f"{len(locked)} packages in requirements.lock, with {hashes} hashes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
