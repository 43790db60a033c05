"""JAX for functions that are called a few times: what it takes is to compile them."""

import functools

import jax


@functools.cache
def options():
    """Return settings with which XLA compiles in half the time, where this JAX knows them."""
    quick = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda x: x + 1, compiler_options=quick)(1.0)
    except Exception:  # of another type in each version
        return {}
    return {"compiler_options": quick}


def compiled(function):
    """Return a function that JAX compiles for each shape of its arguments, soon."""
    return jax.jit(function, **options())
