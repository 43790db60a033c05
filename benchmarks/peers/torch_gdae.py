#!/usr/bin/env python3
"""Two galaxy nets in PyTorch, trained as fast as PyTorch can: what layerkit is measured against.

    python torch_gdae.py --data images.npy --batch 64 --mode compile
    python torch_gdae.py --data images.npy --batch 64 --net galaxy_conv

Prints a line of JSON: milliseconds of an iteration, which is the next minibatch, the noise, the
passes forward and backward, and Adam; the median of several measurements after the warm-up.
"""

import argparse
import json
import math
import time
from itertools import pairwise

import numpy as np
import torch
import turns
from torch import nn

HIDDEN, LATENT, FLOOR = 128, 8, 1 / (12 * 255**2)


class GalaxyNet(nn.Module):
    """The paper's net: two hidden layers each way, the two outputs of a network one product."""

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
        """Compute the loss, a mean per picture."""
        g1, g2, moments, f1, f2, pixels = self.layers
        mean, log_variance = moments(torch.relu(g2(torch.relu(g1(x))))).chunk(2, 1)
        z = mean + torch.exp(0.5 * log_variance) * noise
        x_mean, x_log_variance = pixels(torch.relu(f2(torch.relu(f1(z))))).chunk(2, 1)
        return negative_bound(x, x_mean, x_log_variance, mean, log_variance)


class ConvolutionalNet(nn.Module):
    """The net of nets/galaxy_conv.py: three convolutions each way."""

    def __init__(self, pixels: int):
        super().__init__()
        side = math.isqrt(pixels)
        sides = [side]
        for _ in range(3):
            sides.append((sides[-1] + 1) // 2)
        channels, self.smallest = (1, 16, 32, 64), sides[-1]
        flat = channels[-1] * self.smallest**2
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 5, stride=2, padding=2) for a, b in pairwise(channels)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(
                channels[i],
                channels[i - 1],
                5,
                2,
                2,
                output_padding=sides[i - 1] + 1 - 2 * sides[i],
            )
            for i in (3, 2)
        )
        output_padding = sides[0] + 1 - 2 * sides[1]
        self.pixels = nn.ModuleList(
            nn.ConvTranspose2d(channels[1], 1, 5, 2, 2, output_padding=output_padding)
            for _ in range(2)
        )
        self.g_hidden, self.moments = nn.Linear(flat, HIDDEN), nn.Linear(HIDDEN, 2 * LATENT)
        self.f_hidden, self.f_flat = nn.Linear(LATENT, HIDDEN), nn.Linear(HIDDEN, flat)
        for layer in (*self.down, *self.up, self.g_hidden, self.f_hidden, self.f_flat):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for layer in self.pixels:
            nn.init.zeros_(layer.weight)
        nn.init.constant_(self.pixels[1].bias, -5.0)

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Compute the loss, a mean per picture."""
        side = math.isqrt(x.shape[1])
        y = x.view(-1, 1, side, side)
        for layer in self.down:
            y = torch.relu(layer(y))
        mean, log_variance = self.moments(torch.relu(self.g_hidden(y.flatten(1)))).chunk(2, 1)
        z = mean + torch.exp(0.5 * log_variance) * noise
        y = torch.relu(self.f_flat(torch.relu(self.f_hidden(z))))
        y = y.view(-1, self.down[-1].out_channels, self.smallest, self.smallest)
        for layer in self.up:
            y = torch.relu(layer(y))
        x_mean, x_log_variance = (layer(y).flatten(1) for layer in self.pixels)
        return negative_bound(x, x_mean, x_log_variance, mean, log_variance)


NETS = {"galaxy_gdae": GalaxyNet, "galaxy_conv": ConvolutionalNet}


def negative_bound(
    x: torch.Tensor,
    x_mean: torch.Tensor,
    x_log_variance: torch.Tensor,
    mean: torch.Tensor,
    log_variance: torch.Tensor,
) -> torch.Tensor:
    """Compute minus the paper's bound, a mean per picture."""
    v = torch.exp(x_log_variance) + FLOOR
    loss = 0.5 * (torch.log(v) + (x - x_mean) ** 2 / v + math.log(2 * math.pi)).sum()
    kl = 0.5 * (torch.exp(log_variance) + mean**2 - 1 - log_variance).sum()
    return (loss + kl) / len(x)


def make_step(name: str, mode: str, device: str, batch: int, images: torch.Tensor):
    """Make a function of the iteration that makes one step."""
    net = NETS[name](images.shape[1]).to(device)
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
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help=".npy of images, float32 (count, pixels)")
    parser.add_argument("--batch", type=int, required=True)
    turns.add_arguments(parser)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--mode", default="compile", choices=["eager", "compile", "graph"])
    parser.add_argument("--net", default="galaxy_gdae", choices=sorted(NETS))
    parser.add_argument("--tf32", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    if args.tf32:
        torch.set_float32_matmul_precision("high")
    images = torch.from_numpy(np.load(args.data)).to(args.device)
    step = make_step(args.net, args.mode, args.device, args.batch, images)
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

    spent = turns.measure(repeat, args)
    print(json.dumps({"ms_per_iteration": spent, "device": args.device}))


if __name__ == "__main__":
    main()
