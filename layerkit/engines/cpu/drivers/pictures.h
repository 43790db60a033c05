// ImagePose, SpatialTransform and data layers: what is done to whole pictures.
#pragma once

#include <algorithm>
#include <cmath>

#include "../vectors/formulas.h"
#include "../threads/pool.h"

namespace layerkit {
namespace LAYERKIT_SET {

// The median of an even number of values, which are rearranged; NaN where one of them is NaN, as
// they are in no order then.
template <class T> T middle_of(T* values, i64 size)
{
    for (i64 k = 0; k < size; ++k)
        if (values[k] != values[k]) return values[k];
    T* half = values + size / 2;
    std::nth_element(values, half, values + size);
    return T(0.5) * (*std::max_element(values, half) + *half);
}

// Sky, and as much of its noise as is cut off, from the outermost pixels of a picture.
template <class T> T level_of(const T* image, i64 side, double threshold)
{
    i64 size = 4 * (side - 1);
    T* frame = work_space<struct OfFrame, T>(size);
    for (i64 k = 0; k < side - 1; ++k) {
        frame[4 * k] = image[k];
        frame[4 * k + 1] = image[(side - 1) * side + k + 1];
        frame[4 * k + 2] = image[(k + 1) * side];
        frame[4 * k + 3] = image[k * side + side - 1];
    }
    T sky = middle_of(frame, size);
    for (i64 k = 0; k < size; ++k) frame[k] = std::abs(frame[k] - sky);
    return sky + T(threshold) * middle_of(frame, size);
}

// sums[k][l] = sum of window * (Y - y)^k * (X - x)^l * light.
template <class T>
void moments(
    const T* image, i64 side, T level, double x, double y, double width, double (*sums)[4])
{
    double scale = -0.5 / (width * width), middle = double(side - 1) / 2;
    T *windows = work_space<struct OfMoments, T>(4 * side), *window[4];
    for (int k = 0; k < 4; ++k) window[k] = windows + k * side;
    for (i64 c = 0; c < side; ++c) {
        double d = double(c) - middle - x, w = std::exp(scale * d * d);
        for (int k = 0; k < 4; ++k, w *= d) window[k][c] = T(w);
    }
    std::fill(&sums[0][0], &sums[0][0] + 16, 0.0);
    for (i64 r = 0; r < side; ++r) {
        const T* row = image + r * side;
        constexpr i64 lanes = Simd<T>::lanes;
        Vector<T> of_row[4]{};
        i64 c = 0;
        for (; c + lanes <= side; c += lanes) {
            Vector<T> light = load(row + c) - level;
            light = light > 0 ? light : Vector<T>{} + (light != light ? light : Vector<T>{});
            for (int k = 0; k < 4; ++k) of_row[k] += light * load(window[k] + c);
        }
        T s[4];
        for (int k = 0; k < 4; ++k) s[k] = sum<T>(of_row[k]);
        for (; c < side; ++c) {
            T light = row[c] - level;
            light = light < 0 ? T(0) : light;
            for (int k = 0; k < 4; ++k) s[k] += light * window[k][c];
        }
        double d = double(r) - middle - y, w = std::exp(scale * d * d);
        for (int k = 0; k < 4; ++k, w *= d)
            for (int l = 0; l < 4; ++l) sums[k][l] += w * double(s[l]);
    }
}

// ImagePose: poses (n, latents) of pictures (n, side * side), for an object of `unit` pixels.
template <class T>
void measure_poses(
    Matrix<T> images, i64 side, double threshold, double unit, PoseScale scale, Matrix<T> poses)
{
    parallel(images.rows, [&](i64 i) {
        T level = level_of(images.row(i), side, threshold);
        LightMoments light(double(side), unit);
        double m[4][4], u[4];
        for (int turn = 0; turn < light.iterations; ++turn) {
            moments(images.row(i), side, level, light.x, light.y, light.window * light.size, m);
            light.move(m);
        }
        light.pose(m, scale, u);
        for (i64 k = 0; k < poses.columns; ++k) poses.at(i, k) = T(u[k]);
    });
}

// SpatialTransform: the pose (n, 1 to 4) of an example, of which the numbers that are missing are 0.
template <class T> Similarity similarity(Matrix<T> poses, i64 i, PoseScale scale, bool inverse)
{
    double u[4] = {};
    for (i64 k = 0; k < poses.columns; ++k) u[k] = double(poses.at(i, k));
    return Similarity(u, scale, inverse);
}

// SpatialTransform: where a row of the top looks in a picture of side x side pixels.
template <class T> struct Places {
    static constexpr i64 most = 64;  // pixels that are worked out at a time
    std::int32_t at[most];           // the upper left neighbour of each place
    T right[most], down[most];       // how far right of and below it the place is
    T inside_x[most], inside_y[most];  // 0 where the place is outside the picture

    // m is the map (2, 3) from pixels of the top, from the middle, to those of the picture.
    LAYERKIT_INLINE void find(const T* m, i64 side, i64 r, i64 start, i64 count)
    {
        T middle = T(side - 1) / 2, y = T(r) - middle;
        T x_row = m[1] * y + m[2] + middle, y_row = m[4] * y + m[5] + middle;
        for (i64 i = 0; i < count; ++i) {
            PlaceInPicture<T> p(m, T(start + i) - middle, x_row, y_row, int(side));
            at[i] = p.at;
            right[i] = p.right;
            down[i] = p.down;
            inside_x[i] = p.inside_x;
            inside_y[i] = p.inside_y;
        }
    }
};

// Fills maps (n, 2, 3), and the tops.
template <class T>
void resample(
    Matrix<T> pictures, Matrix<T> poses, i64 side, PoseScale scale, bool inverse, Matrix<T> maps,
    Matrix<T> tops)
{
    parallel(pictures.rows, [&](i64 i) {
        Places<T> p;
        double map[6];
        similarity(poses, i, scale, inverse).map(map);
        std::copy(map, map + 6, maps.row(i));
        const T* picture = pictures.row(i);
        for (i64 r = 0; r < side; ++r) {
            for (i64 start = 0; start < side; start += p.most) {
                i64 count = std::min(p.most, side - start);
                p.find(maps.row(i), side, r, start, count);
                T* top = tops.row(i) + r * side + start;
                for (i64 c = 0; c < count; ++c) {
                    const T* k = picture + p.at[c];
                    T above = k[0] + p.right[c] * (k[1] - k[0]);
                    T below = k[side] + p.right[c] * (k[side + 1] - k[side]);
                    top[c] = above + p.down[c] * (below - above);
                }
            }
        }
    });
}

// Fills dpictures and dposes, each unless it has no rows.
template <class T>
void resample_backward(
    Matrix<T> pictures, Matrix<T> poses, Matrix<T> maps, i64 side, PoseScale scale, bool inverse,
    Matrix<T> dtops, Matrix<T> dpictures, Matrix<T> dposes)
{
    parallel(pictures.rows, [&](i64 i) {
        Places<T> p;
        const T* picture = pictures.row(i);
        T* dpicture = dpictures.rows ? dpictures.row(i) : nullptr;
        T dmap[6] = {};
        if (dpicture) std::fill(dpicture, dpicture + side * side, T(0));
        T middle = T(side - 1) / 2;
        for (i64 r = 0; r < side; ++r) {
            T x_sum = 0, x_moment = 0, y_sum = 0, y_moment = 0;
            for (i64 start = 0; start < side; start += p.most) {
                i64 count = std::min(p.most, side - start);
                p.find(maps.row(i), side, r, start, count);
                const T* dtop = dtops.row(i) + r * side + start;
                for (i64 c = 0; c < count; ++c) {
                    i64 k = p.at[c];
                    T x = p.right[c], y = p.down[c], d = dtop[c];
                    if (dpicture) {
                        T lower = y * d, upper = d - lower;
                        dpicture[k] += upper - x * upper;
                        dpicture[k + 1] += x * upper;
                        dpicture[k + side] += lower - x * lower;
                        dpicture[k + side + 1] += x * lower;
                    }
                    T a = picture[k], e = picture[k + side];
                    T top = picture[k + 1] - a, bottom = picture[k + side + 1] - e;
                    p.inside_x[c] *= d * (top + y * (bottom - top));
                    p.inside_y[c] *= d * (e - a + x * (bottom - top));
                }
                for (i64 c = 0; c < count; ++c) {
                    T x = T(start + c) - middle;
                    x_sum += p.inside_x[c];
                    x_moment += p.inside_x[c] * x;
                    y_sum += p.inside_y[c];
                    y_moment += p.inside_y[c] * x;
                }
            }
            T y = T(r) - middle;
            dmap[0] += x_moment;
            dmap[1] += x_sum * y;
            dmap[2] += x_sum;
            dmap[3] += y_moment;
            dmap[4] += y_sum * y;
            dmap[5] += y_sum;
        }
        if (!dposes.rows) return;
        double by_map[6], by_pose[4];
        std::copy(dmap, dmap + 6, by_map);
        similarity(poses, i, scale, inverse)
            .by_pose(by_map, double(poses.at(i, 0)), scale, by_pose);
        for (i64 k = 0; k < dposes.columns; ++k) dposes.at(i, k) = T(by_pose[k]);
    });
}

// out[filled + i] = source[index[i]] * scale, turned where there is a table of symmetries.
template <class S, class T>
void gather(
    Matrix<S> source, const i64* index, i64 count, Matrix<T> out, i64 filled, double scale,
    Matrix<i64> table, unsigned long long seed, unsigned stream, unsigned long long step)
{
    T factor = T(scale);
    i64 rows = std::max<i64>(1, 16384 / std::max<i64>(out.columns, 1));
    parallel((count + rows - 1) / rows, [&](i64 piece) {
        for (i64 i = piece * rows; i < std::min((piece + 1) * rows, count); ++i) {
            i64 row = filled + i;
            const S* image = source.row(index[i]);
            T* to = out.row(row);
            if (!table.rows) {
                for (i64 j = 0; j < out.columns; ++j) to[j] = T(image[j]) * factor;
                continue;
            }
            unsigned words[4];
            philox_block(unsigned(row / 4), seed, stream, step, words);
            const i64* which = table.row(words[row % 4] & 7);
            for (i64 offset = 0; offset < out.columns; offset += table.columns)  // image by image
                for (i64 j = 0; j < table.columns; ++j)
                    to[offset + j] = T(image[offset + which[j]]) * factor;
        }
    });
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
