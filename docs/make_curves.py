"""The figure of the model card: losses and balance of the face net's last three passes.

From the logs that `mtrestore train` left in runs/.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

ROOT, BLOCK = Path(__file__).parents[1], 8  # logged steps in each moving mean


def main() -> None:
    figure, (pixel, adversarial, balance) = plt.subplots(
        1, 3, figsize=(13, 3.2), layout="constrained"
    )
    first = 0
    for name in ("face_fidelity", "face_gan", "face"):
        rows = [
            json.loads(line)
            for line in (ROOT / "runs" / name / "log.jsonl").read_text().splitlines()
        ]
        for axis, key, style in (
            (pixel, "pixel", "-"),
            (adversarial, "adversarial", "-"),
            (adversarial, "critic", "--"),
            (balance, "balance", "-"),
        ):
            kept = [(first + r["step"], r["losses"][key]) for r in rows if key in r["losses"]]
            if kept:
                steps, values = np.array(kept).T
                padded = np.pad(values, (BLOCK // 2, BLOCK - 1 - BLOCK // 2), mode="edge")
                axis.plot(
                    steps,
                    np.convolve(padded, np.ones(BLOCK) / BLOCK, "valid"),
                    style,
                    label=f"{name}, {key}",
                )
        first += rows[-1]["step"]
    for axis, title in (
        (pixel, "pixel loss"),
        (adversarial, "adversarial losses"),
        (balance, "share of verdicts that are right"),
    ):
        axis.set(title=title, xlabel="step")
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    figure.savefig(ROOT / "docs/face_training.png", dpi=80)


if __name__ == "__main__":
    main()
