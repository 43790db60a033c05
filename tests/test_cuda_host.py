"""The stand-in for CuPy and a GPU: it computes what kernels say, and sees what is wrong in them."""

import ctypes
import gc
import sys

import cuda_host
import numpy as np
import pytest
from cuda_host import CUDADriverError, CUDARuntimeError, KernelError, cublas

import layerkit as lk
from layerkit import backends
from layerkit import layers as L

SOURCE = r"""
#define KERNEL(name) extern "C" __global__ void name
typedef long long i64;

// The sum of each block's share, by a tree in static shared memory.
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
    if (threadIdx.x == 0) sums[blockIdx.x] = part[0];
}

// Running sums within each warp.
KERNEL(warp_scan)(const int* x, int* y, i64 count)
{
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    int value = i < count ? x[i] : 0, lane = threadIdx.x % 32;
    for (int step = 1; step < 32; step *= 2) {
        int other = __shfl_up_sync(0xffffffffu, value, step);
        if (lane >= step) value += other;
    }
    if (i < count) y[i] = value;
}

KERNEL(warp_votes)(const float* x, unsigned* votes, float* largest, float* next, float* last)
{
    float value = x[threadIdx.x], most = value;
    unsigned all = __activemask();
    unsigned positive = __ballot_sync(all, value > 0);
    for (int bit = 16; bit > 0; bit /= 2) {
        float other = __shfl_xor_sync(all, most, bit);
        if (!(other <= most) && other == other) most = other;  // an absent lane brings NaN
    }
    most = __shfl_sync(all, most, 0);
    next[threadIdx.x] = __shfl_down_sync(all, value, 1, 4);
    last[threadIdx.x] = __shfl_up_sync(all, value, 1, 4);
    if (threadIdx.x % 32 == 0) {
        votes[threadIdx.x / 32] = positive;
        largest[threadIdx.x / 32] = most;
    }
}

KERNEL(stride_exp)(const float* __restrict__ x, float* __restrict__ y, i64 count)
{
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (i64)gridDim.x * blockDim.x)
        y[i] = expf(x[i]);
}

KERNEL(histogram)(const unsigned char* x, int* bins, double* total, i64 count)
{
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) {
        atomicAdd(&bins[x[i]], 1);
        atomicAdd(total, (double)x[i]);
    }
}

KERNEL(reversed)(const double* x, double* y)
{
    extern __shared__ double tile[];
    unsigned place = threadIdx.y * blockDim.x + threadIdx.x, size = blockDim.x * blockDim.y;
    tile[place] = x[blockIdx.x * size + place];
    __syncthreads();
    y[blockIdx.x * size + place] = tile[size - 1 - place];
}

KERNEL(last_block_adds)(const float* x, float* sums, float* total, unsigned* done)
{
    sums[blockIdx.x] = 2 * x[blockIdx.x];
    __threadfence();
    if (atomicAdd(done, 1u) == gridDim.x - 1) {
        float sum = 0;
        for (unsigned i = 0; i < gridDim.x; ++i) sum += sums[i];
        *total = sum;
    }
}

KERNEL(pairs)(const float4* x, float2* y)
{
    float4 v = x[threadIdx.x];
    y[threadIdx.x] = make_float2(v.x * v.y, fmaxf(v.z, v.w));
}

template <class T> __device__ T twice(T x) { return x + x; }
template <class T> __global__ void twice_all(T* x) { x[threadIdx.x] = twice(x[threadIdx.x]); }

KERNEL(bits)(const unsigned* x, unsigned* high, unsigned* through, int* counts)
{
    unsigned v = x[threadIdx.x];
    high[threadIdx.x] = __umulhi(v, 0xD2511F53u);
    through[threadIdx.x] = __float_as_uint(__uint_as_float(v >> 2));
    counts[threadIdx.x] = __popc(v) + 100 * __clz(v);
}

KERNEL(mathematics)(const float* x, float* y, const double* u, double* v, i64 count)
{
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float s, c;
    sincosf(x[i], &s, &c);
    y[i] = s * c + erff(x[i]) + normcdff(x[i]) + rsqrtf(1 + x[i] * x[i]) + __expf(-fabs(x[i]));
    v[i] = log1p(exp(u[i])) + tanh(u[i]) + expm1(u[i]) + normcdf(u[i]) + max(u[i], 0.5f);
}

KERNEL(by_value)(i64 a, int b, unsigned c, float d, double e, bool f, double* out)
{
    out[0] = a; out[1] = b; out[2] = c; out[3] = d; out[4] = e; out[5] = f;
}

KERNEL(add_one)(float* x, i64 count)
{
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) x[i] += 1;
}

__global__ void not_extern(float* x) {}
KERNEL(few) () {}
extern "C" __global__ void __launch_bounds__(4 * 32) bounded(float* x) {}
"""

