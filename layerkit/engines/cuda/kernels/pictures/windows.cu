// Convolution and Deconvolution: windows cut from pictures and put back, and what goes before and
// after the products.  Pictures are (n, channels, height, width); windows lie in rows, one for each
// of the places of a grid, group by group of the channels: (groups, n * down * across,
// rows * columns * channels / groups).
#include "../device.h"
#include "../../../formulas/activations.h"

struct Windows {
    i64 rows, columns;  // of a window
    i64 stride[2], pad[2], dilation[2];
    i64 down, across, groups, channels, height, width;
};

#define GEOMETRY \
    i64 rows, i64 columns, i64 stride_down, i64 stride_across, i64 pad_down, i64 pad_across, \
    i64 dilation_down, i64 dilation_across, i64 down, i64 across, i64 groups, i64 channels, \
    i64 height, i64 width
#define WINDOWS \
    Windows{rows, columns, {stride_down, stride_across}, {pad_down, pad_across}, \
            {dilation_down, dilation_across}, down, across, groups, channels, height, width}

// Cuts n pictures into windows (im2col); pixels outside are 0.
FORMULA real cut(Windows s, i64 n, i64 i, const real* pictures)
{
    i64 of_group = s.channels / s.groups, c = i % of_group;
    i64 v = i / of_group % s.columns, u = i / (of_group * s.columns) % s.rows;
    i64 window = i / (of_group * s.columns * s.rows), places = s.down * s.across;
    i64 group = window / (n * places), example = window / places % n;
    i64 row = window / s.across % s.down * s.stride[0] + u * s.dilation[0] - s.pad[0];
    i64 column = window % s.across * s.stride[1] + v * s.dilation[1] - s.pad[1];
    if (row < 0 || row >= s.height || column < 0 || column >= s.width) return 0;
    i64 plane = example * s.channels + group * of_group + c;
    return pictures[(plane * s.height + row) * s.width + column];
}

KERNEL cut_windows(i64 size, i64 n, GEOMETRY, const real* pictures, real* windows)
{
    i64 i = place();
    if (i < size) windows[i] = cut(WINDOWS, n, i, pictures);
}

// The first window along an axis that reaches pixel `at`, counted from the edge of the border.
FORMULA i64 first_window(i64 at, i64 kernel, i64 stride, i64 dilation)
{
    i64 reach = (kernel - 1) * dilation + 1;
    return at < reach ? 0 : (at - reach) / stride + 1;
}

// Whether a pixel so far into a window is one of it, and if so, which.
FORMULA bool is_in_window(i64& far, i64 dilation)
{
    if (dilation == 1) return true;
    i64 gaps = far / dilation, rest = far % dilation;
    far = gaps;
    return rest == 0;
}

// Adds up what all windows hold for one pixel (col2im), in the order of the windows.
FORMULA real pixel_sum(Windows s, i64 n, i64 i, const real* windows)
{
    i64 column = i % s.width, row = i / s.width % s.height, plane = i / (s.width * s.height);
    i64 of_group = s.channels / s.groups, c = plane % s.channels, example = plane / s.channels;
    i64 bottom = row + s.pad[0], right = column + s.pad[1];
    i64 first_down = first_window(bottom, s.rows, s.stride[0], s.dilation[0]);
    i64 first_across = first_window(right, s.columns, s.stride[1], s.dilation[1]);
    real sum = 0;
    for (i64 a = first_down; a < s.down && a * s.stride[0] <= bottom; ++a) {
        i64 u = bottom - a * s.stride[0];
        if (!is_in_window(u, s.dilation[0])) continue;
        for (i64 b = first_across; b < s.across && b * s.stride[1] <= right; ++b) {
            i64 v = right - b * s.stride[1];
            if (!is_in_window(v, s.dilation[1])) continue;
            i64 window = ((c / of_group * n + example) * s.down + a) * s.across + b;
            sum += windows[((window * s.rows + u) * s.columns + v) * of_group + c % of_group];
        }
    }
    return sum;
}

// Pictures from windows, with a bias for each channel, unless that is 0, and an activation unless
// they are diffs.
KERNEL add_up_windows(
    i64 size, i64 n, GEOMETRY, i64 diffs, real setting, const real* windows, const real* bias,
    real* pictures)
{
    i64 i = place();
    if (i >= size) return;
    real sum = pixel_sum(WINDOWS, n, i, windows);
    if (bias) sum += bias[i / (width * height) % channels];
    pictures[i] = diffs ? sum : ACTIVATION<real>(setting).value(sum);
}

// (n * places, channels) as (n, channels, places), with a bias, unless that is 0, and an activation
// unless they are diffs.
KERNEL channels_first(
    i64 size, i64 channels, i64 places, i64 diffs, real setting, const real* rows, const real* bias,
    real* y)
{
    i64 i = place();
    if (i >= size) return;
    i64 at = i % places, c = i / places % channels, example = i / (places * channels);
    real x = rows[(example * places + at) * channels + c] + (bias ? bias[c] : (real)0);
    y[i] = diffs ? x : ACTIVATION<real>(setting).value(x);
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
