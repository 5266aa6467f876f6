"""Milliseconds of the face net for one face, in torch (channels_last) and ONNX Runtime.

Warm, medians of interleaved runs.

    python benchmarks/face.py --threads 2
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from mtrestore.fast.onnx import export
from mtrestore.nets import FaceNet
from mtrestore.pipeline import onnx_net


def main() -> None:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("--threads", type=int, default=2)
    ask.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    ask.add_argument("--runs", type=int, default=31)
    args = ask.parse_args()
    torch.set_num_threads(args.threads)
    print(
        f"{args.threads} threads\n| widths | px | torch ms | ONNX Runtime ms | largest difference "
        "|\n|---|---|---|---|---|"
    )
    for widths in ("S", "M"):
        net = FaceNet(widths).eval().to(memory_format=torch.channels_last)
        torch.nn.init.normal_(
            net.decoder.to_rgb.weight, std=0.05
        )  # as zeros it would not show a difference
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            fast = onnx_net(export(net, Path(folder) / "face.onnx"))
            for size in args.sizes:
                x, seconds = (
                    torch.rand(1, 3, size, size).contiguous(memory_format=torch.channels_last),
                    {net: [], fast: []},
                )
                apart = (net(x) - fast(x)).abs().max().item()
                for _ in range(args.runs):
                    for run, times in seconds.items():
                        began = time.perf_counter()
                        run(x)
                        times.append(time.perf_counter() - began)
                mine, theirs = (1000 * median(t) for t in seconds.values())
                print(
                    f"| {widths} | {size} | {mine:.1f} | {theirs:.1f} | {apart:.1e} |", flush=True
                )


if __name__ == "__main__":
    main()
