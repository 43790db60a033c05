// Losses: sums over each example, and all diffs in the same pass.
#include "device.h"
#include "../../formulas/losses/divergence.h"
#include "../../formulas/losses/likelihoods.h"
#include "../../formulas/losses/pairs.h"

// An example belongs to `lanes` neighbouring threads.
template <class Pair>
FORMULA void sum_pairs(
    Pair pair, i64 rows, i64 size, i64 lanes, const real* a, const real* b, const real* scale,
    real* loss, real* da, real* db)
{
    i64 row = place() / lanes;
    double total = 0;
    if (row < rows) {
        real s = scale ? scale[row] : (real)0;
        for (i64 k = threadIdx.x % lanes; k < size; k += lanes) {
            i64 j = row * size + k;
            total += pair.term(a[j], b[j]);
            if (da) da[j] = s * pair.by_first(a[j], b[j]);
            if (db) db[j] = s * pair.by_second(a[j], b[j]);
        }
    }
    total = lanes_sum(total, (u32)lanes);
    if (row < rows && threadIdx.x % lanes == 0) loss[row] = (real)(Pair::factor * total);
}

KERNEL squared_distance(
    i64 rows, i64 size, i64 lanes, const real* a, const real* b, const real* scale, real* loss,
    real* da, real* db)
{
    sum_pairs(SquaredDistance<real>(0), rows, size, lanes, a, b, scale, loss, da, db);
}

KERNEL bernoulli_entropy(
    i64 rows, i64 size, i64 lanes, const real* a, const real* b, const real* scale, real* loss,
    real* da, real* db)
{
    sum_pairs(BernoulliEntropy<real>(0), rows, size, lanes, a, b, scale, loss, da, db);
}

KERNEL huber_distance(
    i64 rows, i64 size, i64 lanes, real delta, const real* a, const real* b, const real* scale,
    real* loss, real* da, real* db)
{
    sum_pairs(HuberDistance<real>(delta), rows, size, lanes, a, b, scale, loss, da, db);
}

KERNEL divergence(
    i64 rows, i64 size, i64 lanes, const real* mean, const real* log_variance,
    const real* prior_mean, const real* prior_log_variance, const real* scale, real* loss,
    real* dmean, real* dlog_variance, real* dprior_mean, real* dprior_log_variance)
{
    i64 row = place() / lanes;
    double total = 0;
    if (row < rows) {
        double s = scale ? scale[row] : (real)0;
        for (i64 j = row * size + threadIdx.x % lanes; j < (row + 1) * size; j += lanes) {
            Divergence of(
                mean[j], log_variance[j], prior_mean ? prior_mean[j] : (real)0,
                prior_mean ? prior_log_variance[j] : (real)0);
            total += of.twice();
            if (dmean) dmean[j] = (real)(s * of.by_mean());
            if (dlog_variance) dlog_variance[j] = (real)(s * of.by_log_variance());
            if (dprior_mean) dprior_mean[j] = (real)(s * of.by_prior_mean());
            if (dprior_log_variance)
                dprior_log_variance[j] = (real)(s * of.by_prior_log_variance());
        }
    }
    total = lanes_sum(total, (u32)lanes);
    if (row < rows && threadIdx.x % lanes == 0) loss[row] = (real)(0.5 * total);
}

// A block of threads for each example; `constant` is that of a pixel's loss.
template <class Pixel>
FORMULA void likelihood(
    Pixel pixel, i64 pixels, const real* x, const real* mean, const real* log_variance,
    const real* skew, const real* mask, real floor, double constant, const real* scale, real* loss,
    real* dx, real* dmean, real* dlog_variance, real* dskew)
{
    i64 row = blockIdx.x;
    real of_row = scale ? scale[row] : (real)0, total = 0;
    for (i64 k = threadIdx.x; k < pixels; k += THREADS) {
        i64 j = row * pixels + k;
        real share = mask ? mask[j] : (real)1, s = mask ? share * of_row : of_row;
        real e = exp_of(log_variance[j]), v = e + floor, term, r, by_skew;
        real d = share != 0 ? x[j] - mean[j] : (real)0;  // whatever x is there
        pixel(d, v, skew ? skew[j] : (real)0, term, r, by_skew);
        total += mask ? share * (term + 2 * (real)constant) : term;
        if (dx) dx[j] = s * r;
        if (dmean) dmean[j] = -s * r;
        if (dlog_variance) dlog_variance[j] = (real)0.5 * s * ((1 - d * r) * (e / v));
        if (dskew) dskew[j] = s * by_skew;
    }
    double sum = lanes_sum(total, THREADS);
    if (threadIdx.x == 0) loss[row] = (real)(0.5 * sum + (mask ? 0.0 : pixels * constant));
}

KERNEL gaussian(
    i64 pixels, const real* x, const real* mean, const real* log_variance, const real* mask,
    real floor, double constant, const real* scale, real* loss, real* dx, real* dmean,
    real* dlog_variance)
{
    likelihood(
        GaussianPixel<real>(), pixels, x, mean, log_variance, nullptr, mask, floor, constant, scale,
        loss, dx, dmean, dlog_variance, nullptr);
}

KERNEL student(
    i64 pixels, real degrees, real fold, const real* x, const real* mean, const real* log_variance,
    const real* skew, const real* mask, real floor, double constant, const real* scale, real* loss,
    real* dx, real* dmean, real* dlog_variance, real* dskew)
{
    likelihood(
        StudentPixel<real>{degrees - 2, fold}, pixels, x, mean, log_variance, skew, mask, floor,
        constant, scale, loss, dx, dmean, dlog_variance, dskew);
}

#ifndef LABEL
#define LABEL real  // what holds labels: i64 where they are integers
#endif

KERNEL softmax_loss(
    i64 rows, i64 classes, i64 lanes, const real* logits, const LABEL* label, const real* scale,
    real* loss, real* dlogits)
{
    __shared__ real tops[THREADS];
    i64 row = place() / lanes;
    u32 lane = threadIdx.x % (u32)lanes, first = threadIdx.x - lane;
    real largest = log_of((real)0);  // minus infinity
    if (row < rows)
        for (i64 k = lane; k < classes; k += lanes) {
            real logit = logits[row * classes + k];
            largest = logit > largest ? logit : largest;
        }
    tops[threadIdx.x] = largest;
    __syncthreads();
    for (u32 other = 0; other < (u32)lanes; ++other)
        largest = tops[first + other] > largest ? tops[first + other] : largest;
    double sums[3] = {};  // of exp(logit), of the label's logit, of labels found
    if (row < rows)
        for (i64 k = lane; k < classes; k += lanes) {
            real shifted = logits[row * classes + k] - largest;
            sums[0] += exp_of(shifted);
            if (label[row] == (LABEL)k) {
                sums[1] = shifted;
                sums[2] = 1;
            }
        }
    lanes_sums<3>(sums, (u32)lanes);
    if (row >= rows) return;
    // A label that is no class has a probability of zero.
    if (lane == 0) loss[row] = (real)(log(sums[0]) - (sums[2] > 0 ? sums[1] : log(0.0)));
    if (!dlogits) return;
    for (i64 k = lane; k < classes; k += lanes) {
        real p = (real)(exp_of(logits[row * classes + k] - largest) / sums[0]);
        dlogits[row * classes + k] = scale[row] * (p - (label[row] == (LABEL)k ? 1 : 0));
    }
}
