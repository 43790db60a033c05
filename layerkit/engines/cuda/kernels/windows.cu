// Convolution and Deconvolution: windows cut from pictures and put back, and what goes before and
// after the products.  Pictures are (n, channels, height, width); windows lie in rows, one for each
// of the places of a grid, (n * down * across, kernel * kernel * channels).
#include "device.h"
#include "../../formulas/activations.h"

struct Windows {
    i64 channels, height, width, kernel, stride, pad, down, across;
};

#define GEOMETRY \
    i64 channels, i64 height, i64 width, i64 kernel, i64 stride, i64 pad, i64 down, i64 across
#define WINDOWS Windows{channels, height, width, kernel, stride, pad, down, across}

// Cuts pictures into windows (im2col); pixels outside are 0.
FORMULA real cut(Windows s, i64 i, const real* pictures)
{
    i64 c = i % s.channels, v = i / s.channels % s.kernel, u = i / (s.channels * s.kernel) % s.kernel;
    i64 window = i / (s.channels * s.kernel * s.kernel);
    i64 row = window / s.across % s.down * s.stride + u - s.pad;
    i64 column = window % s.across * s.stride + v - s.pad;
    if (row < 0 || row >= s.height || column < 0 || column >= s.width) return 0;
    return pictures[((window / (s.down * s.across) * s.channels + c) * s.height + row) * s.width + column];
}

KERNEL cut_windows(i64 size, GEOMETRY, const real* pictures, real* windows)
{
    i64 i = place();
    if (i < size) windows[i] = cut(WINDOWS, i, pictures);
}

// Adds up what all windows hold for one pixel (col2im), in the order of the windows.
FORMULA real pixel_sum(Windows s, i64 i, const real* windows)
{
    i64 column = i % s.width, row = i / s.width % s.height, c = i / (s.width * s.height) % s.channels;
    i64 example = i / (s.width * s.height * s.channels);
    i64 bottom = row + s.pad, right = column + s.pad;
    i64 first_down = bottom < s.kernel ? 0 : (bottom - s.kernel) / s.stride + 1;
    i64 first_across = right < s.kernel ? 0 : (right - s.kernel) / s.stride + 1;
    real sum = 0;
    for (i64 a = first_down; a < s.down && a * s.stride <= bottom; ++a) {
        for (i64 b = first_across; b < s.across && b * s.stride <= right; ++b) {
            i64 u = bottom - a * s.stride, v = right - b * s.stride;
            i64 window = (example * s.down + a) * s.across + b;
            sum += windows[((window * s.kernel + u) * s.kernel + v) * s.channels + c];
        }
    }
    return sum;
}

// Pictures from windows, with a bias for each channel, unless that is 0, and an activation.
KERNEL add_up_windows(
    i64 size, GEOMETRY, real setting, const real* windows, const real* bias, real* pictures)
{
    i64 i = place();
    if (i >= size) return;
    real sum = pixel_sum(WINDOWS, i, windows);
    if (!bias) pictures[i] = sum;
    else pictures[i] = ACTIVATION<real>(setting).value(sum + bias[i / (width * height) % channels]);
}

// (n * places, channels) as (n, channels, places), with a bias, unless that is 0, and an activation.
KERNEL channels_first(
    i64 size, i64 channels, i64 places, real setting, const real* rows, const real* bias, real* y)
{
    i64 i = place();
    if (i >= size) return;
    i64 at = i % places, c = i / places % channels, example = i / (places * channels);
    real x = rows[(example * places + at) * channels + c];
    y[i] = bias ? ACTIVATION<real>(setting).value(x + bias[c]) : x;
}

// (n, channels, places) as (n * places, channels).
KERNEL channels_last(i64 size, i64 channels, i64 places, const real* x, real* rows)
{
    i64 i = place();
    if (i >= size) return;
    i64 c = i % channels, at = i / channels % places, example = i / (places * channels);
    rows[i] = x[(example * channels + c) * places + at];
}

// The sums of (n, channels, places) over places and a slice of the examples: (slices, channels).
// A block for each.
KERNEL channel_sums(i64 rows, i64 channels, i64 places, i64 slices, const real* x, real* sums)
{
    i64 c = blockIdx.x % channels, slice = blockIdx.x / channels, each = (rows + slices - 1) / slices;
    i64 stop = (slice + 1) * each < rows ? (slice + 1) * each : rows;
    double sum = 0;
    for (i64 example = slice * each; example < stop; ++example)
        for (i64 at = threadIdx.x; at < places; at += THREADS)
            sum += x[(example * channels + c) * places + at];
    sum = lanes_sum(sum, THREADS);
    if (threadIdx.x == 0) sums[slice * channels + c] = (real)sum;
}
