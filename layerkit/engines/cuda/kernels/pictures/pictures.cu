// ImagePose and SpatialTransform: what is done to whole pictures.
#include "../device.h"
#include "../../../formulas/pose.h"

// Pixel k of the frame, the outermost pixels of a picture.
FORMULA real frame_pixel(const real* image, i64 side, i64 k)
{
    i64 along = k / 4, last = side - 1;
    if (k % 4 == 0) return image[along];
    if (k % 4 == 1) return image[last * side + along + 1];
    return k % 4 == 2 ? image[(along + 1) * side] : image[along * side + last];
}

// The median over the frame of its pixels, or of their distances from `sky`; NaN where one is NaN.
// The whole block finds the two in the middle by their ranks.
FORMULA real frame_median(const real* image, i64 side, bool distances, real sky)
{
    __shared__ real middle[2];
    __shared__ int bad;
    i64 size = 4 * (side - 1);
    auto value = [&](i64 k) {
        real pixel = frame_pixel(image, side, k);
        return distances ? (pixel < sky ? sky - pixel : pixel - sky) : pixel;
    };
    if (threadIdx.x == 0) {
        bad = 0;
        for (i64 k = 0; k < size; ++k) if (value(k) != value(k)) bad = 1;
        if (bad) middle[0] = middle[1] = value(0) - value(0) + log_of((real)-1);
    }
    __syncthreads();
    for (i64 k = threadIdx.x; k < size && !bad; k += THREADS) {
        real own = value(k);
        i64 rank = 0;
        for (i64 other = 0; other < size; ++other) {
            real its = value(other);
            rank += its < own || (its == own && other < k);
        }
        if (rank == size / 2 - 1) middle[0] = own;
        if (rank == size / 2) middle[1] = own;
    }
    __syncthreads();
    real median = (real)0.5 * (middle[0] + middle[1]);
    __syncthreads();
    return median;
}

// Poses (n, latents) of pictures (n, side * side), for an object of `unit` pixels.  A block for each.
KERNEL measure_poses(
    i64 side, double threshold, double unit, double span, double size_spread, double shift_spread,
    i64 latents, const real* images, real* poses)
{
    const real* image = images + blockIdx.x * side * side;
    real sky = frame_median(image, side, false, 0);
    real level = sky + (real)threshold * frame_median(image, side, true, sky);
    LightMoments light((double)side, unit);
    double m[4][4], middle = (double)(side - 1) / 2;
    for (int turn = 0; turn < light.iterations; ++turn) {
        double width = light.window * light.size, scale = -0.5 / (width * width);
        for (int k = 0; k < 16; ++k) m[k / 4][k % 4] = 0;
        for (i64 i = threadIdx.x; i < side * side; i += THREADS) {
            real above = image[i] - level;
            double dx = (double)(i % side) - middle - light.x;
            double dy = (double)(i / side) - middle - light.y;
            double by_row = (above < 0 ? (real)0 : above) * exp(scale * (dx * dx + dy * dy));
            for (int k = 0; k < 4; ++k, by_row *= dy) {
                double term = by_row;
                for (int l = 0; l < 4; ++l, term *= dx) m[k][l] += term;
            }
        }
        for (int k = 0; k < 4; ++k) lanes_sums<4>(m[k], THREADS);
        light.move(m);
    }
    if (threadIdx.x != 0) return;
    double u[4];
    light.pose(m, PoseScale{span, size_spread, shift_spread}, u);
    for (i64 k = 0; k < latents; ++k) poses[blockIdx.x * latents + k] = (real)u[k];
}

// The pose of an example, of which the numbers that are missing are 0.
FORMULA Similarity similarity(const real* pose, i64 numbers, PoseScale scale, bool inverse)
{
    double u[4] = {};
    for (i64 k = 0; k < numbers; ++k) u[k] = pose[k];
    return Similarity(u, scale, inverse);
}

// Where pixel i of a top looks.
FORMULA PlaceInPicture<real> place_of(const real* m, i64 side, i64 i)
{
    real middle = (real)(side - 1) / 2, x = (real)(i % side) - middle, y = (real)(i / side) - middle;
    return {m, x, m[1] * y + m[2] + middle, m[4] * y + m[5] + middle, (int)side};
}

KERNEL make_maps(
    i64 rows, i64 numbers, double span, double size_spread, double shift_spread, i64 inverse,
    const real* poses, real* maps)
{
    i64 row = place();
    if (row >= rows) return;
    double map[6];
    PoseScale scale{span, size_spread, shift_spread};
    similarity(poses + row * numbers, numbers, scale, inverse != 0).map(map);
    for (int k = 0; k < 6; ++k) maps[row * 6 + k] = (real)map[k];
}

