"""What the face prior has learned, in numbers and two sheets: samples.png, and nearest.png, samples
over their nearest training faces.

python experiments/prior_report.py --data DATA --out outputs/prior
python experiments/prior_report.py --data DATA --checkpoint runs/prior_64/checkpoints  # still runs

made against real      kernel distance of samples and training faces; compare it with "real against
                       real", never with an FID
faces                  share of 64 samples in which MTCNN is sure (0.9) of an upright face, eyes,
                       nose and mouth where they belong
share of s/32 ... s    how much of the samples' variance is gone when all but that random tensor are
                       held
verdict                the discriminator's mean on training faces, on faces it never saw, and on
                       samples
memory                 its lead of seen over unseen faces, as a part of its lead of seen faces over
                       samples: 0.1 is much
nearest training face  by our embedding; a sample that is as near as an unseen real face is no copy
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mtrestore import face, image, metrics, weights
from mtrestore.crop import five_from_mesh, landmark_crop
from mtrestore.io.text import one_line
from mtrestore.lab import evaluate
from mtrestore.lab.draws import variance_shares
from mtrestore.nets import Generator, SpectralCritic
from mtrestore.training import batches as data
from mtrestore.training import fit as train

FOLDERS = ("train_faces", "train_faces2")
SHARP = 0.7  # a training face is a truth at this share of the size (FaceBatches' sharpness)
SURE, PLACE = (
    0.9,
    0.1,
)  # the detector's score; how far a point may lie from the mean face's, in sides
ENLARGED = 448  # px of a sample that is shown to the detector: its face is then about 256 px


def from_checkpoint(folder: Path) -> tuple[Generator, SpectralCritic | None, int]:
    """(averaged generator, discriminator, step) of the newest checkpoint; widths are read from the
    tensors' shapes.
    """
    state = train.newest_checkpoint(folder)
    if state is None:
        raise SystemExit(
            f"no checkpoint that can be read in {folder}; give the folder that holds step-*.pt"
        )
    drawn, judge = state["ema"], state["stage"].get("adversary", {}).get("critic", {})
    if "decoder.start_place" not in drawn:
        raise SystemExit(
            f"{folder} holds no training of the synthesis decoder; give its weights file by "
            "--weights"
        )
    widths = [drawn[f"decoder.gain.{k}"].shape[1] for k in range(5)]  # s/16 ... s
    net = Generator([*widths[::-1], drawn["decoder.start_place"].shape[1]], decoder="synthesis")
    critic = None
    if "stem.0.parametrizations.weight.original" in judge:
        layers = ["stem.0", *(f"body.{i}.0" for i in range(4)), "last.0"]
        critic = SpectralCritic([len(judge[f"{name}.bias"]) for name in layers])
    try:
        net.load_state_dict(drawn)
        if critic is not None:
            critic.load_state_dict(judge)
    except RuntimeError as e:
        why = one_line(e)[:200]
        raise SystemExit(f"{folder} holds the training of another version: {why}") from e
    for part in filter(None, (net, critic)):
        part.eval().requires_grad_(False)
    return net, critic, state["step"]


def mean_five(points: Sequence[np.ndarray], size: int) -> np.ndarray:
    """(5, 2): where eyes, nose and mouth corners lie on average in crops of `size` px, in sides."""
    return np.mean([(five_from_mesh(p) + 0.5) / size for p in points], 0)


def is_face(sample: np.ndarray, mean: np.ndarray, look: face.Detector) -> bool:
    """Whether the detector is sure of a face in an upright sample whose five points are where they
    belong.
    """
    found = face.detect(image.resize(sample, (ENLARGED, ENLARGED)), look)
    points = [(f.five + 0.5) / ENLARGED for f in found if f.score >= SURE]
    return any(np.linalg.norm(five - mean, axis=1).max() <= PLACE for five in points)


def verdicts(critic: nn.Module, faces: Sequence[np.ndarray], batch: int = 16) -> np.ndarray:
    """The discriminator's verdict on each face; in full batches, for it also looks at their
    variety.
    """
    whole = len(faces) // batch * batch
    with torch.inference_mode():
        parts = [critic(data.stack(faces[i : i + batch])) for i in range(0, whole, batch)]
    return torch.cat(parts).flatten().numpy()


def sheet(faces: Sequence[np.ndarray], columns: int = 10) -> np.ndarray:
    rows = [
        np.concatenate(faces[i : i + columns], 1)
        for i in range(0, len(faces) // columns * columns, columns)
    ]
    return np.concatenate(rows)


def main() -> None:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="needed: it holds train_faces/, train_faces2/ and dev_eval/faces_clean/",
    )
    ask.add_argument("--weights", default="prior", help="a shipped name or a .safetensors file")
    ask.add_argument("--critic", help="a .safetensors file of its discriminator")
    ask.add_argument(
        "--checkpoint",
        type=Path,
        help="instead of both: a training's folder of checkpoints, of which the newest is read",
    )
    ask.add_argument("--size", type=int, default=64, help="px of the samples, as they were trained")
    ask.add_argument(
        "--count", type=int, default=500, help="samples that are compared, at least 64"
    )
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--out", type=Path, default=Path("outputs/prior"))
    args = ask.parse_args()
    if args.data is None:
        raise SystemExit(
            "give --data FOLDER, the folder that holds train_faces/ and dev_eval/faces_clean/"
        )

    if args.checkpoint:
        net, critic, step = from_checkpoint(args.checkpoint)
        print(f"step {step}")
    else:
        net = weights.load(args.weights, Generator)
        critic = weights.load(args.critic, SpectralCritic) if args.critic else None
    random = torch.Generator().manual_seed(args.seed)
    with torch.inference_mode():
        made = [
            image.to_photo(net(net.draw(1, args.size, random))) for _ in range(max(args.count, 64))
        ]
    seen, meshes = [], []
    for folder in FOLDERS:
        if (args.data / folder).is_dir():
            for row, photo, points in data.labelled_faces(args.data / folder):
                if data.truth_side(row, landmark_crop(points).side) >= SHARP * args.size:
                    crop = landmark_crop(points, size=args.size)
                    seen.append(crop.cut(photo))
                    meshes.append(crop.points(points))
    unseen = [
        truth
        for _, truth, _ in evaluate.face_cases(
            args.data / "dev_eval/faces_clean", "clean", (0,), args.size
        )
    ]

    sets = {"made": made, "train": seen, "unseen": unseen}
    features = {name: metrics.embedded(faces, features=True) for name, faces in sets.items()}
    order = np.random.default_rng(args.seed).permutation(len(seen))
    half = len(seen) // 2
    noise = [
        np.random.default_rng(i).random((args.size, args.size, 3), np.float32) for i in range(200)
    ]
    numbers = {
        "made against real": metrics.kernel_distance(features["made"], features["train"]),
        "real against real": metrics.kernel_distance(
            features["train"][order[:half]], features["train"][order[half:]]
        ),
        "noise against real": metrics.kernel_distance(
            metrics.embedded(noise, features=True), features["train"]
        ),
    }

    mean, look = mean_five(meshes, args.size), face._detector("mtcnn", None)[0]
    numbers["faces"] = float(np.mean([is_face(sample, mean, look) for sample in made[:64]]))
    numbers["faces, of unseen real ones"] = float(
        np.mean([is_face(real, mean, look) for real in unseen])
    )
    shares = variance_shares(net, args.size, random)
    numbers |= {f"share of {name}": share for name, share in shares.items()}
    numbers["share of s/32 and s/16"] = shares["s/32"] + shares["s/16"]
    if critic is not None:
        said = {
            "seen": verdicts(critic, [seen[i] for i in order]),
            "unseen": verdicts(critic, unseen),
            "made": verdicts(critic, made),
        }
        numbers |= {f"verdict, {name}": float(v.mean()) for name, v in said.items()}
        numbers["verdict, seen above made"] = float(
            np.mean(said["seen"][:, None] > said["made"][None])
        )
        lead, memory = (
            float(said["seen"].mean() - said[name].mean()) for name in ("made", "unseen")
        )
        numbers["memory"] = memory / lead if abs(lead) > 1e-6 else float("nan")

    who = {name: metrics.embedded(faces) for name, faces in sets.items()}
    nearest = {name: (who[name] @ who["train"].T).max(1) for name in ("made", "unseen")}
    numbers |= {
        f"nearest training face, {name}, mean cosine": float(v.mean())
        for name, v in nearest.items()
    }

    args.out.mkdir(parents=True, exist_ok=True)
    image.write(args.out / "samples.png", sheet(made[:60]))
    suspects = np.argsort(-nearest["made"])[:10]  # the samples most like a training face
    copies = [seen[int((who["made"][i] @ who["train"].T).argmax())] for i in suspects]
    image.write(args.out / "nearest.png", sheet([*(made[i] for i in suspects), *copies]))
    image.write_bytes(args.out / "metrics.json", json.dumps(numbers, indent=1).encode())
    for name, value in numbers.items():
        print(f"{name:45} {value:.4f}")


if __name__ == "__main__":
    main()
