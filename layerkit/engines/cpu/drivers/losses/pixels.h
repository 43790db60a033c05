// Losses and sampling: what is done to every pixel or latent number.
#pragma once

#include "../../vectors/formulas.h"
#include "../../threads/pool.h"

namespace layerkit {
namespace LAYERKIT_SET {

constexpr i64 parts = 4;  // into which an example is cut

// One example's share: the sum of a part's terms, and the diffs that are wanted.  With a mask each
// term holds twice its constant, and is multiplied by the mask's number for it.
template <bool masked, class T, class Formula>
LAYERKIT_INLINE T explain(
    const Formula& formula, i64 size, const T* __restrict x, const T* __restrict mean,
    const T* __restrict log_variance, const T* __restrict skew, const T* __restrict mask, T constant,
    T floor, T s, T* __restrict dx, T* __restrict dmean, T* __restrict dlog_variance,
    T* __restrict dskew)
{
    constexpr i64 chunk = 64;
    T totals[chunk] = {};  // a sum that vectorises, and does not depend on how it is compiled
    for (i64 start = 0; start < size; start += chunk) {
        i64 count = std::min(chunk, size - start);
        T r[chunk], spread[chunk], turn[chunk];
        for (i64 i = 0; i < count; ++i) {
            i64 j = start + i;
            T e = exp_of(log_variance[j]), v = e + floor, d = x[j] - mean[j], term;
            if constexpr (masked) d = mask[j] != 0 ? d : T(0);  // whatever x is there
            formula(d, v, skew ? skew[j] : T(0), term, r[i], turn[i]);
            totals[i] += masked ? mask[j] * (term + 2 * constant) : term;
            spread[i] = (1 - d * r[i]) * (e / v);
        }
        if constexpr (masked)
            for (i64 i = 0; i < count; ++i) {
                T share = mask[start + i];
                r[i] *= share;
                spread[i] *= share;
                turn[i] *= share;
            }
        if (dx) for (i64 i = 0; i < count; ++i) dx[start + i] = s * r[i];
        if (dmean) for (i64 i = 0; i < count; ++i) dmean[start + i] = -s * r[i];
        if (dlog_variance)
            for (i64 i = 0; i < count; ++i) dlog_variance[start + i] = T(0.5) * s * spread[i];
        if (dskew) for (i64 i = 0; i < count; ++i) dskew[start + i] = s * turn[i];
    }
    for (i64 half = chunk / 2; half > 0; half /= 2)
        for (i64 i = 0; i < half; ++i) totals[i] += totals[i + half];
    return totals[0];
}

template <class T, class Formula>
void likelihood(
    const Formula& formula, double constant, double floor, Matrix<T> x, Matrix<T> mean,
    Matrix<T> log_variance, Matrix<T> skew, Matrix<T> mask, const T* scale, T* loss, Matrix<T> dx,
    Matrix<T> dmean, Matrix<T> dlog_variance, Matrix<T> dskew)
{
    i64 pixels = x.columns, width = ((pixels + parts * 16 - 1) / (parts * 16)) * 16;
    double* sums = work_space<struct OfLikelihood, double>(x.rows * parts);
    auto part = [](Matrix<T> m, i64 row, i64 start) {
        return m.rows ? m.row(row) + start : nullptr;
    };
    parallel(x.rows * parts, [&](i64 i) {
        i64 row = i / parts, start = std::min(i % parts * width, pixels);
        i64 stop = std::min(start + width, pixels);
        auto share = [&](auto masked) {
            return explain<masked.value, T>(
                formula, stop - start, x.row(row) + start, mean.row(row) + start,
                log_variance.row(row) + start, part(skew, row, start), part(mask, row, start),
                T(constant), T(floor), scale[row], part(dx, row, start), part(dmean, row, start),
                part(dlog_variance, row, start), part(dskew, row, start));
        };
        sums[i] = mask.rows ? share(std::true_type()) : share(std::false_type());
    });
    for (i64 row = 0; row < x.rows; ++row) {
        double total = 0;
        for (i64 p = 0; p < parts; ++p) total += sums[row * parts + p];
        loss[row] = T(0.5 * total + (mask.rows ? 0.0 : double(pixels) * constant));
    }
}

template <class T>
void reparameterize(
    i64 size, const T* mean, const T* log_variance, T* scaled, T* z, bool sample,
    unsigned long long seed, unsigned stream, unsigned long long step)
{
    constexpr i64 blocks = 64;  // of four numbers, in a piece of work
    i64 all = (size + 3) / 4;
    parallel((all + blocks - 1) / blocks, [&](i64 i) {
        for (i64 block = i * blocks; block < std::min((i + 1) * blocks, all); ++block) {
            double noise[4];
            normal_block(unsigned(block), seed, stream, step, noise);
            for (i64 k = 0; k < std::min<i64>(4, size - 4 * block); ++k) {
                i64 j = 4 * block + k;
                scaled[j] = sample ? T(noise[k]) * exp_of(T(0.5) * log_variance[j]) : T(0);
                z[j] = mean[j] + scaled[j];
            }
        }
    });
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
