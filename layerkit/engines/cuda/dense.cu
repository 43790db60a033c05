// Dense: what is not a product, and all of it for few examples.  Elements are counted with 32 bits,
// whose division is fast.
#include "device.h"
#include "../formulas/activations.h"

#define SLICE 64u  // rows of which a block adds up the gradients of the biases

KERNEL bias_activation(i64 size, i64 units, real setting, const real* b, real* y)
{
    u32 i = (u32)place();
    if (i < (u32)size) y[i] = ACTIVATION<real>(setting).value(y[i] + b[i % (u32)units]);
}

// d = dy * a'(y) unless d is 0, and sums over a slice of rows unless those are 0.  A block has 32
// columns and looks at 8 rows at a time.
KERNEL columns(
    i64 rows, i64 units, real setting, const real* y, const real* dy, real* d, real* sums)
{
    __shared__ real parts[8][32];
    ACTIVATION<real> activation(setting);
    u32 groups = ((u32)units + 31) / 32, slice = blockIdx.x / groups;
    u32 x = threadIdx.x % 32, part = threadIdx.x / 32, column = (blockIdx.x % groups) * 32 + x;
    u32 stop = (slice + 1) * SLICE < (u32)rows ? (slice + 1) * SLICE : (u32)rows;
    real sum = 0;
    if (column < (u32)units) {
        for (u32 row = slice * SLICE + part; row < stop; row += 8) {
            u32 i = row * (u32)units + column;
            real value = d ? activation.gradient(y[i], dy[i]) : dy[i];
            if (d) d[i] = value;
            sum += value;
        }
    }
    parts[part][x] = sum;
    __syncthreads();
    if (part == 0 && column < (u32)units && sums) {
        for (u32 other = 1; other < 8; ++other) sum += parts[other][x];
        sums[slice * (u32)units + column] = sum;
    }
}

KERNEL sum_slices(i64 slices, i64 units, const real* sums, real* total)
{
    i64 column = place();
    if (column >= units) return;
    real sum = 0;
    for (i64 slice = 0; slice < slices; ++slice) sum += sums[slice * units + column];
    total[column] = sum;
}

#ifdef ROWS  // the most examples, few: the number of kernels and the traffic of W take the time

// y = a(x W + b).  32 neighbouring units of W are read by 32 neighbouring threads.
KERNEL few_forward(
    i64 rows, i64 inputs, i64 units, real setting, const real* x, const real* w, const real* b,
    real* y)
{
    __shared__ real parts[8][32];
    ACTIVATION<real> activation(setting);
    u32 lane = threadIdx.x % 32, part = threadIdx.x / 32, unit = blockIdx.x * 32 + lane;
    real sums[ROWS] = {};
    if (unit < (u32)units) {
        for (u32 k = part; k < (u32)inputs; k += 8) {
            real weight = w[k * (u32)units + unit];
#pragma unroll
            for (u32 row = 0; row < ROWS; ++row)
                if (row < (u32)rows) sums[row] += x[row * (u32)inputs + k] * weight;
        }
    }
#pragma unroll
    for (u32 row = 0; row < ROWS; ++row) {
        parts[part][lane] = sums[row];
        __syncthreads();
        if (part == 0 && unit < (u32)units && row < (u32)rows) {
            real sum = parts[0][lane];
            for (u32 other = 1; other < 8; ++other) sum += parts[other][lane];
            y[row * (u32)units + unit] = activation.value(sum + b[unit]);
        }
        __syncthreads();
    }
}

// All gradients.  A row of W is read, and one of dW written, by 32 threads, SPAN units of it in a
// block; the bias is the row of one more input, which is 1.  The sums for dx go to `dx` itself where
// a block sees whole rows, else to a place for each block.
KERNEL few_backward(
    i64 rows, i64 inputs, i64 units, real setting, const real* x, const real* y, const real* dy,
    const real* w, real* dw, real* db, real* dx)
{
    ACTIVATION<real> activation(setting);
    u32 spans = ((u32)units + SPAN - 1) / SPAN, span = blockIdx.x % spans;
    u32 lane = threadIdx.x % 32, input = blockIdx.x / spans * 8 + threadIdx.x / 32;
    u32 stop = (span + 1) * SPAN < (u32)units ? (span + 1) * SPAN : (u32)units;
    bool is_weight = input < (u32)inputs;
    real sums[ROWS] = {};
    if (input <= (u32)inputs) {
        for (u32 unit = span * SPAN + lane; unit < stop; unit += 32) {
            u32 i = input * (u32)units + unit;
            real g = 0, weight = is_weight ? w[i] : (real)0;
#pragma unroll
            for (u32 row = 0; row < ROWS; ++row) {
                if (row < (u32)rows) {
                    u32 j = row * (u32)units + unit;
                    real d = activation.gradient(y[j], dy[j]);
                    g += is_weight ? x[row * (u32)inputs + input] * d : d;
                    sums[row] += d * weight;
                }
            }
            if (is_weight && dw) dw[i] = g;
            if (!is_weight && db) db[unit] = g;
        }
    }
    if (!dx) return;
#pragma unroll
    for (u32 row = 0; row < ROWS; ++row) {
        double sum = lanes_sum(sums[row], 32);
        if (lane == 0 && is_weight && row < (u32)rows)
            dx[(span * (u32)rows + row) * (u32)inputs + input] = (real)sum;
    }
}

#endif
