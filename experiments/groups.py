"""Who is restored how well: gain and identity distance of the shipped face net by age, sex and
skin, where the manifest knows them.

    python experiments/groups.py DATA/dev_eval

Groups are small: read the interval (95 %, bootstrapped over people) before the mean.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from mtrestore import image, metrics, weights
from mtrestore.lab import evaluate
from mtrestore.training import batches as data


def groups_of(row: dict[str, str]) -> list[str]:
    """The groups a manifest row belongs to; ratings run from 0 to 100, skin on the source's own
    scale.
    """
    found = []
    if row.get("apparent_age") not in (None, "", "NA"):
        age = float(row["apparent_age"])
        found.append("age below 30" if age < 30 else "age 30 to 50" if age < 50 else "age from 50")
    sex = row.get("gender") or (
        ""
        if not row.get("gender_rating")
        else "male"
        if float(row["gender_rating"]) > 50
        else "female"
    )
    found += [sex] if sex else []
    found += [f"ethnicity {row['ethnicity']}"] if row.get("ethnicity") else []
    if row.get("skin_rating"):
        found.append(
            "skin rating below 40" if float(row["skin_rating"]) < 40 else "skin rating from 40"
        )
    return ["all", *found]


def main() -> None:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument(
        "folder", type=Path, help="holds manifest.csv and faces_clean/ with mesh468.npz"
    )
    ask.add_argument("--net", default="face", help="a shipped name or a .safetensors file")
    ask.add_argument("--severity", default="severe")
    ask.add_argument("--seeds", type=int, default=3)
    args = ask.parse_args()
    with np.load(args.folder / "faces_clean/mesh468.npz") as labels:
        names = [n.split("/")[-1] for n in labels["names"].tolist() for _ in range(args.seeds)]
    rows = {r["file"].split("/")[-1]: r for r in data.manifest(args.folder, ["faces_clean"])}
    net, told = weights.load(args.net), {}
    cases = evaluate.face_cases(args.folder / "faces_clean", args.severity, range(args.seeds))
    for name, (poor, truth, _) in zip(names, cases, strict=True):
        with torch.inference_mode():
            out = image.to_photo(net(image.to_tensor(poor)))
        gain = metrics.psnr(out, truth) - metrics.psnr(poor, truth)
        nearer = metrics.identity_distance(poor, truth) - metrics.identity_distance(out, truth)
        for group in groups_of(rows[name]):
            told.setdefault(group, {}).setdefault(rows[name]["person"] or name, []).append(
                (gain, nearer)
            )
    print(
        f"| {args.severity} | people | gain dB | identity distance lowered by |\n|---|---|---|---|"
    )
    for group, people in told.items():
        values = np.array([np.mean(v, 0) for v in people.values()])
        draws = values[
            np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
        ].mean(1)
        low, high = np.percentile(draws, (2.5, 97.5), axis=0)
        mean = values.mean(0)
        cells = " | ".join(
            f"{m:+.3f} ({a:+.3f} to {b:+.3f})" for m, a, b in zip(mean, low, high, strict=True)
        )
        print(f"| {group} | {len(values)} | {cells} |")


if __name__ == "__main__":
    main()
