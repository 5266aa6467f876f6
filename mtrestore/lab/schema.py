"""What the files of a run and a bundle may hold: each is checked for its shape where it is read.

    read(path, STATUS)          # what the JSON file says, or a ValueError of one line
    check(found, BUNDLE, name)  # the same for what was read already

A shape is a `Kind`, [shape] for a list, {str: shape} for a mapping of any names, {"name": shape,
"more?": shape} for one of these names (what else it has is left alone), or a tuple of shapes, any
of which fits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from ..io import files
from ..io.text import shown

MOST_BYTES, MOST_DEPTH = 16 << 20, 8
MOST_NUMBER = 1e30
MOST_PARTS = {"metrics": 64, "by": 64, "varied": 256, "arms": 2000, "table": 2000, "runs": 20_000}


class Kind(NamedTuple):
    """A kind of plain value, in words and as a test."""

    words: str
    test: Callable[[Any], bool]


def is_number(value: Any, most: float = MOST_NUMBER) -> TypeGuard[float]:
    return type(value) in (int, float) and abs(value) <= most  # NaN is not


def is_text(value: Any) -> bool:
    """Whether it is text that UTF-8 can say, and not a book."""
    short = isinstance(value, str) and len(value) <= 20_000
    return short and not re.search("[\ud800-\udfff]", value)


def is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool) or is_number(value) or is_text(value)


def is_plain(value: Any, depth: int = MOST_DEPTH) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(is_text(k) and is_plain(v, depth - 1) for k, v in value.items())
    if isinstance(value, list):
        return depth > 0 and all(is_plain(v, depth - 1) for v in value)
    return is_scalar(value)


def is_estimate(value: Any) -> bool:
    """[mean, low, high, pictures, seeds]; low and high are null together."""
    if not isinstance(value, list) or len(value) != 5 or (value[1] is None) != (value[2] is None):
        return False
    numbers = all(v is None or is_number(v, 1e60) for v in value[:3])
    return numbers and all(type(v) is int and is_number(v) for v in value[3:])


def is_points(value: Any) -> bool:
    """[[step, value], ...]; what was not finite is null."""
    if not isinstance(value, list) or not all(isinstance(p, list) and len(p) == 2 for p in value):
        return False
    return all(is_number(step) and (v is None or is_number(v)) for step, v in value)


def is_picture(value: Any) -> bool:
    pattern = r"data:image/(png|jpeg|webp|svg\+xml);base64,[A-Za-z0-9+/]+=*"
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


NULL = Kind("null", lambda v: v is None)
TEXT = Kind("text", is_text)
NUMBER = Kind("a finite number", is_number)
SCALAR = Kind("text, a finite number, true, false or null", is_scalar)
PLAIN = Kind("plain values", is_plain)
ESTIMATE = Kind("[mean, low, high, pictures, seeds]", is_estimate)
POINTS = Kind("a list of [step, value]", is_points)
COUNT = Kind("a whole number from 1 to 4096", lambda v: type(v) is int and 1 <= v <= 4096)
INDEX = Kind("a whole number", lambda v: type(v) is int and 0 <= v < 10**6)
PICTURE = Kind("a picture inside the file (data:image/...;base64,...)", is_picture)

NUMBERS = {str: (NUMBER, NULL)}
VALUES = {str: PLAIN}
STATUS = {
    "status?": TEXT, "error?": (TEXT, NULL), "seconds?": (NUMBER, NULL), "threads?": (COUNT, NULL),
    "notebook?": (TEXT, NULL), "sha256?": (TEXT, NULL), "parameters?": VALUES,
}  # fmt: skip
MADE = {
    "git?": (VALUES, NULL), "versions?": VALUES, "weights?": VALUES, "hardware?": VALUES,
}  # fmt: skip
RUN = {"notebook?": (TEXT, NULL), "sha256?": (TEXT, NULL), "parameters?": VALUES, **MADE}
ROWS = [{str: SCALAR}]
CURVES = {str: POINTS}
REPORT = {
    "title?": TEXT, "question?": TEXT, "arm?": TEXT, "baseline?": SCALAR, "by?": [TEXT],
    "metrics?": [TEXT], "lower?": [TEXT],
}  # fmt: skip
SWEEP = {"report?": (REPORT, NULL), "grid?": ({str: [PLAIN]}, NULL), "seeds?": ([PLAIN], NULL)}
ENTRY = {
    **STATUS, "run": TEXT, "metrics": NUMBERS, "parameters": VALUES, "made?": (INDEX, NULL),
}  # fmt: skip
REPEATABLE = {"runs": [ENTRY], "made?": [MADE]}  # what `rerun` asks of a bundle
BUNDLE = {
    "name": TEXT, "title": TEXT, "question": TEXT, "arm": TEXT, "baseline": SCALAR,
    "arms": [SCALAR], "by": [TEXT], "metrics": [TEXT], "lower": [TEXT], "varied": {str: [PLAIN]},
    "fixed": VALUES, "made": [{str: (VALUES, SCALAR)}], "figures": {str: PICTURE},
    "planned?": INDEX,
    "runs": [{**ENTRY, "status": TEXT, "error": (TEXT, NULL), "seconds": (NUMBER, NULL),
              "notebook": (TEXT, NULL), "sha256": (TEXT, NULL),
              "rows": {str: [SCALAR]}, "curves": CURVES}],
    "table": [{"part": TEXT, "metric": TEXT, "arm": SCALAR, "mean": ESTIMATE,
               "difference": (ESTIMATE, NULL)}],
    "pictures": [{"place": TEXT, "name": TEXT, "arm": SCALAR, "value": (NUMBER, NULL),
                  "width": COUNT, "height": COUNT, "before": PICTURE, "after": PICTURE}],
}  # fmt: skip


def misfit(value: Any, shape: Any) -> tuple[str, str] | None:
    """(where it is, what was expected there) of the first part that has not this shape, or None."""
    if isinstance(shape, Kind):
        return None if shape.test(value) else ("", shape.words)
    if isinstance(shape, tuple):
        wrong = [w for each in shape if (w := misfit(value, each))]
        return None if len(wrong) < len(shape) else max(wrong, key=lambda w: len(w[0]))
    if isinstance(shape, list):
        if not isinstance(value, list):
            return "", "a list"
        parts = [(f"[{i}]", v, shape[0]) for i, v in enumerate(value)]
    else:
        if not isinstance(value, dict):
            return "", "a mapping"
        parts = []
        for name, each in shape.items():
            if name is str:
                parts += [(f".{k}" if is_text(k) else ".?", v, each) for k, v in value.items()]
                if odd := [k for k in value if not is_text(k)]:
                    return f".{odd[0]!r}"[:40], "a name that is text"
            elif name.rstrip("?") in value:
                parts.append((f".{name.rstrip('?')}", value[name.rstrip("?")], each))
            elif not name.endswith("?"):
                return f".{name}", "there to be something"
    for name, part, each in parts:
        if wrong := misfit(part, each):
            return name + wrong[0], wrong[1]
    return None


def check(value: Any, shape: Any, who: object) -> Any:
    """The value, if it has this shape; else ValueError that says where not, in one line."""
    if wrong := misfit(value, shape):
        place = wrong[0].lstrip(".")[:80] or "what it holds"
        raise ValueError(shown(f"{who} is damaged: expected {place} to be {wrong[1]}"))
    return value


def read(path: Path, shape: Any) -> Any:
    """What a JSON file says, NaN as null, checked; raises ValueError of one line, or ImageError."""
    try:
        data = files.read_bytes(path, MOST_BYTES)
        value = json.loads(data.decode(), parse_constant=lambda _: None)
    except files.ImageError:
        raise
    except (ValueError, RecursionError) as e:
        raise ValueError(shown(f"{path} is damaged: it is no JSON that can be read")) from e
    return check(value, shape, path)


def read_any(path: Path, shape: Any) -> Any:
    """`read`, or None where there is no such file."""
    return read(path, shape) if path.exists() else None


def consistent(bundle: dict[str, Any], who: object) -> dict[str, Any]:
    """A bundle, if its parts fit together and are a page's worth; raises ValueError."""
    for name, most in MOST_PARTS.items():
        if len(bundle[name]) > most:
            raise ValueError(shown(f"{who}: it has more than {most} {name}; report fewer"))
    for run in bundle["runs"]:
        if len(set(map(len, run["rows"].values()))) > 1:
            raise ValueError(shown(f"{who} is damaged: columns of {run['run']} differ in length"))
    check_scalars(bundle["runs"], [bundle["arm"], *bundle["by"]], who)
    if any(p["value"] is not None for p in bundle["pictures"]) and not bundle["metrics"]:
        raise ValueError(f"{who} is damaged: its pictures have values, and it has no metrics")
    return bundle


def check_scalars(runs: list[dict], names: list[str | None], who: object) -> None:
    """Raises ValueError where a parameter that is compared is a list."""
    for name in ("seed", "picture", *names):
        if not all(is_scalar(run["parameters"].get(name)) for run in runs):
            wish = "a number or a text, not a list; name another in the report block"
            raise ValueError(shown(f"{who}: {name} is compared, so it must be {wish}"))