BLOCKS = (1, 7, 32, 33, 256, 1023, 1024)


@pytest.fixture
def module(cupy_on_host):
    return cupy_on_host.RawModule(
        code=SOURCE, options=("-std=c++17",), name_expressions=("twice_all<double>",)
    )


def over(count, block):
    return ((-(-count // block),), (block,))


# What is right comes out right.


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("count", [1, 33, 2500])
def test_sums_in_shared_memory(cupy_on_host, module, block, count, rng):
    x = rng.standard_normal(count).astype("float32")
    grid, threads = over(count, block)
    sums = cupy_on_host.empty(grid, "float64")
    module.get_function("block_sums")(
        grid, threads, (cupy_on_host.asarray(x), sums, np.int64(count))
    )
    padded = np.zeros(grid[0] * block)
    padded[:count] = x
    np.testing.assert_allclose(sums.get(), padded.reshape(-1, block).sum(1), atol=1e-12)


@pytest.mark.parametrize("block", BLOCKS)
def test_scans_by_shuffles(cupy_on_host, module, block, rng):
    count = 1500
    x = rng.integers(-99, 99, count).astype("int32")
    y = cupy_on_host.empty(count, "int32")
    module.get_function("warp_scan")(
        *over(count, block), (cupy_on_host.asarray(x), y, np.int64(count))
    )
    expected = x.copy()
    for start in range(0, count, block):
        for first in range(start, min(start + block, count), 32):
            stop = min(first + 32, start + block, count)
            expected[first:stop] = np.cumsum(x[first:stop])
    np.testing.assert_array_equal(y.get(), expected)


@pytest.mark.parametrize("block", [1, 31, 32, 33, 100])
def test_votes_and_shuffles(cupy_on_host, module, block, rng):
    x = rng.standard_normal(block).astype("float32")
    warps = -(-block // 32)
    votes, largest = cupy_on_host.empty(warps, "uint32"), cupy_on_host.empty(warps, "float32")
    after, before = (cupy_on_host.empty(block, "float32") for _ in range(2))
    module.get_function("warp_votes")(
        (1,), (block,), (cupy_on_host.asarray(x), votes, largest, after, before)
    )
    assert before.get().tolist() == [x[i if i % 4 == 0 else i - 1] for i in range(block)]
    for w in range(warps):
        lanes = x[32 * w : 32 * w + 32]
        assert votes.get()[w] == sum(1 << i for i, value in enumerate(lanes) if value > 0)
        assert largest.get()[w] == lanes.max()
    for i, value in enumerate(after.get()):
        last = i % 4 == 3
        if last or i + 1 < block:
            assert value == (x[i] if last else x[i + 1])
        else:
            assert np.isnan(value), "an absent lane brings nothing"


@pytest.mark.parametrize("grid", [1, 3, 40])
@pytest.mark.parametrize("block", BLOCKS)
def test_strides_over_the_grid(cupy_on_host, module, grid, block, rng):
    x = rng.standard_normal(1111).astype("float32")
    y = cupy_on_host.empty(1111, "float32")
    module.get_function("stride_exp")(
        (grid,), (block,), (cupy_on_host.asarray(x), y, np.int64(1111))
    )
    np.testing.assert_allclose(y.get(), np.exp(x.astype("float64")), rtol=1e-6)
    # In place: the array is the argument of a pointer to const, and of one that is not.
    y = cupy_on_host.asarray(-x)
    module.get_function("stride_exp")((grid,), (block,), (y, y, np.int64(1111)))
    np.testing.assert_allclose(y.get(), np.exp(-x.astype("float64")), rtol=1e-6)


@pytest.mark.parametrize("block", BLOCKS)
def test_atomics(cupy_on_host, module, block, rng):
    x = rng.integers(9, size=3000).astype("uint8")
    bins, total = cupy_on_host.zeros(9, "int32"), cupy_on_host.zeros(1)
    module.get_function("histogram")(
        *over(3000, block), (cupy_on_host.asarray(x), bins, total, np.int64(3000))
    )
    np.testing.assert_array_equal(bins.get(), np.bincount(x, minlength=9))
    assert float(total[0]) == x.sum()


@pytest.mark.parametrize("block", [(1,), (33,), (8, 5), (32, 32)])
def test_dynamic_shared_memory(cupy_on_host, module, block, rng):
    size = int(np.prod(block))
    x = rng.standard_normal((3, size))
    y = cupy_on_host.empty((3, size))
    function = module.get_function("reversed")
    function((3,), block, (cupy_on_host.asarray(x), y), shared_mem=8 * size)
    np.testing.assert_array_equal(y.get(), x[:, ::-1])
    with pytest.raises(KernelError, match=r"(reads|writes) out of bounds"):
        function((3,), block, (cupy_on_host.asarray(x), y), shared_mem=8 * size - 8)


def test_the_last_block_may_read_what_others_wrote_behind_a_fence(cupy_on_host, module, rng):
    x = rng.integers(9, size=77).astype("float32")
    total, done = cupy_on_host.empty(1, "float32"), cupy_on_host.zeros(1, "uint32")
    args = cupy_on_host.asarray(x), cupy_on_host.empty(77, "float32"), total, done
    module.get_function("last_block_adds")((77,), (1,), args)
    assert float(total[0]) == 2 * x.sum()


def test_vectors_templates_and_bits(cupy_on_host, module, rng):
    x = rng.standard_normal((50, 4)).astype("float32")
    y = cupy_on_host.empty((50, 2), "float32")
    module.get_function("pairs")((1,), (50,), (cupy_on_host.asarray(x), y))
    np.testing.assert_array_equal(y.get(), np.stack([x[:, 0] * x[:, 1], x[:, 2:].max(1)], 1))
    d = cupy_on_host.asarray(x.astype("float64"))
    module.get_function("twice_all<double>")((1,), (200,), (d,))
    np.testing.assert_array_equal(d.get(), 2.0 * x)
    v = rng.integers(1, 2**32, 64, dtype="uint32")
    high, through = (cupy_on_host.empty(64, "uint32") for _ in range(2))
    counts = cupy_on_host.empty(64, "int32")
    module.get_function("bits")((1,), (64,), (cupy_on_host.asarray(v), high, through, counts))
    np.testing.assert_array_equal(high.get(), (v.astype("uint64") * 0xD2511F53) >> np.uint64(32))
    np.testing.assert_array_equal(through.get(), v >> 2)
    lengths = [int(n).bit_length() for n in v]
    ones = [int(n).bit_count() for n in v]
    assert counts.get().tolist() == [o + 100 * (32 - n) for o, n in zip(ones, lengths, strict=True)]


def test_mathematics(cupy_on_host, module, rng):
    from scipy import special

    x, u = rng.standard_normal(300).astype("float32"), rng.standard_normal(300)
    y, v = cupy_on_host.empty(300, "float32"), cupy_on_host.empty(300)
    module.get_function("mathematics")(
        *over(300, 128), (cupy_on_host.asarray(x), y, cupy_on_host.asarray(u), v, np.int64(300))
    )
    w = x.astype("float64")
    expected = np.sin(w) * np.cos(w) + special.erf(w) + special.ndtr(w)
    expected += 1 / np.sqrt(1 + w * w) + np.exp(-np.abs(w))
    np.testing.assert_allclose(y.get(), expected, rtol=1e-5, atol=1e-6)
    expected = np.logaddexp(0, u) + np.tanh(u) + np.expm1(u) + special.ndtr(u)
    np.testing.assert_allclose(v.get(), expected + np.maximum(u, 0.5), rtol=1e-12, atol=1e-13)


def test_the_order_of_threads_and_blocks_is_random_and_repeatable():
    code = r"""
    extern "C" __global__ void who(int* place, int* order)
    {
        int id = blockIdx.x * blockDim.x + threadIdx.x;
        order[atomicAdd(place, 1)] = id;
    }
    """
    def order(seed):
        with cuda_host.installed(seed=seed) as cupy:
            place, found = cupy.zeros(1, "int32"), cupy.empty(400, "int32")
            cupy.RawModule(code=code).get_function("who")((10,), (40,), (place, found))
            return found.get().tolist()

    if reason := cuda_host.missing():
        pytest.skip(reason)
    assert order(0) == list(range(400))
    assert order(5) == order(5) != order(6)
    assert sorted(order(5)) == order(0)


# What is wrong is seen.

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
    "one too many written": ("if (i < count)", "if (i <= count)", "writes out of bounds: 4 bytes "
                             "past the end of argument 1"),
    "one too many read": ("= i < count ?", "= i <= count ?", "reads out of bounds: 4 bytes past"),
    "one before": ("y[i] =", "y[i - 1] =", "writes out of bounds: 4 bytes before the start"),
    "far off": ("y[i] =", "y[i + (1ll << 40)] =", "far from every array"),
    "no barrier": ("__syncthreads();", "", "races"),
    "barrier left out by some": ("__syncthreads();", "if (threadIdx.x > 2) __syncthreads();",
                                 "divergence: .* waits at __syncthreads in line 7, but|races"),
    "two barriers": ("__syncthreads();", "if (threadIdx.x > 2)\n__syncthreads(); else\n"
                     "__syncthreads();", "divergence: .* waits at __syncthreads in line"),
    "early return": ("__syncthreads();", "if (i >= count) return; __syncthreads();",
                     "divergence: .* has returned"),
    "shared index": ("part[threadIdx.x] =", "part[threadIdx.x + 60] =", "an array that is shorter"),
    "input written": ("y[i] =", "((float*)x)[i] =", "pointer to const"),
    "same place": ("y[i] =", "y[0] =", "races: it writes argument 1 .*, element 0,"),
    "two blocks": ("y[i] =", "y[threadIdx.x] =", "races: it writes argument 1 .* block number"),
    "neighbours": ("y[i] =", "y[i > 5 ? i - 1 : i] =", "races"),
    "warp of some": ("__syncthreads();", "if (threadIdx.x > 2) __syncwarp(); __syncthreads();",
                     "divergence: .* waits in line 7 for the lanes"),
    "lane not named": ("__syncthreads();", "__syncwarp(1u); __syncthreads();", "without itself"),
    "overflow": ("part[threadIdx.x] +", "(2147483647 + (int)threadIdx.x) +", "overflows"),
    "trap": ("__syncthreads();", "assert(i < 60); __syncthreads();", "assert"),
    "misaligned": ("y[i] =", "if (i % 2 == 0 && i < 60) *(float2*)(y + i + 1) = "
                   "make_float2(0, 0); else y[0] =", "not aligned|races"),
}


def run_guarded(cupy, code, rng, count=70):
    x = rng.standard_normal(count).astype("float32")
    y = cupy.empty(count, "float32")
    cupy.RawModule(code=code).get_function("add")(
        (2,), (64,), (cupy.asarray(x), y, np.int64(count))
    )
    return x, y.get()


def test_without_mistakes_nothing_is_seen(cupy_on_host, rng):
    x, y = run_guarded(cupy_on_host, GUARDED, rng)
    padded = np.concatenate([x, np.zeros(58, "float32")]).reshape(2, 64)
    np.testing.assert_array_equal(y, (padded + padded[:, ::-1]).ravel()[:70])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_seen(cupy_on_host, mistake, rng):
    old, new, words = MISTAKES[mistake]
    assert old in GUARDED
    with pytest.raises(KernelError, match=words) as error:
        run_guarded(cupy_on_host, GUARDED.replace(old, new), rng)
    assert "kernel add" in str(error.value)
    # The launch after it is as good as new.
    run_guarded(cupy_on_host, GUARDED, rng)


def test_where_a_mistake_is(cupy_on_host, rng):
    if not __import__("shutil").which("addr2line"):
        pytest.skip("binutils' addr2line, which tells the line, is not there")
    with pytest.raises(KernelError, match=r"kernel add, line 8: thread \(\d+, 0, 0\) of block"):
        run_guarded(cupy_on_host, GUARDED.replace("if (i < count)", "if (i <= count)"), rng)


def test_a_view_ends_where_the_view_ends(cupy_on_host, module):
    arena = cupy_on_host.zeros(100, "float32")
    function = module.get_function("add_one")
    function((1,), (128,), (arena[20:50], np.int64(30)))
    np.testing.assert_array_equal(arena.get().nonzero()[0], np.arange(20, 50))
    with pytest.raises(KernelError, match="past the end of argument 0"):
        function((1,), (128,), (arena[20:50], np.int64(31)))


def test_fresh_memory_holds_nothing_of_use(cupy_on_host):
    assert np.isnan(cupy_on_host.empty((3, 4), "float32").get()).all()
    assert (cupy_on_host.empty(5, "int64").get() == -1).all()
    code = r"""
    extern "C" __global__ void read(float* y) {
        __shared__ float s[8]; extern __shared__ float d[];
        y[threadIdx.x] = threadIdx.x % 2 ? s[threadIdx.x] : d[threadIdx.x];
    }"""
    y = cupy_on_host.zeros(8, "float32")
    cupy_on_host.RawModule(code=code).get_function("read")((1,), (8,), (y,), shared_mem=32)
    assert np.isnan(y.get()).all()


def test_an_address_in_an_array_can_be_followed_and_others_cannot(cupy_on_host):
    code = r"""
    extern "C" __global__ void follow(const unsigned long long* table, float* y, int shift) {
        y[0] = ((const float*)table[0])[shift];
    }"""
    x = cupy_on_host.ones(4, "float32")
    table = cupy_on_host.asarray(np.array([x.data.ptr], "uint64"))
    y = cupy_on_host.zeros(1, "float32")
    function = cupy_on_host.RawModule(code=code).get_function("follow")
    function((1,), (1,), (table, y, np.int32(3)))
    assert float(y[0]) == 1
    with pytest.raises(KernelError, match="reads out of bounds"):
        function((1,), (1,), (table, y, np.int32(4)))


# Arguments and limits.


def test_scalars_are_passed_as_cupy_passes_them(cupy_on_host, module):
    out = cupy_on_host.zeros(6)
    function = module.get_function("by_value")
    good = (-3, np.int32(-4), np.uint32(5), np.float32(0.5), 0.25, np.bool_(True), out)
    function((1,), (1,), good)
    assert out.get().tolist() == [-3, -4, 5, 0.5, 0.25, 1]
    for place, value in (
        (0, np.int32(1)), (0, 1.0), (1, 1), (1, np.float32(1)), (2, np.int32(-1)), (3, 0.5),
        (3, np.float64(1)), (4, np.float32(1)), (4, 1), (5, True), (6, np.float64(1)), (6, None),
        (6, np.zeros(6)), (6, "six"), (6, cupy_on_host.zeros(6, "float32")), (0, out),
    ):
        bad = [*good]
        bad[place] = value
        with pytest.raises(TypeError, match=f"kernel by_value: argument {place}"):
            function((1,), (1,), tuple(bad))
    with pytest.raises(TypeError, match="takes 7 arguments, got 6"):
        function((1,), (1,), good[:6])


def test_arguments_in_the_wrong_order(cupy_on_host, module):
    x, y = cupy_on_host.zeros(3, "float32"), cupy_on_host.zeros(3)
    with pytest.raises(TypeError, match=r"argument 0 is a float64 array of shape \(3,\), but "
                       r"the kernel takes const 32-bit float \*"):
        module.get_function("block_sums")((1,), (4,), (y, x, np.int64(3)))


@pytest.mark.parametrize(
    ("grid", "block"), [
        ((1,), (1025,)), ((1,), (64, 17)), ((1,), (1, 1, 65)), ((2**31,), (1,)), ((1, 65536), (1,)),
    ],
)
def test_launches_beyond_the_limits(cupy_on_host, module, grid, block):
    with pytest.raises(CUDADriverError, match="CUDA_ERROR_INVALID_VALUE"):
        module.get_function("few")(grid, block, ())


def test_grids_are_tuples_and_have_at_least_one_block(cupy_on_host, module):
    for grid, block in (([1], (1,)), ((1,), 32), ((1.5,), (1,)), (1, (1,))):
        with pytest.raises(TypeError, match="kernel few"):
            module.get_function("few")(grid, block, ())
    x = cupy_on_host.zeros(3, "float32")
    module.get_function("add_one")((0,), (0,), (x, np.int64(3)))
    assert x.get().tolist() == [1, 0, 0]


def test_shared_memory_and_launch_bounds_are_limits(cupy_on_host, module):
    function, x = module.get_function("bounded"), cupy_on_host.zeros(1, "float32")
    function((1,), (128,), (x,), shared_mem=48 * 1024)
    with pytest.raises(CUDADriverError, match="at most 128 threads"):
        function((1,), (129,), (x,))
    with pytest.raises(CUDADriverError, match="shared memory"):
        function((1,), (128,), (x,), shared_mem=48 * 1024 + 1)
    function.max_dynamic_shared_size_bytes = 100 * 1024
    function((1,), (128,), (x,), shared_mem=100 * 1024)
    with pytest.raises(CUDADriverError):
        function.max_dynamic_shared_size_bytes = 228 * 1024


def test_sources_are_those_of_nvrtc(cupy_on_host, module):
    with pytest.raises(CUDADriverError, match=r"NOT_FOUND.*not_extern \(it is not extern"):
        module.get_function("not_extern")
    with pytest.raises(CUDADriverError, match="NOT_FOUND"):
        module.get_function("nothing")
    with pytest.raises(cupy_on_host.cuda.compiler.CompileException, match="unrecognized option"):
        cupy_on_host.RawModule(code=SOURCE, options=("-O3x",)).get_function("few")
    with pytest.raises(TypeError, match="options must be a tuple"):
        cupy_on_host.RawModule(code=SOURCE, options=["-std=c++17"])


TAKEN = [
    "x[0] = max(x[0], 1.0) + min(1u, 2) + max(1l, 2l);", "x[0] = fmax(x[0], 1) + pow(x[0], 2);",
    "x[0] = rsqrtf(2) + fma(x[0], 2, 1) + abs(x[0]) + fabsf(-1);", "x[0] = modf(x[0], x);",
    "bool b = isnan(x[0]) || isfinite(x[0]);", "assert(x[0] > 0);", 'printf("a");',
    "dim3 d = blockDim; uint3 i = threadIdx;", "x[0] = __shfl_sync(~0u, 1.0, 1);",
    "__syncwarp(); __syncwarp(3);", "float4 v = __ldg((float4*)x);", "memset(x, 0, 4);",
    "static const float t[2] = {1, 2}; x[0] = t[threadIdx.x];", "size_t n = 0; void* p = NULL;",
    "auto f = [](float a) { return a; }; x[0] = f(1);", "x[0] = atomicAdd(x, 1);",
    "x[0] = float2{1, 2}.x + int4{}.w + warpSize;", "unsigned m = __activemask();",
]
REFUSED = [
    "x[0] = INFINITY;", "x[0] = NAN;", "x[0] = M_PI;", "x[0] = FLT_MAX;", "uint32_t i = 0;",
    "uintptr_t p = 0;", "x[0] = std::max(1.f, 2.f);", "x[0] = max(x[0], 1);", "x[0] = exp(1);",
    "x[0] = fmax(x[0], 1.0);", "x[0] = sqrt(2);", "long long i = min(1ll, 2);", "y[0] = 1;",
    "threadIdx.x = 3;", "x[0] = atomicMax(x, 1.f);", "int n = blockDim.x; float a[n];",
]


def in_a_kernel(body, number=0):
    return f'extern "C" __global__ void f{number}(float* x) {{ {body} }}\n'


def test_what_compiles(cupy_on_host):
    code = "".join(in_a_kernel(body, i) for i, body in enumerate(TAKEN))
    cupy_on_host.RawModule(code=code).get_function("f3")


@pytest.mark.parametrize("body", REFUSED)
def test_what_does_not_compile(cupy_on_host, body):
    with pytest.raises(cupy_on_host.cuda.compiler.CompileException, match=r"kernel\.cu:1:.*error"):
        cupy_on_host.RawModule(code=in_a_kernel(body)).get_function("f0")


def test_nvrtc_takes_and_refuses_the_same():
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="needs the package cuda-bindings")
    try:
        nvrtc.nvrtcVersion()
    except Exception as error:
        pytest.skip(f"NVRTC cannot be loaded ({error}); pip install nvidia-cuda-nvrtc")

    def compiles(code):
        _, program = nvrtc.nvrtcCreateProgram(code.encode(), b"kernel.cu", 0, [], [])
        (status,) = nvrtc.nvrtcCompileProgram(program, 2, [b"-std=c++17", b"-arch=sm_80"])
        nvrtc.nvrtcDestroyProgram(program)
        return status == nvrtc.nvrtcResult.NVRTC_SUCCESS

    mistakes = [GUARDED.replace(old, new) for old, new, _ in MISTAKES.values()]
    for code in (SOURCE, GUARDED, *mistakes, *map(in_a_kernel, TAKEN)):
        assert compiles(code), code
    for body in REFUSED:
        assert not compiles(in_a_kernel(body)), body


# Arrays.


def test_arrays_of_host_and_device_do_not_mix(cupy_on_host, rng):
    cp, host = cupy_on_host, rng.standard_normal(4)
    a = cp.asarray(host)
    for mix in (
        lambda: a + host, lambda: host + a, lambda: cp.add(a, host), lambda: cp.exp(host),
        lambda: np.asarray(a), lambda: np.exp(a), lambda: cp.add(a, a, out=host),
        lambda: a.__setitem__(slice(2), host[:2]), lambda: np.testing.assert_array_equal(a, host),
    ):
        with pytest.raises(TypeError):
            mix()
    b = np.float64(2) * a + 1
    assert isinstance(b, cp.ndarray)
    np.testing.assert_array_equal(b.get(), 2 * host + 1)
    total = a.sum()
    assert isinstance(total, cp.ndarray)
    assert total.shape == ()
    with pytest.raises(TypeError, match="cannot be set"):
        a.set(host.astype("float32"))


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
    assert windows.data.mem is a.data.mem
    np.testing.assert_array_equal(windows.get()[2, 3], expected[2:4, 3:5])
    cupy_on_host.add.at(a, (cupy_on_host.asarray(np.array([3, 3])), 0), a[:2, 5])
    expected[3, 0] += expected[:2, 5].sum()
    np.testing.assert_allclose(a.get(), expected, rtol=1e-13, atol=1e-14)
    expected = a.get()
    a[1:3] *= 2
    a[0, :2] = a[3, 4:]
    expected[1:3] *= 2
    expected[0, :2] = expected[3, 4:]
    np.testing.assert_array_equal(a.get(), expected)


# Streams and capture.


@pytest.fixture
def stream(cupy_on_host):
    return cupy_on_host.cuda.Stream(non_blocking=True)


def test_a_capture_records_and_does_nothing(cupy_on_host, module, stream, rng):
    cp = cupy_on_host
    x, y = cp.asarray(rng.random(50).astype("float32")), cp.zeros(50, "float32")
    before = x.get()
    count = np.array(50)
    with stream:
        stream.begin_capture()
        assert stream.is_capturing()
        module.get_function("add_one")((1,), (64,), (x, count[()]))
        cp.multiply(x, 2, out=y)
        y[:10] = 7
        y[10:20].fill(8)
        y[20:] += x[20:]
        graph = stream.end_capture()
    count[...] = 3  # arguments were taken when they were given
    np.testing.assert_array_equal(x.get(), before)
    assert not y.get().any()
    for turn in (1, 2):
        graph.launch()
        np.testing.assert_array_equal(x.get(), _plus(before, turn))
        expected = 2 * x.get()
        expected[20:] += x.get()[20:]
        expected[:10], expected[10:20] = 7, 8
        np.testing.assert_array_equal(y.get(), expected)
    assert cuda_host.launches() == ["add_one", "add_one"]


def _plus(x, turns):
    for _ in range(turns):
        x = x + np.float32(1)
    return x


FORBIDDEN = {
    "float": lambda cp, x: float(x[0]),
    "asnumpy": lambda cp, x: cp.asnumpy(x),
    "get": lambda cp, x: x.get(),
    "item": lambda cp, x: x.sum().item(),
    "bool": lambda cp, x: bool((x > 0).all()),
    "sort": lambda cp, x: x.sort(),
    "argsort": lambda cp, x: cp.argsort(x),
    "mask": lambda cp, x: x[x > 0],
    "asarray": lambda cp, x: cp.asarray(np.zeros(3)),
    "set": lambda cp, x: x.set(np.zeros(8)),
    "synchronize": lambda cp, x: cp.cuda.get_current_stream().synchronize(),
    "device": lambda cp, x: cp.cuda.Device().synchronize(),
    "event": lambda cp, x: cp.cuda.get_current_stream().record().synchronize(),
    "runtime": lambda cp, x: cp.cuda.runtime.deviceSynchronize(),
    "print": lambda cp, x: str(x),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_cannot_be_captured(cupy_on_host, stream, what):
    x = cupy_on_host.ones(8)
    with stream:
        stream.begin_capture()
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureUnsupported"):
            FORBIDDEN[what](cupy_on_host, x)
        with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureInvalidated"):
            stream.end_capture()
        FORBIDDEN[what](cupy_on_host, x)  # and without capture it can be done


def test_cupy_refuses_its_cublas_during_capture(cupy_on_host, stream):
    x = cupy_on_host.ones((2, 2))
    with stream:
        stream.begin_capture()
        for call in (lambda: x @ x, lambda: cupy_on_host.matmul(x, x, out=x)):
            with pytest.raises(NotImplementedError, match="cuBLAS API during stream capture"):
                call()
        stream.end_capture()


def test_rules_of_streams(cupy_on_host, stream):
    cuda = cupy_on_host.cuda
    with pytest.raises(RuntimeError, match=r"default \(legacy\) stream"):
        cuda.get_current_stream().begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalState"):
        stream.end_capture()
    blocking, x = cuda.Stream(), cupy_on_host.zeros(2)
    blocking.begin_capture()
    with pytest.raises(CUDARuntimeError, match="cudaErrorStreamCaptureImplicit"):
        x.fill(1)  # on the default stream
    with pytest.raises(CUDARuntimeError, match="Invalidated"):
        blocking.end_capture()
    # A second stream joins by an event, and has to come back.
    other = cuda.Stream(non_blocking=True)
    for joins in (True, False):
        x.fill(0)
        with stream:
            stream.begin_capture()
            other.wait_event(stream.record())
        with other:
            x += 1
        if joins:
            stream.wait_event(other.record())
            graph = stream.end_capture()
            assert not x.get().any()
            graph.launch()
            assert x.get().all()
        else:
            with pytest.raises(CUDARuntimeError, match="Unjoined"):
                stream.end_capture()
    outside = other.record()
    stream.begin_capture()
    with pytest.raises(CUDARuntimeError, match="Isolation"):
        stream.wait_event(outside)


def test_a_graph_keeps_no_memory(cupy_on_host, stream):
    cp, x, y = cupy_on_host, cupy_on_host.ones(5), cupy_on_host.zeros(5)

    def record(pool=None):
        with stream, cp.cuda.using_allocator(pool.malloc if pool else None):
            stream.begin_capture()
            y[...] = (x + 1) * 2  # with temporary arrays
            graph = stream.end_capture()
        gc.collect()
        return graph

    with pytest.raises(KernelError, match="freed since it was recorded"):
        record().launch()
    pool = cp.cuda.MemoryPool()
    graph = record(pool)
    x.fill(2)
    graph.launch()
    assert y.get().tolist() == [6.0] * 5
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


def test_pinned_memory(cupy_on_host, stream):
    host = np.frombuffer(cupy_on_host.cuda.alloc_pinned_memory(64), "float64")
    x = cupy_on_host.zeros(8)
    host[...] = 3
    with stream:
        x.set(host)
        host[0] = 4  # too early
        with pytest.raises(KernelError, match="pinned memory was changed"):
            stream.synchronize()
        stream.begin_capture()
        x.set(host)
        graph = stream.end_capture()
        host[...] = 9
        graph.launch()
        stream.synchronize()
        assert (x.get() == 9).all()
        x.set(host)
        event = stream.record()
        x.set(host)
        event.synchronize()  # which waits for the first copy only
        host[0] = 5
        with pytest.raises(KernelError, match="pinned memory was changed"):
            stream.synchronize()
        x.fill(2)
        x.get(out=host, blocking=False)
        assert np.isnan(host).all(), "it has not arrived yet"
        stream.synchronize()
        assert (host == 2).all()


# cuBLAS.


def pointer(array):
    return ctypes.c_void_p(array.data.ptr)


@pytest.fixture
def blas(cupy_on_host):
    library, handle = cublas.Library(), ctypes.c_void_p()
    assert library.cublasCreate_v2(ctypes.byref(handle)) == 0
    return library, handle


def gemm(blas, transposed, sizes, a, b, c, alpha=1.0, beta=0.0, lds=None):
    library, handle = blas
    single = a.dtype == np.float32
    number = ctypes.c_float if single else ctypes.c_double
    lds = lds or [array.shape[1] for array in (a, b, c)]
    call = library.cublasSgemm_v2 if single else library.cublasDgemm_v2
    return call(
        handle, *map(ctypes.c_int, (*transposed, *sizes)), ctypes.byref(number(alpha)), pointer(a),
        ctypes.c_int(lds[0]), pointer(b), ctypes.c_int(lds[1]), ctypes.byref(number(beta)),
        pointer(c), ctypes.c_int(lds[2]),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_products_are_by_columns(cupy_on_host, blas, transposed, dtype, rng):
    m, n, k = (int(size) for size in rng.integers(1, 9, 3))
    # Arrays by rows are matrices by columns, transposed; each has rows longer than needed.
    a = rng.standard_normal((m, k + 2) if transposed[0] else (k, m + 2)).astype(dtype)
    b = rng.standard_normal((k, n + 1) if transposed[1] else (n, k + 1)).astype(dtype)
    c = rng.standard_normal((n, m + 3)).astype(dtype)
    on_device = [cupy_on_host.asarray(x) for x in (a, b, c)]
    assert gemm(blas, transposed, (m, n, k), *on_device, 2.0, 0.5) == 0
    left = a[:, :-2] if transposed[0] else a[:, :-2].T
    right = b[:, :-1] if transposed[1] else b[:, :-1].T
    expected = c.copy()
    expected[:, :m] = (2 * np.einsum("mk,kn->mn", left, right) + 0.5 * c[:, :m].T).T
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(on_device[2].get(), expected, rtol=tolerance, atol=tolerance)


def test_products_with_wrong_arguments(cupy_on_host, blas):
    library, handle = blas
    a, b, c = (cupy_on_host.ones((4, 4)) for _ in range(3))
    nan = cupy_on_host.empty((4, 4))
    assert gemm(blas, (0, 0), (4, 4, 4), a, b, nan) == 0
    assert (nan.get() == 4).all(), "with beta = 0 the result is not read"
    assert gemm(blas, (0, 0), (4, 4, 4), a, b, c, lds=(3, 4, 4)) == 7
    assert gemm(blas, (5, 0), (4, 4, 4), a, b, c) == 7
    assert gemm((library, ctypes.c_void_p(1)), (0, 0), (4, 4, 4), a, b, c) == 1
    with pytest.raises(KernelError, match=r"matrix B: .* not inside of one array"):
        gemm(blas, (0, 0), (4, 5, 4), a, b, c)
    with pytest.raises(KernelError, match="shares memory"):
        gemm(blas, (0, 0), (4, 4, 4), a, b, a)
    with pytest.raises(KernelError, match=r"cublasSetWorkspace: .* not inside of one array"):
        library.cublasSetWorkspace_v2(handle, a.data.ptr, ctypes.c_size_t(64))  # cut off to an int
    with pytest.raises(TypeError, match="takes 2 arguments, got 1"):
        library.cublasSetStream_v2(handle)


def test_products_can_be_recorded_with_a_work_space(cupy_on_host, blas, stream):
    library, handle = blas
    a, b, c = cupy_on_host.ones((3, 3)), cupy_on_host.ones((3, 3)), cupy_on_host.zeros((3, 3))
    space = cupy_on_host.zeros(1024, "uint8")
    library.cublasSetWorkspace_v2(handle, pointer(space), ctypes.c_size_t(1024))
    library.cublasSetStream_v2(handle, ctypes.c_void_p(stream.ptr))  # which takes it away
    stream.begin_capture()
    with pytest.raises(KernelError, match="needs cublasSetWorkspace"):
        gemm(blas, (0, 0), (3, 3, 3), a, b, c)
    with pytest.raises(CUDARuntimeError, match="Invalidated"):
        stream.end_capture()
    library.cublasSetWorkspace_v2(handle, pointer(space), ctypes.c_size_t(1024))
    stream.begin_capture()
    assert gemm(blas, (0, 0), (3, 3, 3), a, b, c) == 0
    graph = stream.end_capture()
    assert not c.get().any()
    a.fill(2)
    graph.launch()
    assert (c.get() == 6).all()


# Coming and going.


def test_it_goes_as_it_came(rng):
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
