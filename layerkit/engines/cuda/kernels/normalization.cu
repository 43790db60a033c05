// Normalization.  A group of numbers, or a gain, belongs to `lanes` neighbouring threads; elements are
// counted with 32 bits, whose division is fast.
#include "device.h"
#include "../../formulas/weights/normalization.h"

typedef GroupsOf<u32> Groups;
#define GROUPS i64 outer, i64 groups, i64 inner, i64 count, i64 spread, i64 one, i64 lanes

// The running estimates follow those of the batch, or at a momentum of 1 are used in their place; 0
// where there are none.
KERNEL normalize(
    GROUPS, const real* x, const real* gain, const real* bias, double epsilon, double momentum,
    real* normalized, real* inverse, real* running_mean, real* running_variance, real* y)
{
    Groups s{(u32)outer, (u32)groups, (u32)inner, (u32)count, (u32)spread, one != 0};
    u32 group = (u32)(place() / lanes), lane = threadIdx.x % (u32)lanes;
    bool own = group < (u32)groups, given = running_mean && momentum == 1;
    u32 size = own ? s.numbers() : 0;
    double mean = 0, variance = 0;
    if (given && own) {
        mean = running_mean[group];
        variance = running_variance[group];
    }
    if (!given) {
        for (u32 k = lane; k < size; k += (u32)lanes) mean += x[s.element(group, k)];
        mean = lanes_sum(mean, (u32)lanes) / s.numbers();
        for (u32 k = lane; k < size; k += (u32)lanes) {
            double d = x[s.element(group, k)] - mean;
            variance += d * d;
        }
        variance = lanes_sum(variance, (u32)lanes) / s.numbers();
    }
    real centre = (real)mean, factor = (real)(1 / sqrt(variance + epsilon));
    for (u32 k = lane; k < size; k += (u32)lanes) {
        u32 i = s.element(group, k), c = s.one ? group : s.channel(i);
        real d = (x[i] - centre) * factor;
        normalized[i] = d;
        y[i] = (gain ? d * gain[c] : d) + (bias ? bias[c] : (real)0);
    }
    if (!own || lane) return;
    inverse[group] = factor;
    if (running_mean && !given) {
        follow(running_mean[group], momentum, mean, 1);
        follow(running_variance[group], momentum, variance, without_bias(s.numbers()));
    }
}

// dx `through` mean and variance, where they were those of x; and the diffs of gain and bias, where
// those are a group's.
KERNEL normalize_backward(
    GROUPS, i64 through, const real* normalized, const real* inverse, const real* gain,
    const real* dy, real* dgain, real* dbias, real* dx)
{
    Groups s{(u32)outer, (u32)groups, (u32)inner, (u32)count, (u32)spread, one != 0};
    u32 group = (u32)(place() / lanes), lane = threadIdx.x % (u32)lanes;
    bool own = group < (u32)groups;
    u32 size = own ? s.numbers() : 0;
    double sums[2] = {};  // of dy, and of dy d; times the gain where those of the group differ
    for (u32 k = lane; k < size; k += (u32)lanes) {
        u32 i = s.element(group, k);
        double slope = s.one || !gain ? (double)dy[i] : (double)dy[i] * gain[s.channel(i)];
        sums[0] += slope;
        sums[1] += slope * normalized[i];
    }
    lanes_sums<2>(sums, (u32)lanes);
    if (own && s.one && lane == 0) {
        if (dbias) dbias[group] = (real)sums[0];
        if (dgain) dgain[group] = (real)sums[1];
    }
    if (!own || !dx) return;
    double share = (through ? 1.0 / s.numbers() : 0) * (s.one && gain ? gain[group] : (real)1);
    real mean = (real)(sums[0] * share), product = (real)(sums[1] * share);
    for (u32 k = lane; k < size; k += (u32)lanes) {
        u32 i = s.element(group, k);
        real slope = gain ? dy[i] * gain[s.one ? group : s.channel(i)] : dy[i];
        dx[i] = slope_of(slope, mean, normalized[i], product, inverse[group]);
    }
}

// The diffs of gains and biases that several groups have.
KERNEL sum_slopes(GROUPS, const real* normalized, const real* dy, real* dgain, real* dbias)
{
    Groups s{(u32)outer, (u32)groups, (u32)inner, (u32)count, (u32)spread, one != 0};
    u32 c = (u32)(place() / lanes), lane = threadIdx.x % (u32)lanes;
    u32 size = c < (u32)count ? s.size() / s.count : 0;
    double sums[2] = {};
    for (u32 k = lane; k < size; k += (u32)lanes) {
        u32 i = (k / s.spread * s.count + c) * s.spread + k % s.spread;
        sums[0] += dy[i];
        sums[1] += (double)dy[i] * normalized[i];
    }
    lanes_sums<2>(sums, (u32)lanes);
    if (!size || lane) return;
    if (dbias) dbias[c] = (real)sums[0];
    if (dgain) dgain[c] = (real)sums[1];
}
