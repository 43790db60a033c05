#!/usr/bin/env python3
"""The paper's net in JAX, a whole iteration in one compiled function: what layerkit is measured by.

    python jax_gdae.py --data images.npy --batch 64

Input and output as of torch_gdae.py.
"""

import argparse
import json
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import turns

HIDDEN, LATENT, FLOOR = 128, 8, 1 / (12 * 255**2)
RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8


def start(key: jax.Array, pixels: int) -> list[tuple[jax.Array, jax.Array]]:
    """Weights and biases of the six layers; the last has two output layers side by side."""
    he, keys = math.sqrt(2), jax.random.split(key, 5)

    def layer(key: jax.Array, inputs: int, units: int, gain: float) -> tuple[jax.Array, jax.Array]:
        return gain / inputs**0.5 * jax.random.normal(key, (inputs, units)), jnp.zeros(units)

    sizes = (
        (pixels, HIDDEN),
        (HIDDEN, HIDDEN),
        (HIDDEN, 2 * LATENT),
        (LATENT, HIDDEN),
        (HIDDEN, HIDDEN),
    )
    inner = [
        layer(k, *size, 1.0 if i == 2 else he)
        for i, (k, size) in enumerate(zip(keys, sizes, strict=True))
    ]
    bias = jnp.concatenate([jnp.zeros(pixels), jnp.full(pixels, -5.0)])
    return [*inner, (jnp.zeros((HIDDEN, 2 * pixels)), bias)]


def loss(weights: list[tuple[jax.Array, jax.Array]], x: jax.Array, noise: jax.Array) -> jax.Array:
    """A mean per picture."""

    def dense(i: int, y: jax.Array) -> jax.Array:
        return y @ weights[i][0] + weights[i][1]

    relu = jax.nn.relu
    mean, log_variance = jnp.split(dense(2, relu(dense(1, relu(dense(0, x))))), 2, axis=1)
    z = mean + jnp.exp(0.5 * log_variance) * noise
    x_mean, x_log_variance = jnp.split(dense(5, relu(dense(4, relu(dense(3, z))))), 2, axis=1)
    v = jnp.exp(x_log_variance) + FLOOR
    pixels = 0.5 * (jnp.log(v) + (x - x_mean) ** 2 / v + math.log(2 * math.pi)).sum()
    kl = 0.5 * (jnp.exp(log_variance) + mean**2 - 1 - log_variance).sum()
    return (pixels + kl) / len(x)


def make_step(batch: int, count: int):
    """A compiled function of the state and the images."""

    def step(state, images):
        weights, m, v, t, key = state
        x = jax.lax.dynamic_slice_in_dim(images, t % (count // batch) * batch, batch)
        key, now = jax.random.split(key)
        gradient = jax.grad(loss)(weights, x, jax.random.normal(now, (batch, LATENT)))
        t = t + 1
        each = jax.tree_util.tree_map
        m = each(lambda a, g: BETA1 * a + (1 - BETA1) * g, m, gradient)
        v = each(lambda a, g: BETA2 * a + (1 - BETA2) * g * g, v, gradient)
        rate, root = RATE / (1 - BETA1**t), 1 / jnp.sqrt(1 - BETA2**t)
        weights = each(lambda w, a, b: w - rate * a / (jnp.sqrt(b) * root + EPSILON), weights, m, v)
        return weights, m, v, t, key

    return jax.jit(step, donate_argnums=0)


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help=".npy of images, float32 (count, pixels)")
    parser.add_argument("--batch", type=int, required=True)
    turns.add_arguments(parser)
    parser.add_argument("--tf32", action="store_true")
    args = parser.parse_args()
    if args.tf32:
        jax.config.update("jax_default_matmul_precision", "tensorfloat32")
    images = jnp.asarray(np.load(args.data))
    weights = start(jax.random.PRNGKey(0), images.shape[1])
    zeros = [jax.tree_util.tree_map(jnp.zeros_like, weights) for _ in range(2)]
    state = (weights, *zeros, jnp.zeros((), jnp.int32), jax.random.PRNGKey(1))
    step = make_step(args.batch, len(images))

    def repeat(count: int) -> float:
        nonlocal state
        started = time.perf_counter()
        for _ in range(count):
            state = step(state, images)
        jax.block_until_ready(state)
        return (time.perf_counter() - started) / count

    spent = turns.measure(repeat, args)
    print(json.dumps({"ms_per_iteration": spent, "device": jax.devices()[0].platform}))


if __name__ == "__main__":
    main()
