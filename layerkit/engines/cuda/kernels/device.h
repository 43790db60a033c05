// What all kernels of this folder can use.  C++17 without headers, as NVRTC compiles it.
//
// REAL is float or double, the net's dtype.  Sums are taken in a fixed order, without atomic
// operations, so that two runs are equal to the last bit.
#pragma once

typedef REAL real;
typedef long long i64;
typedef unsigned int u32;
typedef unsigned long long u64;

#define KERNEL extern "C" __global__ void
#define FORMULA __device__ inline
#define THREADS 256u  // of a block

// The clock, int64 in device memory: whether training has halted, as a loss or gradient was not
// finite; how many of the steps that were asked for have been made; the number of the pass; and for
// each data layer how many examples it has served before it.
#define HALTED 0
#define STEP 1
#define PASS 2
#define POSITION 3

FORMULA float exp_of(float x) { return expf(x); }
FORMULA double exp_of(double x) { return exp(x); }
FORMULA float exp_of_negative(float x) { return expf(x); }
FORMULA double exp_of_negative(double x) { return exp(x); }
FORMULA float log_of(float x) { return logf(x); }
FORMULA double log_of(double x) { return log(x); }
FORMULA float expm1_of(float x) { return expm1f(x); }
FORMULA double expm1_of(double x) { return expm1(x); }
FORMULA float log1p_of(float x) { return log1pf(x); }
FORMULA double log1p_of(double x) { return log1p(x); }
FORMULA float tanh_of(float x) { return tanhf(x); }
FORMULA double tanh_of(double x) { return tanh(x); }
FORMULA float erfc_of(float x) { return erfcf(x); }
FORMULA double erfc_of(double x) { return erfc(x); }
FORMULA float sqrt_of(float x) { return sqrtf(x); }
FORMULA double sqrt_of(double x) { return sqrt(x); }

// The element that belongs to a thread, where each has one.
FORMULA i64 place() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }

// Room for sums over the threads of a block.  Not within the template, where shared memory is one
// array more for each number of sums.
typedef double LanesSpace[6][THREADS];
FORMULA LanesSpace& lanes_space()
{
    __shared__ LanesSpace space;
    return space;
}

// Replaces each of `Count` values, at most 6, by its sum over groups of `lanes` neighbouring threads,
// a power of two.  Every thread of the block must call it; all of a group get the sums.
template <int Count> FORMULA void lanes_sums(double* values, u32 lanes)
{
    LanesSpace& sums = lanes_space();
    u32 lane = threadIdx.x % lanes;
    for (int k = 0; k < Count; ++k) sums[k][threadIdx.x] = values[k];
    __syncthreads();
    for (u32 half = lanes / 2; half > 0; half /= 2) {
        if (lane < half)
            for (int k = 0; k < Count; ++k) sums[k][threadIdx.x] += sums[k][threadIdx.x + half];
        __syncthreads();
    }
    for (int k = 0; k < Count; ++k) values[k] = sums[k][threadIdx.x - lane];
    __syncthreads();
}

FORMULA double lanes_sum(double value, u32 lanes)
{
    lanes_sums<1>(&value, lanes);
    return value;
}