KERNEL resample(i64 size, i64 side, const real* maps, const real* pictures, real* tops)
{
    i64 i = place(), pixels = side * side;
    if (i >= size) return;
    auto p = place_of(maps + i / pixels * 6, side, i % pixels);
    const real* k = pictures + i / pixels * pixels + p.at;
    real above = k[0] + p.right * (k[1] - k[0]);
    real below = k[side] + p.right * (k[side + 1] - k[side]);
    tops[i] = above + p.down * (below - above);
}

// The columns of a row of the top that look between two columns (or rows) of the picture: those with
// low < slope * column + start < high, and a few more, as places are rounded.
struct Stretch {
    i64 first, last;
    FORMULA Stretch(double slope, double start, double low, double high, i64 side)
        : first(0), last(side - 1)
    {
        low -= 1e-3;
        high += 1e-3;
        if (fabs(slope) < 1e-9) {  // all columns look between them, or none
            if (start < low || start > high) last = -1;
            return;
        }
        double a = (low - start) / slope, b = (high - start) / slope;
        double least = a < b ? a : b, most = a < b ? b : a;
        if (least - 1 > 0) first = least - 1 < (double)side ? (i64)(least - 1) : side;
        if (most + 1 < (double)last) last = most + 1 > -1 ? (i64)(most + 1) : -1;
    }
};

// d loss / d picture: each pixel gathers from the pixels of the top that look at it, row by row.
KERNEL resample_pictures(i64 size, i64 side, const real* maps, const real* dtops, real* dpictures)
{
    i64 i = place(), pixels = side * side;
    if (i >= size) return;
    const real *m = maps + i / pixels * 6, *dtop = dtops + i / pixels * pixels;
    i64 own = i % pixels, column = own % side, row = own / side;
    double middle = (double)(side - 1) / 2, endless = log(0.0);
    // Outside the picture its border goes on, so its outermost pixels are looked at from far away.
    double left = column == 0 ? endless : (double)column - 1;
    double right = column == side - 1 ? -endless : (double)column + 1;
    double upper = row == 0 ? endless : (double)row - 1;
    double lower = row == side - 1 ? -endless : (double)row + 1;
    bool known = m[0] + m[1] + m[2] + m[3] + m[4] + m[5] == m[0] + m[1] + m[2] + m[3] + m[4] + m[5];
    real sum = 0;
    for (i64 r = 0; r < side; ++r) {
        double y = (double)r - middle;
        double x_start = m[1] * y + m[2] + middle - m[0] * middle;
        double y_start = m[4] * y + m[5] + middle - m[3] * middle;
        i64 first = 0, last = side - 1;
        if (known) {  // else its places are no numbers, which all pixels are told
            Stretch a(m[0], x_start, left, right, side), b(m[3], y_start, upper, lower, side);
            first = a.first > b.first ? a.first : b.first;
            last = a.last < b.last ? a.last : b.last;
        }
        for (i64 c = first; c <= last; ++c) {
            auto p = place_of(m, side, r * side + c);
            real across = own % side == p.at % side ? 1 - p.right
                : own % side == p.at % side + 1 ? p.right : (real)0;
            real down = own / side == p.at / side ? 1 - p.down
                : own / side == p.at / side + 1 ? p.down : (real)0;
            sum += across * down * dtop[r * side + c];
        }
    }
    dpictures[i] = sum;
}

// d loss / d pose, through the map.  A block for each example.
KERNEL resample_poses(
    i64 side, i64 numbers, double span, double size_spread, double shift_spread, i64 inverse,
    const real* poses, const real* maps, const real* pictures, const real* dtops, real* dposes)
{
    i64 pixels = side * side, example = blockIdx.x;
    double sums[6] = {}, middle = (double)(side - 1) / 2;
    for (i64 i = threadIdx.x; i < pixels; i += THREADS) {
        auto p = place_of(maps + example * 6, side, i);
        const real* k = pictures + example * pixels + p.at;
        real d = dtops[example * pixels + i], top = k[1] - k[0], bottom = k[side + 1] - k[side];
        double by_x = p.inside_x * d * (top + p.down * (bottom - top));
        double by_y = p.inside_y * d * (k[side] - k[0] + p.right * (bottom - top));
        double x = (double)(i % side) - middle, y = (double)(i / side) - middle;
        sums[0] += by_x * x;
        sums[1] += by_x * y;
        sums[2] += by_x;
        sums[3] += by_y * x;
        sums[4] += by_y * y;
        sums[5] += by_y;
    }
    lanes_sums<6>(sums, THREADS);
    if (threadIdx.x != 0) return;
    const real* pose = poses + example * numbers;
    PoseScale scale{span, size_spread, shift_spread};
    double by_pose[4];
    similarity(pose, numbers, scale, inverse != 0).by_pose(sums, pose[0], scale, by_pose);
    for (i64 k = 0; k < numbers; ++k) dposes[example * numbers + k] = (real)by_pose[k];
}
