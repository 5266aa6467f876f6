"""Do the judges of identity know people? 68 London sitters, neutral and smiling.

    python experiments/embedding_report.py --data DATA

None of the nets was trained on these people. For our own embedding and for each net of others that
is installed (mtrestore/training/likeness.py) it prints the share of (same, other) comparisons that
are ordered rightly (area under the ROC curve), and the rate at which the nearest of all pictures of
the other expression is the same person.
"""

import argparse
from pathlib import Path

import numpy as np

from mtrestore import metrics
from mtrestore.crop import landmark_crop
from mtrestore.training import batches as data
from mtrestore.training import likeness


def main() -> None:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("--data", type=Path, metavar="FOLDER", help="needed: it holds train_faces/")
    args = ask.parse_args()
    if args.data is None:
        raise SystemExit("give --data FOLDER, the folder that holds train_faces/")
    rows = list(data.labelled_faces(args.data / "train_faces", ["london512"]))
    words = {row["file"]: likeness.described(photo, points) for row, photo, points in rows}
    for row, photo, points in rows:
        words[row["file"]]["ours"] = metrics.embedded([landmark_crop(points, size=256).cut(photo)])[
            0
        ]
    people = sorted(
        f for f in words if f.endswith("_neu.jpg") and f.replace("_neu", "_smi") in words
    )
    for name in words[people[0]]:
        neutral, smiling = (
            np.array([words[f.replace("_neu", kind)][name] for f in people])
            for kind in ("_neu", "_smi")
        )
        far = np.linalg.norm(neutral[:, None] - smiling[None], axis=-1)
        same, other = np.diag(far), far[~np.eye(len(people), dtype=bool)]
        right, nearest = (
            np.mean(same[:, None] < other[None]),
            np.mean(far.argmin(1) == np.arange(len(people))),
        )
        print(f"{name}, {len(people)} people")
        print(f"  one person  {same.mean():.3f}, at most {same.max():.3f}")
        print(f"  two people  {other.mean():.3f}, at least {other.min():.3f}")
        print(f"  ordered rightly {right:.4f}, nearest is the same {nearest:.3f}")


if __name__ == "__main__":
    main()
