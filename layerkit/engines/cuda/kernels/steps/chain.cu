// Small layers one after another in one launch, of one block: for few examples it is the number of
// launches that takes the time.  ROWS is the room for examples.
#include "../device.h"
#include "../../../formulas/philox.h"

enum Kind { DENSE, DENSE_BACKWARD, SAMPLE, SAMPLE_BACKWARD, SUM };

// One of them, as engines/cuda/chain.py lays it out.  Arrays that are not wanted are at address 0.
struct Stage {
    i64 kind, inputs, units;
    i64 flag;      // DENSE_BACKWARD: whether to add to dx.  SAMPLE: whether to.
    double slope;  // of the activation below zero
    u64 seed;
    i64 stream;
    real* array[9];
};

FORMULA real activated(real slope, real x) { return x > 0 ? x : slope == 0 && x <= 0 ? 0 : slope * x; }

// Arrays: x, W, b, y.  Eight threads share the inputs of a unit.
FORMULA void dense(const Stage& s, u32 rows)
{
    __shared__ real parts[THREADS];
    const real *x = s.array[0], *w = s.array[1], *b = s.array[2];
    u32 inputs = (u32)s.inputs, units = (u32)s.units, lane = threadIdx.x % 32, part = threadIdx.x / 32;
    for (u32 unit = lane; unit - lane < units; unit += 32) {
        real sums[ROWS] = {};
        if (unit < units) {
            for (u32 k = part; k < inputs; k += THREADS / 32) {
                real weight = w[k * units + unit];
#pragma unroll
                for (u32 row = 0; row < ROWS; ++row)
                    if (row < rows) sums[row] += x[row * inputs + k] * weight;
            }
        }
#pragma unroll
        for (u32 row = 0; row < ROWS; ++row) {
            if (row < rows) {
                parts[threadIdx.x] = sums[row];
                __syncthreads();
                if (part == 0 && unit < units) {
                    real sum = parts[lane];
                    for (u32 other = lane + 32; other < THREADS; other += 32) sum += parts[other];
                    s.array[3][row * units + unit] = activated((real)s.slope, sum + b[unit]);
                }
                __syncthreads();
            }
        }
    }
}

// Arrays: x, W, y, dy, dW, db, dx.  32 threads share an input; the bias is the row of one more.
FORMULA void dense_backward(const Stage& s, u32 rows)
{
    const real *x = s.array[0], *w = s.array[1], *y = s.array[2], *dy = s.array[3];
    real *dw = s.array[4], *db = s.array[5], *dx = s.array[6], slope = (real)s.slope;
    u32 inputs = (u32)s.inputs, units = (u32)s.units, lane = threadIdx.x % 32, part = threadIdx.x / 32;
    for (u32 input = part; input - part <= inputs; input += THREADS / 32) {
        bool is_weight = input < inputs;
        double sums[ROWS] = {};
        for (u32 unit = input <= inputs ? lane : units; unit < units; unit += 32) {
            u32 i = input * units + unit;
            real g = 0, weight = is_weight ? w[i] : (real)0;
#pragma unroll
            for (u32 row = 0; row < ROWS; ++row) {
                if (row < rows) {
                    u32 j = row * units + unit;
                    real d = y[j] > 0 ? dy[j] : slope * dy[j];
                    g += is_weight ? x[row * inputs + input] * d : d;
                    sums[row] += d * weight;
                }
            }
            if (is_weight && dw) dw[i] = g;
            if (!is_weight && input == inputs && db) db[unit] = g;
        }
        if (!dx) continue;
        for (u32 row = 0; row < ROWS; ++row) {
            if (row < rows) {
                double sum = lanes_sum(sums[row], 32);
                if (lane == 0 && is_weight) {
                    u32 j = row * inputs + input;
                    dx[j] = s.flag ? dx[j] + (real)sum : (real)sum;
                }
            }
        }
    }
}

// Arrays: mean, log variance, scaled, z; see kernels/elementwise.cu.
FORMULA void sample(const Stage& s, u32 rows, const i64* clock)
{
    u32 size = rows * (u32)s.units;
    for (u32 block = threadIdx.x; 4 * block < size; block += THREADS) {
        double noise[4];
        normal_block(block, s.seed, (u32)s.stream, (u64)clock[PASS], noise);
        for (u32 k = 0; k < 4 && 4 * block + k < size; ++k) {
            u32 j = 4 * block + k;
            real scaled = s.flag ? (real)noise[k] * exp_of((real)0.5 * s.array[1][j]) : (real)0;
            s.array[2][j] = scaled;
            s.array[3][j] = s.array[0][j] + scaled;
        }
    }
}

// Arrays: scaled, dz, dmean, dlog_variance.
FORMULA void sample_backward(const Stage& s, u32 rows)
{
    for (u32 i = threadIdx.x; i < rows * (u32)s.units; i += THREADS) {
        real dz = s.array[1][i];
        if (s.array[2]) s.array[2][i] = dz;
        if (s.array[3]) s.array[3][i] = dz * ((real)0.5 * s.array[0][i]);
    }
}

// Arrays: a, b, their sum.
FORMULA void sum(const Stage& s, u32 rows)
{
    for (u32 i = threadIdx.x; i < rows * (u32)s.units; i += THREADS)
        s.array[2][i] = s.array[0][i] + s.array[1][i];
}

KERNEL chain(i64 rows, i64 stages, const Stage* table, const i64* clock)
{
    for (i64 i = 0; i < stages; ++i) {
        const Stage& s = table[i];
        if (s.kind == DENSE) dense(s, (u32)rows);
        else if (s.kind == DENSE_BACKWARD) dense_backward(s, (u32)rows);
        else if (s.kind == SAMPLE) sample(s, (u32)rows, clock);
        else if (s.kind == SAMPLE_BACKWARD) sample_backward(s, (u32)rows);
        else sum(s, (u32)rows);
        __syncthreads();  // the next stage reads what this one has written
    }
}
