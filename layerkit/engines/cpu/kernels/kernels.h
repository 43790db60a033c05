// What the extension offers to Python, as a table that each instruction set fills.
#pragma once

#include "../vectors/array.h"

namespace layerkit {

// An Array that is not there has no rows.  A clock has the seed, the number of the pass, and whether
// to sample.
struct Kernels {
    const char* name;
    int vector_bytes;
    const char* activations;  // their names, in the order of their numbers

    void (*multiply)(Array a, Array b, Array c, bool add);
    void (*products)(Array a, Array b, Array c);  // of as many matrices as there are
    void (*copy)(Array from, Array to);
    void (*magnitude)(Array array, Array found);  // the largest |a|; NaN where there is one
    void (*gradient_bound)(Array x, Array d, double slope, Array bound);
    void (*fill)(Array array, Array number);        // a = number, of float64
    void (*add_number)(Array array, Array number);  // a = a + number
    void (*add)(Array a, Array b, Array sum);       // which may be one of them
    void (*multiply_elements)(Array a, Array b, Array product);
    void (*mean)(Array array, Array found);
    void (*copy_rows)(Array from, Array to);  // matrices of any strides
    void (*exponential)(Array x, Array y);
    void (*logarithm)(Array x, Array y);
    void (*activate)(int kind, double setting, Array x, Array y);  // which may be one
    void (*differentiate)(int kind, double setting, Array known, Array dy, Array dx);
    void (*update)(int kind, Array w, Array g, Array first, Array second, Array constants);
    void (*approach)(Array average, Array w, double share);
    void (*constrain)(Array w, double most);
    void (*dense_forward)(Array x, Array w, Array b, double slope, Array y);
    void (*dense_backward)(
        Array x, Array y, Array dy, double slope, Array before, Array w, Array b, Array dw, Array db,
        Array dx, int kind, Array w_first, Array w_second, Array b_first,
        Array b_second, Array constants);
    void (*gaussian)(
        Array x, Array mean, Array log_variance, double floor, Array scale, Array loss, Array dx,
        Array dmean, Array dlog_variance);
    void (*student)(
        Array x, Array mean, Array log_variance, Array skew, double floor, double degrees, double fold,
        double constant, Array scale, Array loss, Array dx, Array dmean,
        Array dlog_variance, Array dskew);
    void (*divergence)(
        Array mean, Array log_variance, Array prior_mean, Array prior_log_variance, Array loss);
    void (*divergence_backward)(
        Array mean, Array log_variance, Array prior_mean, Array prior_log_variance, Array scale,
        Array dmean, Array dlog_variance, Array dprior_mean, Array dprior_log_variance);
    void (*reparameterize)(
        Array mean, Array log_variance, Array scaled, Array z, unsigned stream, Array clock);
    void (*reparameterize_backward)(Array scaled, Array dz, Array dmean, Array dlog_variance);
    // sizes: outer, groups, inner, count, spread, one; see normalization.h.
    void (*normalize)(
        Array x, Array gain, Array bias, Array sizes, double epsilon, double momentum,
        Array normalized, Array inverse, Array running_mean, Array running_variance, Array y);
    void (*normalize_backward)(
        Array normalized, Array inverse, Array gain, Array dy, Array sizes, bool through,
        Array dgain, Array dbias, Array dx);
    // geometry: kernel, stride, pad and dilation, each for rows and for columns; windows down and
    // across; groups.  Without a bias b is absent.
    void (*windowed_forward)(
        Array x, Array w, Array b, double slope, Array y, Array geometry, bool transposed);
    void (*windowed_backward)(
        Array x, Array y, Array dy, double slope, Array before, Array w, Array dw, Array db,
        Array dx, Array geometry, bool transposed);
    // geometry: kernel, stride, pad and dilation, each for rows and for columns; windows down and
    // across.  Places, int32, are absent for means.
    void (*pool_windows)(Array x, Array y, Array places, Array geometry);
    void (*unpool_windows)(Array dy, Array places, Array dx, Array geometry);
    void (*measure_poses)(
        Array images, double threshold, double unit, double span, double size_spread,
        double shift_spread, Array poses);
    void (*resample)(
        Array pictures, Array poses, long long side, double span, double size_spread,
        double shift_spread, bool inverse, Array maps, Array tops);
    void (*resample_backward)(
        Array pictures, Array poses, long long side, double span, double size_spread,
        double shift_spread, bool inverse, Array maps, Array dtops, Array dpictures, Array dposes);
    void (*gather)(
        Array source, Array index, Array out, long long filled, double scale, Array table,
        unsigned long long seed, unsigned stream, unsigned long long step);
};

extern const Kernels baseline_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels, avx512_kernels;
#endif

}  // namespace layerkit
