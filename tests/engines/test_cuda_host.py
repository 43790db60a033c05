"""The stand-in for CuPy and a GPU: it computes what kernels say, and sees what is wrong in them."""

import contextlib
import ctypes
import functools
import gc
import sys

import cuda_host
import numpy as np
import pytest
from cuda_host import CUDADriverError, CUDARuntimeError, KernelError, cublas

import layerkit as lk
from layerkit import backends
from layerkit import layers as L
from layerkit.data.staging import Staging

SOURCE = r"""
#define KERNEL(name) extern "C" __global__ void name
typedef long long i64;

template <class T> __device__ T twice(T x) { return x + x; }

// Twice the sum of each block's share, by a tree in shared memory.
KERNEL(block_sums)(const float* x, double* sums, i64 count)
{
    __shared__ double part[1024];
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    part[threadIdx.x] = i < count ? x[i] : 0;
    __syncthreads();
    for (unsigned left = blockDim.x; left > 1; left = (left + 1) / 2) {
        unsigned half = (left + 1) / 2;
        if (threadIdx.x < left / 2) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = twice(part[0]);
}

KERNEL(mathematics)(const float* x, float* y, const double* u, double* v, i64 count)
{
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    y[i] = sinf(x[i]) * cos(x[i]) + erff(x[i]) + sqrt(fabs(x[i]));
    v[i] = log1p(exp(u[i])) + tanh(u[i]) + expm1(u[i]) + (isfinite(u[i]) ? 1 : 0);
}

KERNEL(by_value)(i64 a, int b, unsigned c, float d, double e, unsigned long long f, double* out)
{
    out[0] = a; out[1] = b; out[2] = c; out[3] = d; out[4] = e; out[5] = f;
}

KERNEL(add_one)(float* x, i64 count)
{
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) x[i] += 1;
}

KERNEL(three)(int* y) { y[3 * blockIdx.z + 2 * threadIdx.z + threadIdx.y] = gridDim.z; }
KERNEL(few)() {}
__global__ void not_extern(float* x) {}
"""


@pytest.fixture
def call(cupy_on_host):
    """Launches a kernel of SOURCE, or of another source."""

    def launch(name, grid, block, *args, code=SOURCE):
        function = cupy_on_host.RawModule(code=code, options=("-std=c++17",)).get_function(name)
        sizes = ((size,) if isinstance(size, int) else size for size in (grid, block))
        function(*sizes, args)

    return launch


# Right kernels have right results.


