#!/usr/bin/env python3
"""The paper's net in PyTorch, trained as fast as PyTorch can: what layerkit is measured against.

    python torch_gdae.py --data images.npy --batch 64 --mode compile

Prints a line of JSON: milliseconds of an iteration, which is the next minibatch, the noise, the
passes forward and backward, and Adam; the median of five measurements after the warm-up.
"""

import argparse
import json
import math
import statistics
import time
from itertools import pairwise

import numpy as np
import torch
from torch import nn

HIDDEN, LATENT, FLOOR = 128, 8, 1 / (12 * 255**2)


class GalaxyNet(nn.Module):
    """Two hidden layers each way; the two output layers of a network are one product."""

    def __init__(self, pixels: int):
        super().__init__()
        sizes = [pixels, HIDDEN, HIDDEN, 2 * LATENT, LATENT, HIDDEN, HIDDEN, 2 * pixels]
        pairs = [(a, b) for i, (a, b) in enumerate(pairwise(sizes)) if i != 3]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairs)
        for i, layer in enumerate(self.layers):
            nn.init.zeros_(layer.bias)
            if i == 5:
                nn.init.zeros_(layer.weight)
                nn.init.constant_(layer.bias[pixels:], -5.0)
            elif i == 2:
                nn.init.xavier_normal_(layer.weight)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The loss, a mean per picture."""
        g1, g2, moments, f1, f2, pixels = self.layers
        mean, log_variance = moments(torch.relu(g2(torch.relu(g1(x))))).chunk(2, 1)
        z = mean + torch.exp(0.5 * log_variance) * noise
        x_mean, x_log_variance = pixels(torch.relu(f2(torch.relu(f1(z))))).chunk(2, 1)
        v = torch.exp(x_log_variance) + FLOOR
        loss = 0.5 * (torch.log(v) + (x - x_mean) ** 2 / v + math.log(2 * math.pi)).sum()
        kl = 0.5 * (torch.exp(log_variance) + mean**2 - 1 - log_variance).sum()
        return (loss + kl) / len(x)


def make_step(mode: str, device: str, batch: int, images: torch.Tensor):
    """A function of the iteration that makes one step."""
    net = GalaxyNet(images.shape[1]).to(device)
    on_gpu = device == "cuda"
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True, capturable=on_gpu)
    loss_of = (
        net
        if mode == "eager"
        else torch.compile(net, mode="max-autotune-no-cudagraphs" if on_gpu else None)
    )
    count = len(images) // batch

    def learn(x: torch.Tensor) -> None:
        adam.zero_grad(set_to_none=mode != "graph")
        loss_of(x, torch.randn(batch, LATENT, device=device)).backward()
        adam.step()

    if mode != "graph":
        return lambda i: learn(images[i % count * batch : (i % count + 1) * batch])
    x, rows = torch.empty(batch, images.shape[1], device=device), torch.arange(batch, device=device)
    place = torch.zeros((), dtype=torch.int64, device=device)

    def body() -> None:
        torch.index_select(images, 0, place + rows, out=x)
        place.add_(batch).remainder_(count * batch)
        learn(x)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            body()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return lambda i: graph.replay()


def main() -> None:
    """Trains, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help=".npy of images, float32 (count, pixels)")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--warm-up", type=int, default=2000, help="steps before measuring")
    parser.add_argument("--seconds", type=float, default=0.5, help="per measurement, five of them")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--mode", default="compile", choices=["eager", "compile", "graph"])
    parser.add_argument("--tf32", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    if args.tf32:
        torch.set_float32_matmul_precision("high")
    images = torch.from_numpy(np.load(args.data)).to(args.device)
    step = make_step(args.mode, args.device, args.batch, images)
    made = 0

    def repeat(count: int) -> float:
        nonlocal made
        started = time.perf_counter()
        for _ in range(count):
            step(made)
            made += 1
        if args.device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / count

    repeat(max(args.warm_up, 1))
    rounds = max(10, int(args.seconds / repeat(10)))
    spent = statistics.median(repeat(rounds) for _ in range(5))
    print(json.dumps({"ms_per_iteration": 1e3 * spent, "device": args.device}))


if __name__ == "__main__":
    main()
