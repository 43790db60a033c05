// Layers and sums that work element by element.
#include "device.h"
#include "../../formulas/philox.h"

KERNEL add(i64 size, const real* a, const real* b, real* sum)
{
    i64 i = place();
    if (i < size) sum[i] = a[i] + b[i];
}

// Up to three sums of as many numbers.
KERNEL add_each(
    i64 size, i64 sums, const real* a0, const real* a1, const real* a2, const real* b0,
    const real* b1, const real* b2, real* sum0, real* sum1, real* sum2)
{
    i64 i = place() % size, which = place() / size;
    if (which >= sums) return;
    const real *a = which == 0 ? a0 : which == 1 ? a1 : a2, *b = which == 0 ? b0 : which == 1 ? b1 : b2;
    (which == 0 ? sum0 : which == 1 ? sum1 : sum2)[i] = a[i] + b[i];
}

KERNEL multiply(i64 size, const real* a, const real* b, real* product)
{
    i64 i = place();
    if (i < size) product[i] = a[i] * b[i];
}

// Each row of `width` numbers times the same `factors`.
KERNEL multiply_rows(i64 size, i64 width, const real* rows, const real* factors, real* products)
{
    i64 i = place();
    if (i < size) products[i] = rows[i] * factors[i % width];
}

// Rows of `width` numbers, which lie `apart` numbers apart.
KERNEL copy_rows(i64 size, i64 width, const real* from, i64 from_apart, real* to, i64 to_apart)
{
    i64 i = place();
    if (i < size) to[i / width * to_apart + i % width] = from[i / width * from_apart + i % width];
}

KERNEL dropout(
    i64 size, const real* x, real* y, double ratio, real scale, u64 seed, u32 stream,
    const i64* clock)
{
    i64 block = place();
    if (4 * block >= size) return;
    u32 words[4];
    philox_block((u32)block, seed, stream, (u64)clock[PASS], words);
    for (i64 k = 0; k < 4 && 4 * block + k < size; ++k) {
        i64 j = 4 * block + k;
        y[j] = x[j] * (uniform_of(words[k]) >= ratio ? scale : (real)0);
    }
}

// z = mean + scaled, where `scaled` is noise times exp(log_variance / 2), or 0 without sampling.
KERNEL reparameterize(
    i64 size, const real* mean, const real* log_variance, real* scaled, real* z, i64 sample,
    u64 seed, u32 stream, const i64* clock)
{
    i64 block = place();
    if (4 * block >= size) return;
    double noise[4];
    normal_block((u32)block, seed, stream, (u64)clock[PASS], noise);
    for (i64 k = 0; k < 4 && 4 * block + k < size; ++k) {
        i64 j = 4 * block + k;
        scaled[j] = sample ? (real)noise[k] * exp_of((real)0.5 * log_variance[j]) : (real)0;
        z[j] = mean[j] + scaled[j];
    }
}

KERNEL reparameterize_backward(
    i64 size, const real* scaled, const real* dz, real* dmean, real* dlog_variance)
{
    i64 i = place();
    if (i >= size) return;
    if (dmean) dmean[i] = dz[i];
    if (dlog_variance) dlog_variance[i] = dz[i] * ((real)0.5 * scaled[i]);
}
