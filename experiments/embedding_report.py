"""Does the embedding know people? Neutral and smiling pictures of the 68 London sitters, who were not in its training.

    python experiments/embedding_report.py --data ../shared/data

Prints the share of (same, other) comparisons that are ordered rightly (area under the ROC curve) and the rate at which the nearest of all
pictures of the other expression is the same person.
"""

import argparse
from pathlib import Path

import numpy as np

from mtrestore import metrics
from mtrestore.crop import landmark_crop
from mtrestore.training import batches as data


def main() -> None:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds train_faces/")
    args = ask.parse_args()
    faces = {
        row["file"]: landmark_crop(points, size=256).cut(photo)
        for row, photo, points in data.labelled_faces(args.data / "train_faces", ["london512"])
    }
    people = sorted(
        f for f in faces if f.endswith("_neu.jpg") and f.replace("_neu", "_smi") in faces
    )
    neutral, smiling = (
        metrics.embedded([faces[f.replace("_neu", kind)] for f in people])
        for kind in ("_neu", "_smi")
    )
    likeness = neutral @ smiling.T
    same, other = np.diag(likeness), likeness[~np.eye(len(people), dtype=bool)]
    print(
        f"{len(people)} people; cosine of the same person {same.mean():.3f}, of two people {other.mean():.3f}"
    )
    print(
        f"ordered rightly {np.mean(same[:, None] > other[None]):.4f}; nearest is the same person {np.mean(likeness.argmax(1) == np.arange(len(people))):.3f}"
    )


if __name__ == "__main__":
    main()
