"""What the face prior has learned: a sheet of samples, their kernel distance to real faces, and the nearest training face of each.

    python experiments/prior_report.py --data ../shared/data --out outputs/prior

The distance is over features of our own embedding (`metrics.kernel_distance`): compare it with the line "real against real", never with an FID.
A sample whose nearest training face is as near as that of an unseen real face is not a copy.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from mtrestore import data, evaluate, image, metrics, weights
from mtrestore.crop import landmark_crop
from mtrestore.nets import Generator


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds train_faces/ and dev_eval/faces_clean/")
    ask.add_argument("--weights", default="prior", help="a shipped name or a .safetensors file")
    ask.add_argument("--size", type=int, default=64, help="px of the samples, as they were trained")
    ask.add_argument("--count", type=int, default=500, help="samples that are compared")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--out", type=Path, default=Path("outputs/prior"))
    args = ask.parse_args()

    net, random = weights.load(args.weights, Generator), torch.Generator().manual_seed(args.seed)
    with torch.inference_mode():
        made = [image.to_photo(net(net.draw(1, args.size, random))) for _ in range(args.count)]
    train = [landmark_crop(points, size=args.size).cut(photo) for _, photo, points in data.labelled_faces(args.data / "train_faces")]
    unseen = [truth for _, truth, _ in evaluate.face_cases(args.data / "dev_eval/faces_clean", "clean", (0,), args.size)]
    features = {name: metrics.embedded(faces, features=True) for name, faces in (("made", made), ("train", train), ("unseen", unseen))}
    order = np.random.default_rng(args.seed).permutation(len(train))
    half = len(train) // 2
    numbers = {
        "made against real": metrics.kernel_distance(features["made"], features["train"]),
        "real against real": metrics.kernel_distance(features["train"][order[:half]], features["train"][order[half:]]),
        "noise against real": metrics.kernel_distance(metrics.embedded([np.random.default_rng(i).random((args.size, args.size, 3), np.float32)
                                                                        for i in range(200)], features=True), features["train"]),
    }  # fmt: skip
    who = {name: metrics.embedded(faces) for name, faces in (("made", made), ("train", train), ("unseen", unseen))}
    nearest = {name: (who[name] @ who["train"].T).max(1) for name in ("made", "unseen")}
    numbers |= {f"nearest training face, {name}, mean cosine": float(v.mean()) for name, v in nearest.items()}

    args.out.mkdir(parents=True, exist_ok=True)
    image.write(args.out / "samples.png", np.concatenate([np.concatenate(made[i : i + 10], 1) for i in range(0, 60, 10)]))
    shown = np.argsort(-nearest["made"])[:10]  # the ten most suspicious
    copies = [train[int((who["made"][i] @ who["train"].T).argmax())] for i in shown]
    image.write(args.out / "nearest.png", np.concatenate([np.concatenate([made[i] for i in shown], 1), np.concatenate(copies, 1)]))
    image.write_bytes(args.out / "metrics.json", json.dumps(numbers, indent=1).encode())
    for name, value in numbers.items():
        print(f"{name:45} {value:.4f}")


if __name__ == "__main__":
    main()
