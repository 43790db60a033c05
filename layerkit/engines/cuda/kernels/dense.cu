// Dense: what is not a product, and all of it for few examples.  Elements are counted with 32 bits,
// whose division is fast.  Layers of as many units that read one blob, up to three, can share a
// launch: their arrays are numbered 0 to 2.
#include "device.h"
#include "../../formulas/activations.h"

#define EACH(type, name) type name##0, type name##1, type name##2
#define CHOSEN(name, layer) (layer == 0 ? name##0 : layer == 1 ? name##1 : name##2)
#define SLICE 256u  // rows of which a block adds up the gradients of the biases

KERNEL bias_activation(
    i64 size, i64 layers, i64 units, real setting, EACH(const real*, b), EACH(real*, y))
{
    u32 at = (u32)place(), layer = at / (u32)size, i = at % (u32)size;
    if (layer >= (u32)layers) return;
    const real* b = CHOSEN(b, layer);
    real* y = CHOSEN(y, layer);
    y[i] = ACTIVATION<real>(setting).value(y[i] + b[i % (u32)units]);
}

// d = dy * a'(y) unless d is 0, and sums over a slice of rows unless those are 0.  A block has 32
// columns and looks at 8 rows at a time.
KERNEL columns(
    i64 rows, i64 units, real setting, EACH(const real*, y), EACH(const real*, dy), EACH(real*, d),
    EACH(real*, sums))
{
    __shared__ real parts[8][32];
    ACTIVATION<real> activation(setting);
    u32 groups = ((u32)units + 31) / 32, slices = ((u32)rows + SLICE - 1) / SLICE;
    u32 layer = blockIdx.x / (groups * slices), slice = blockIdx.x / groups % slices;
    const real *y = CHOSEN(y, layer), *dy = CHOSEN(dy, layer);
    real *d = CHOSEN(d, layer), *sums = CHOSEN(sums, layer);
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

#ifdef ROWS  // room for examples, few: the number of kernels and the traffic of W take the time

// y = a(x W + b).  LANES neighbouring units of W are read by as many neighbouring threads, and the
// inputs are shared among the others of a block.
KERNEL few_forward(
    i64 rows, i64 inputs, i64 units, real setting, const real* x, EACH(const real*, w),
    EACH(const real*, b), EACH(real*, y))
{
    __shared__ real parts[THREADS];
    ACTIVATION<real> activation(setting);
    u32 groups = ((u32)units + LANES - 1) / LANES, layer = blockIdx.x / groups;
    u32 lane = threadIdx.x % LANES, part = threadIdx.x / LANES;
    u32 unit = blockIdx.x % groups * LANES + lane;
    const real *w = CHOSEN(w, layer), *b = CHOSEN(b, layer);
    real* y = CHOSEN(y, layer);
    real sums[ROWS] = {};
    if (unit < (u32)units) {
        for (u32 k = part; k < (u32)inputs; k += THREADS / LANES) {
            real weight = w[k * (u32)units + unit];
#pragma unroll
            for (u32 row = 0; row < ROWS; ++row)
                if (row < (u32)rows) sums[row] += x[row * (u32)inputs + k] * weight;
        }
    }
#pragma unroll
    for (u32 row = 0; row < ROWS; ++row) {
        if (row < (u32)rows) {
            parts[threadIdx.x] = sums[row];
            __syncthreads();
            if (part == 0 && unit < (u32)units) {
                real sum = parts[lane];
                for (u32 other = lane + LANES; other < THREADS; other += LANES) sum += parts[other];
                y[row * (u32)units + unit] = activation.value(sum + b[unit]);
            }
            __syncthreads();
        }
    }
}

// All gradients.  A row of W is read, and one of dW written, by 32 threads, SPAN units of it in a
// block; the bias is the row of one more input, which is 1.  The sums for dx go to `dx` itself where
// a block sees whole rows of the only layer, else to a slice for each span of each layer.
KERNEL few_backward(
    i64 rows, i64 inputs, i64 units, i64 layers, real setting, const real* x, real* dx,
    EACH(const real*, y), EACH(const real*, dy), EACH(const real*, w), EACH(real*, dw),
    EACH(real*, db))
{
    ACTIVATION<real> activation(setting);
    u32 spans = ((u32)units + SPAN - 1) / SPAN, slices = spans * (u32)layers;
    u32 slice = blockIdx.x % slices, span = slice % spans, layer = slice / spans;
    u32 lane = threadIdx.x % 32, input = blockIdx.x / slices * 8 + threadIdx.x / 32;
    u32 stop = (span + 1) * SPAN < (u32)units ? (span + 1) * SPAN : (u32)units;
    const real *y = CHOSEN(y, layer), *dy = CHOSEN(dy, layer), *w = CHOSEN(w, layer);
    real *dw = CHOSEN(dw, layer), *db = CHOSEN(db, layer);
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
        if (row < (u32)rows) {
            double sum = lanes_sum(sums[row], 32);
            if (lane == 0 && is_weight)
                dx[(slice * (u32)rows + row) * (u32)inputs + input] = (real)sum;
        }
    }
}

#endif
