"""A training's log as a small table.

    python experiments/training_log.py RUN OUT.csv [--batch 16] [--rows 200]

Means of what `mtrestore train` logged, over as many stretches as there are rows: step, pictures
shown, hours, each loss.
"""

import argparse
import json
from pathlib import Path

import pandas as pd


def table(lines: list[str], batch: int, rows: int) -> pd.DataFrame:
    """The log's lines -> at most `rows` rows of means; hours go on where a run was resumed."""
    records = [json.loads(line) for line in lines]
    frame = pd.DataFrame(
        [{"step": r["step"], "seconds": r["seconds"], **r["losses"]} for r in records]
    )
    spent = frame["seconds"].diff().fillna(frame["seconds"])
    frame.insert(1, "pictures", frame["step"] * batch)
    frame.insert(2, "hours", spent.where(spent >= 0, frame["seconds"]).cumsum() / 3600)
    stretch = (frame.index * rows) // max(len(frame), rows)
    means = frame.drop(columns="seconds").groupby(stretch).mean()
    last = frame.groupby(stretch)[["step", "pictures", "hours"]].last()
    return means.assign(**{name: last[name] for name in last})


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("run", type=Path, help="the run's folder, with log.jsonl")
    ask.add_argument("out", type=Path)
    ask.add_argument(
        "--batch", type=int, default=16, help="pictures in a step (default: %(default)s)"
    )
    ask.add_argument("--rows", type=int, default=200, help="(default: %(default)s)")
    args = ask.parse_args()
    lines = (args.run / "log.jsonl").read_text().splitlines()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    table(lines, args.batch, args.rows).to_csv(args.out, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