@pytest.mark.parametrize("block", [1, 7, 33, 256, 1024])
@pytest.mark.parametrize("count", [1, 2500])
def test_sums_in_shared_memory(cupy_on_host, call, block, count, rng):
    x = rng.standard_normal(count).astype("float32")
    padded = np.zeros((-(-count // block), block))
    padded.ravel()[:count] = 2 * x
    sums = cupy_on_host.empty(len(padded), "float64")
    call("block_sums", len(padded), block, cupy_on_host.asarray(x), sums, np.int64(count))
    np.testing.assert_allclose(sums.get(), padded.sum(1), atol=1e-12)


def test_mathematics(cupy_on_host, call, rng):
    from scipy import special

    x, u = rng.standard_normal(300).astype("float32"), rng.standard_normal(300)
    y, v = cupy_on_host.empty(300, "float32"), cupy_on_host.empty(300)
    given = cupy_on_host.asarray(x), y, cupy_on_host.asarray(u), v
    call("mathematics", 10, 33, *given, np.int64(300))
    w = x.astype("float64")
    expected = np.sin(w) * np.cos(w) + special.erf(w) + np.sqrt(np.abs(w))
    np.testing.assert_allclose(y.get(), expected, rtol=1e-5, atol=1e-6)
    expected = np.logaddexp(0, u) + np.tanh(u) + np.expm1(u) + 1
    np.testing.assert_allclose(v.get(), expected, rtol=1e-12, atol=1e-13)
    call("mathematics", 10, 33, given[0], given[0], given[2], given[2], np.int64(300))
    for array, expected in ((given[0], y), (given[2], v)):  # in place, to const and not
        np.testing.assert_array_equal(array.get(), expected.get())


def test_the_order_of_threads_is_random_and_repeatable():
    if reason := cuda_host.missing():
        pytest.skip(reason)
    code = """extern "C" __global__ void who(int* place, int* order) {
        order[(*place)++] = threadIdx.x;
    }"""
    orders = []
    for seed in (0, 5, 5, 6):
        with cuda_host.installed(seed=seed, races=False) as cupy:
            place, found = cupy.zeros(1, "int32"), cupy.empty(40, "int32")
            cupy.RawModule(code=code).get_function("who")((1,), (40,), (place, found))
            assert cuda_host.launches() == ["who"]
            orders.append(found.get().tolist())
    assert orders[0] == list(range(40)) == sorted(orders[1])
    assert orders[0] != orders[1] == orders[2] != orders[3]


# Mistakes are seen.

GUARDED = r"""
extern "C" __global__ void add(const float* x, float* y, long long count)
{
    __shared__ float part[64];
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    part[threadIdx.x] = i < count ? x[i] : 0;
    __syncthreads();
    if (i < count) y[i] = part[threadIdx.x] + part[blockDim.x - 1 - threadIdx.x];
}
"""

MISTAKES = {
    "one too many written": (
        "if (i < count)",
        "if (i <= count)",
        r"kernel add(, line 8)?: thread "
        r".* writes out of bounds: 4 bytes past the end of argument 1 \(a fl",
    ),
    "one too many read": ("= i < count ?", "= i <= count ?", "reads out of bounds: 4 bytes past"),
    "one before": ("y[i] =", "y[i - 1] =", "writes out of bounds: 4 bytes before the start"),
    "far off": ("y[i] =", "y[i + (1ll << 40)] =", "writes out of bounds"),
    "no barrier": ("__syncthreads();", "", "races: it .* shared memory"),
    "barrier left out by some": (
        "__syncthreads();",
        "if (threadIdx.x > 2) __syncthreads();",
        "waits at __syncthreads in line 7, but .* divergence|races",
    ),
    "two barriers": (
        "__syncthreads();",
        "if (threadIdx.x > 2)\n__syncthreads(); else\n__syncthreads();",
        "in line [89], but thread 0 in line [89].*: divergence",
    ),
    "early return": (
        "__syncthreads();",
        "if (i >= count) return; __syncthreads();",
        "has returned, but others wait at line 7: divergence",
    ),
    "shared index": ("part[threadIdx.x] =", "part[threadIdx.x + 60] =", "index beyond the end"),
    "input written": ("y[i] =", "((float*)x)[i] =", "pointer to const"),
    "same place": ("y[i] =", "y[0] =", "races: it writes argument 1 .*, element 0, .* thread of"),
    "two blocks": ("y[i] =", "y[threadIdx.x] =", "races: it writes argument 1 .* another block"),
    "read by others": ("y[i] =", "if (y[(i + 1) % 70] < 0 || i > 0) y[i] =", "races"),
    "neighbours": ("y[i] =", "y[i > 5 ? i - 1 : i] =", "races"),
    "overflow": ("part[threadIdx.x] +", "(2147483647 + (int)threadIdx.x) +", "overflows"),
    "by zero": ("part[threadIdx.x] +", "7 / (int)(threadIdx.x / 50) +", "divides by zero"),
    "misaligned": (
        "y[i] =",
        "if (i == 1) *(double*)(y + 1) = 0; else if (i > 2) y[i] =",
        "not aligned",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_seen(cupy_on_host, call, mistake, rng):
    old, new, words = MISTAKES[mistake]
    assert old in GUARDED
    x = rng.standard_normal(70).astype("float32")
    y = cupy_on_host.empty(70, "float32")
    args = "add", 2, 64, cupy_on_host.asarray(x), y, np.int64(70)
    with pytest.raises(KernelError, match=words):
        call(*args, code=GUARDED.replace(old, new))
    call(*args, code=GUARDED)  # which is as good as new
    padded = np.concatenate([x, np.zeros(58, "float32")]).reshape(2, 64)
    np.testing.assert_array_equal(y.get(), (padded + padded[:, ::-1]).ravel()[:70])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("y[i] = y[i + 1];", "element 1, which another thread of the block read"),
        ("if (y[0] < 9 && i == 1) y[0] = 1;", "which another thread of the block read"),
        ("if (y[0] < 9 && i == 4) y[0] = 1;", "which another block read"),
        ("y[0] += y[0];", "which another thread of the block wrote"),
    ],
)
def test_races_with_those_that_were_earlier(body, words):
    if reason := cuda_host.missing():
        pytest.skip(reason)
    code = f"int i = 4 * blockIdx.x + threadIdx.x; {body}"
    with cuda_host.installed() as cupy:  # where threads run by number
        code = f'extern "C" __global__ void f(float* y) {{ {code} }}'
        function = cupy.RawModule(code=code).get_function("f")
        with pytest.raises(KernelError, match=words):
            function((2,), (4,), (cupy.zeros(9, "float32"),))


def test_a_view_ends_where_the_view_ends(cupy_on_host, call):
    arena = cupy_on_host.zeros(100, "float32")
    call("add_one", 1, 128, arena[20:50], np.int64(30))
    np.testing.assert_array_equal(arena.get().nonzero()[0], np.arange(20, 50))
    with pytest.raises(KernelError, match="past the end of argument 0"):
        call("add_one", 1, 128, arena[20:50], np.int64(31))


def test_fresh_memory_holds_nothing_of_use(cupy_on_host, call):
    assert (cupy_on_host.empty(5, "int64").get() == -1).all()
    y, z = cupy_on_host.zeros(8, "float32"), cupy_on_host.empty(8, "float32")
    call(
        "read",
        1,
        8,
        y,
        code="""extern "C" __global__ void read(float* y) {
        __shared__ float s[8];
        y[threadIdx.x] = s[threadIdx.x];
    }""",
    )
    assert np.isnan([y.get(), z.get()]).all()


# Arguments, limits and sources.


def test_arguments_are_passed_as_cupy_passes_them(cupy_on_host, call):
    out = cupy_on_host.zeros(6)
    good = (-3, np.int32(-4), np.uint32(5), np.float32(0.5), 0.25, np.int64(6), out)
    for last in (out, out.data.ptr):
        call("by_value", 1, 1, *good[:6], last)
        assert out.get().tolist() == [-3, -4, 5, 0.5, 0.25, 6]
        out.fill(0)
    crooked = cupy_on_host.ndarray(6, "float64", cupy_on_host.zeros(60, "uint8")[4:].data)
    for place, value in (
        (0, np.int32(1)),
        (0, 1.0),
        (0, np.uint64(2**63)),
        (1, 1),
        (1, np.float32(1)),
        (2, np.int32(-1)),
        (3, 0.5),
        (3, np.float64(1)),
        (4, np.float32(1)),
        (4, 1),
        (5, -1),
        (6, np.float64(1)),
        (6, None),
        (6, np.zeros(6)),
        (6, cupy_on_host.zeros(6, "float32")),
        (6, cupy_on_host.zeros(6, "int64")),
        (0, out),
        (6, crooked),
        (6, 12345 * 8),
    ):
        with pytest.raises((TypeError, KernelError), match=f"kernel by_value: argument {place}"):
            call("by_value", 1, 1, *good[:place], value, *good[place + 1 :])
    with pytest.raises(TypeError, match="takes 7 arguments, got 6"):
        call("by_value", 1, 1, *good[:6])


def test_grids_and_blocks(cupy_on_host, call):
    for grid, block in (([1], 1), (1, 32.0), ((1.5,), 1)):
        with pytest.raises(TypeError, match="kernel few"):
            call("few", grid, block)
    for grid, block in ((1, 1025), (1, (64, 17)), (1, (1, 1, 65)), (2**31, 1), ((1, 65536), 1)):
        with pytest.raises(CUDADriverError, match="CUDA_ERROR_INVALID_VALUE"):
            call("few", grid, block)
    call("few", 0, 0)
    assert cuda_host.launches() == ["few"], "CuPy makes at least one block of one thread"
    y = cupy_on_host.zeros(6, "int32")
    call("three", (1, 1, 2), (1, 1, 2), y)
    assert y.get().tolist() == [2, 0, 2, 2, 0, 2]


BODIES = (
    "x[0] = INFINITY;",
    "x[0] = M_PI;",
    "uint32_t i = 0;",
    "x[0] = std::fmax(1.f, 2.f);",
    "x[0] = exp(1);",
    "z[0] = 1;",
    "threadIdx.x = 3;",
    "int n = blockDim.x; float a[n];",
    "\n#include <cmath>\n",
)


def test_sources_are_those_of_nvrtc(cupy_on_host, call):
    for name in ("not_extern", "nothing"):
        with pytest.raises(CUDADriverError, match=f"NOT_FOUND.*{name}"):
            call(name, 1, 1)
    error = cupy_on_host.cuda.compiler.CompileException
    for body in BODIES:
        with pytest.raises(error, match=r"kernel\.cu:[12]:.*error"):
            call("f", 1, 1, code=f'extern "C" __global__ void f(float* x) {{ {body} }}')
    with pytest.raises(error, match="unrecognized option"):
        cupy_on_host.RawModule(code=SOURCE, options=("-O3x",)).get_function("few")


# Arrays.


def test_arrays_of_host_and_device_do_not_mix(cupy_on_host, rng):
    cp, host = cupy_on_host, rng.standard_normal(4)
    a = cp.asarray(host)
    for mix in (
        lambda: a + host,
        lambda: host + a,
        lambda: cp.add(a, host),
        lambda: cp.exp(host),
        lambda: np.asarray(a),
        lambda: np.exp(a),
        lambda: cp.add(a, a, out=host),
        lambda: a.__setitem__(slice(2), host[:2]),
        lambda: a.set(host.astype("float32")),
        lambda: np.testing.assert_array_equal(a, host),
        lambda: a[np.array([1])],
        lambda: a.set(a),
    ):
        with pytest.raises(TypeError):
            mix()
    b = np.float64(2) * a + 1
    assert isinstance(b, cp.ndarray)
    np.testing.assert_array_equal(b.get(), 2 * host + 1)
    assert isinstance(a.sum(), cp.ndarray)
    assert a.sum().shape == ()


def test_views_share_memory_and_results_do_not(cupy_on_host, rng):
    a = cupy_on_host.asarray(rng.standard_normal((4, 6)))
    assert a[1:].data.ptr == a.data.ptr + 48
    for view in (a.T, a[2], a[...], a.reshape(3, 8), a.ravel(), a[:, 1:3], a.view("int64")):
        assert view.data.mem is a.data.mem
    index = cupy_on_host.asarray(np.array([2, 0]))
    for fresh in (a + 1, a.copy(), a.T.reshape(-1), a[index], a[a > 0], a.astype("float32")):
        assert fresh.data.mem is not a.data.mem
    expected = a.get()
    np.testing.assert_array_equal(a[index].get(), expected[[2, 0]])
    windows = cupy_on_host.lib.stride_tricks.sliding_window_view(a, (2, 2))
    np.testing.assert_array_equal(windows.get()[2, 3], expected[2:4, 3:5])
    cupy_on_host.add.at(a, (cupy_on_host.asarray(np.array([3, 3])), 0), a[:2, 5])
    expected[3, 0] += expected[:2, 5].sum()
    a[1:3] *= 2
    a[0, :2] = a[3, 4:]
    expected[1:3] *= 2
    expected[0, :2] = expected[3, 4:]
    np.testing.assert_allclose(a.get(), expected, rtol=1e-13, atol=1e-14)


# Streams and capture.


@pytest.fixture
def stream(cupy_on_host):
    return cupy_on_host.cuda.Stream(non_blocking=True)


def test_a_capture_records_and_does_nothing(cupy_on_host, call, stream):
    cp, x, y = cupy_on_host, cupy_on_host.ones(9, "float32"), cupy_on_host.zeros(9, "float32")
    cp.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        call("add_one", 1, 64, x, np.int64(9))
        cp.multiply(x, 2, out=y)
        y[:3] = 7
        y[3:6] += x[3:6]
        graph = stream.end_capture()
    assert not y.get().any()
    for turn in (2, 3):
        graph.launch()
        assert x.get().tolist() == [turn] * 9
        assert y.get().tolist() == [7] * 3 + [3 * turn] * 3 + [2 * turn] * 3
    assert cuda_host.launches() == ["add_one", "add_one"]


def _record(cp):
    event = cp.cuda.Event()
    event.record()
    return event


FORBIDDEN = {
    "float": lambda cp, x: float(x[0]),
    "asnumpy": lambda cp, x: cp.asnumpy(x),
    "bool": lambda cp, x: bool((x > 0).all()),
    "sort": lambda cp, x: x.sort(),
    "argsort": lambda cp, x: cp.argsort(x),
    "mask": lambda cp, x: x[x > 0],
    "asarray": lambda cp, x: cp.asarray(np.zeros(3)),
    "set": lambda cp, x: x.set(np.zeros(8)),
    "synchronize": lambda cp, x: cp.cuda.get_current_stream().synchronize(),
    "device": lambda cp, x: cp.cuda.runtime.deviceSynchronize(),
    "event": lambda cp, x: _record(cp).synchronize(),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_cannot_be_captured(cupy_on_host, stream, what):
    x = cupy_on_host.ones(8)
    cupy_on_host.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnsupported"):
            FORBIDDEN[what](cupy_on_host, x)
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
        FORBIDDEN[what](cupy_on_host, x)  # and without capture it can be done


def test_rules_of_capture(cupy_on_host, stream):
    cuda, x = cupy_on_host.cuda, cupy_on_host.ones((2, 2))
    assert (cuda.Device().id, cuda.runtime.getDevice()) == (0, 0)
    with pytest.raises(RuntimeError, match=r"default \(legacy\) stream"):
        cuda.get_current_stream().begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
        stream.end_capture()
    outside = _record(cupy_on_host)
    with pytest.raises(NotImplementedError, match="streams that wait for the default one"):
        cuda.Stream()
    with stream:
        stream.begin_capture()
        with pytest.raises(NotImplementedError, match="cuBLAS API during stream capture"):
            x @ x
        with pytest.raises(CUDARuntimeError, match="Isolation"):
            stream.wait_event(outside)


@pytest.mark.parametrize("kind", ["kernel", "array"])
def test_a_graph_keeps_no_memory(cupy_on_host, call, stream, kind):
    cp, x, y = cupy_on_host, cupy_on_host.ones(5), cupy_on_host.zeros(5)

    def record(pool=None):
        with stream, cp.cuda.using_allocator(pool.malloc if pool else None):
            stream.begin_capture()
            if kind == "array":
                y[...] = (x + 1) * 2  # with temporary arrays
            else:
                call("add_one", 1, 5, cp.empty(5, "float32"), np.int64(5))
            graph = stream.end_capture()
        gc.collect()
        return graph

    with pytest.raises(KernelError, match="freed since it was recorded"):
        record().launch()
    pool = cp.cuda.MemoryPool()
    graph = record(pool)
    x.fill(2)
    graph.launch()
    assert y.get().tolist() == [6 if kind == "array" else 0] * 5
    with cp.cuda.using_allocator(pool.malloc):
        kept = cp.zeros(3)
    with pytest.raises(KernelError, match="from which other arrays have been made"):
        graph.launch()
    del kept
    graph.launch()
    del pool
    gc.collect()
    with pytest.raises(KernelError, match="freed since it was recorded"):
        graph.launch()


# Order between streams.


def test_work_on_two_streams_has_no_order_unless_it_is_made(cupy_on_host, call, stream):
    cp, add = cupy_on_host, lambda to: call("add_one", 1, 64, to, np.int64(32))
    x = cp.zeros(64, "float32")
    with stream, pytest.raises(KernelError, match=r"kernel add_one .* what ndarray.fill writes"):
        add(x)
    x = cp.zeros(64, "float32")
    stream.wait_event(_record(cp))
    with stream:
        add(x)  # which looks at the first half only
        done = _record(cp)
    add(x[32:])
    with pytest.raises(KernelError, match="kernel add_one reads what kernel add_one writes on ano"):
        add(x)
    cp.cuda.get_current_stream().wait_event(done)
    add(x)
    with stream, pytest.raises(KernelError, match=r"ndarray\.get reads what kernel"):
        x.get()
    assert x.get().tolist() == [3] * 32 + [1] * 32
    with stream:
        add(x)  # after `get` the host has waited
        x.copy()  # which does not hide the write before it
    with pytest.raises(KernelError, match="add reads what kernel add_one writes"):
        x[:3] + 1


# A method of Staging, the wait that it forgets, and how that is seen.
FORGOTTEN = {
    "to wait for the copy": ("begin", "wait_event", "reads what ndarray.set writes"),
    "to wait for the readers": ("fill", "wait_event", "set writes what kernel block_sums reads"),
    "to wait before filling": ("fill", "synchronize", "pinned memory was changed"),
}


@pytest.mark.parametrize("graph", [False, True], ids=["", "graph"])
@pytest.mark.parametrize("forgotten", [None, *FORGOTTEN])
def test_staging_that_forgets(cupy_on_host, call, stream, forgotten, graph, monkeypatch):
    cp, total = cupy_on_host, cupy_on_host.zeros(2, "float64")
    staging, steps = Staging(cp, 3, [(5,)], ["float32"]), []
    cp.cuda.Device().synchronize()
    for place in (0, 1):
        args = staging.arrays[0][place], total[place : place + 1], np.int64(15)
        steps.append(functools.partial(call, "block_sums", 1, 15, *args))
        if graph:
            with stream:
                stream.begin_capture()
                steps[place]()
                steps[place] = stream.end_capture().launch
    method, wait, words = FORGOTTEN.get(forgotten, ("end", "synchronize", ""))
    original = getattr(Staging, method)

    def forgetful(self, *args):
        with monkeypatch.context() as patch:
            for kind in (cp.cuda.Stream, cp.cuda.Event):
                patch.setattr(kind, wait, lambda *args: None, raising=False)
            original(self, *args)

    monkeypatch.setattr(Staging, method, forgetful)
    with pytest.raises(KernelError, match=words) if forgotten else contextlib.nullcontext():
        for step in range(6):
            place = step % 2
            staging.fill(place, step, [[np.full((3, 5), step, "float32")]])
            staging.begin(place)
            steps[place]()
            staging.end(place)
        assert total.get().tolist() == [30 * 4, 30 * 5]


def test_pinned_memory_is_read_when_a_graph_is_replayed(cupy_on_host, stream):
    host = np.frombuffer(cupy_on_host.cuda.alloc_pinned_memory(64), "float64")
    x = cupy_on_host.zeros(8)
    cupy_on_host.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        x.set(host)
        graph = stream.end_capture()
        host[...] = 9
        graph.launch()
        event = _record(cupy_on_host)
        x.set(host)
        event.synchronize()  # which waits for the first copy only
        host[0] = 5
        with pytest.raises(KernelError, match="pinned memory was changed"):
            stream.synchronize()
        assert (x.get() == 9).all()


# cuBLAS.


@pytest.fixture
def blas(cupy_on_host):
    library, handle = cublas.Library(), ctypes.c_void_p()
    assert library.cublasCreate_v2(ctypes.byref(handle)) == 0
    return library, handle


def gemm(blas, transposed, sizes, *arrays, alpha=1.0, beta=0.0, lds=None):
    """A product; of many, by lists of addresses on the device, where the arrays have three axes."""
    import cupy

    (library, handle), is_batch = blas, arrays[0].ndim == 3
    is_single = bool(arrays[0].dtype == "float32")
    number, matrices, lists = ctypes.c_float if is_single else ctypes.c_double, [], []
    for x, ld in zip(arrays, lds or [x.shape[-1] for x in arrays], strict=True):
        if is_batch:
            x = cupy.asarray(np.array([one.data.ptr for one in x], np.uint64))
            lists.append(x)  # so that it lives
        matrices += [ctypes.c_void_p(x.data.ptr), ctypes.c_int(ld)]
    matrices.insert(-2, ctypes.byref(number(beta)))
    name = f"cublas{'DS'[is_single]}gemm{'Batched' if is_batch else '_v2'}"
    return getattr(library, name)(
        handle,
        *map(ctypes.c_int, (*transposed, *sizes)),
        ctypes.byref(number(alpha)),
        *matrices,
        *(is_batch * [ctypes.c_int(len(arrays[0]))]),
    )


@pytest.mark.parametrize("batch", [(), (3,)], ids=["one", "batch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_products_are_by_columns(cupy_on_host, blas, transposed, dtype, batch, rng):
    m, n, k = (int(size) for size in rng.integers(1, 9, 3))
    # Arrays by rows are matrices by columns, transposed; each has rows longer than needed.
    a = rng.standard_normal((*batch, *((m, k + 2) if transposed[0] else (k, m + 2)))).astype(dtype)
    b = rng.standard_normal((*batch, *((k, n + 1) if transposed[1] else (n, k + 1)))).astype(dtype)
    c = rng.standard_normal((*batch, n, m + 3)).astype(dtype)
    on_device = [cupy_on_host.asarray(x) for x in (a, b, c)]
    assert gemm(blas, transposed, (m, n, k), *on_device, alpha=2.0, beta=0.5) == 0
    left = a[..., :-2] if transposed[0] else a[..., :-2].swapaxes(-1, -2)
    right = b[..., :-1] if transposed[1] else b[..., :-1].swapaxes(-1, -2)
    expected = c.copy()
    expected[..., :m] = 2 * np.einsum("...mk,...kn->...nm", left, right) + 0.5 * c[..., :m]
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(on_device[2].get(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("batch", [(), (2,)], ids=["one", "batch"])
def test_products_with_wrong_arguments(cupy_on_host, blas, batch):
    library, handle = blas
    a, b, c = (cupy_on_host.ones((*batch, 4, 4)) for _ in range(3))
    nan = cupy_on_host.empty((*batch, 4, 4))
    assert gemm(blas, (0, 0), (4, 4, 4), a, b, nan) == 0
    assert (nan.get() == 4).all(), "with beta = 0 the result is not read"
    assert gemm(blas, (0, 0), (4, 4, 4), a, b, c, lds=(3, 4, 4)) == 7
    assert gemm(blas, (5, 0), (4, 4, 4), a, b, c) == 7
    assert gemm((library, ctypes.c_void_p(1)), (0, 0), (4, 4, 4), a, b, c) == 1
    for arrays, n, words in (
        ((a, b, c), 5, "matrix B: .* not inside of one"),
        ((a, b, a), 4, "shares memory"),
    ):
        with pytest.raises(KernelError, match=words):
            gemm(blas, (0, 0), (4, n, 4), *arrays)
    if batch:
        wide = cupy_on_host.ones((4, 4, 4))[:2]
        with pytest.raises(KernelError, match="one result shares memory"):
            gemm(blas, (0, 0), (4, 4, 4), a, b, wide, lds=(4, 4, 8))
    with pytest.raises(TypeError, match="types of ctypes"):
        library.cublasSetStream_v2(handle, 7)  # which ctypes would cut off to an int
    with pytest.raises(TypeError, match="2 arguments are needed, got 1"):
        library.cublasSetStream_v2(handle)


def test_products_can_be_recorded_with_a_work_space(cupy_on_host, blas, stream):
    library, handle = blas
    a, b, c = (cupy_on_host.ones((3, 3)) for _ in range(3))
    space = cupy_on_host.zeros(1024, "uint8")
    work_space = handle, ctypes.c_void_p(space.data.ptr), ctypes.c_size_t(1024)
    library.cublasSetWorkspace_v2(*work_space)
    library.cublasSetStream_v2(handle, ctypes.c_void_p(stream.ptr))  # which takes it away
    stream.begin_capture()
    with pytest.raises(KernelError, match="needs cublasSetWorkspace"):
        gemm(blas, (0, 0), (3, 3, 3), a, b, c)
    library.cublasSetWorkspace_v2(*work_space)
    assert gemm(blas, (0, 0), (3, 3, 3), a, b, c) == 0
    with pytest.raises(CUDARuntimeError, match="Invalidated"):
        stream.end_capture()
    stream.begin_capture()
    assert gemm(blas, (0, 0), (3, 3, 3), a, b, c) == 0
    graph = stream.end_capture()
    a.fill(2)
    assert (c.get() == 1).all()
    graph.launch()
    assert (c.get() == 6).all()
    assert gemm(blas, (0, 0), (3, 3, 3), a, b, c) == 0
    with pytest.raises(KernelError, match="reads what gemm writes on another stream"):
        c.get()


# Coming and going.


def test_it_goes_as_it_came():
    before = {name: sys.modules.get(name) for name in ("cupy", "cupy.cuda")}
    if reason := cuda_host.missing():
        pytest.skip(reason)
    with cuda_host.installed() as cupy:
        backend = backends.get("cupy")
        assert backend.xp is cupy is sys.modules["cupy"]
        net = lk.Net([L.Input("x", shape=(3,)), L.Dense("y", "x", units=2)], backend="auto")
        assert net.backend.name == "cupy"
    assert {name: sys.modules.get(name) for name in before} == before
    assert "layerkit.backends.cupy" not in sys.modules
    assert not hasattr(backends, "cupy")
    with cuda_host.installed() as again:
        assert backends.get("cupy").xp is again is not cupy
