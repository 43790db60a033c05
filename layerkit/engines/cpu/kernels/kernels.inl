// The table of kernels of one instruction set; included by a file that names it.

#include <vector>

#include "../drivers/activation.h"
#include "../drivers/elementwise.h"
#include "../drivers/lookup.h"
#include "../drivers/losses/classes.h"
#include "../drivers/losses/pairs.h"
#include "../drivers/losses/pixels.h"
#include "../drivers/normalization.h"
#include "../drivers/pictures.h"
#include "../drivers/pooling.h"
#include "../drivers/updates.h"
#include "../products/dense.h"
#include "../products/recurrent.h"
#include "../products/windows.h"
#include "kernels.h"

namespace layerkit {
namespace LAYERKIT_SET {

// function(T()) with the type of an array's elements.
template <class Function> LAYERKIT_INLINE void with_type(const Array& array, Function&& function)
{
    if (array.itemsize == 4) function(float());
    else function(double());
}

template <class T> LAYERKIT_INLINE T* or_null(const Array& array)
{
    return array.size() ? elements<T>(array) : nullptr;
}

void multiply(Array a, Array b, Array c, bool add)
{
    expect(a.axes == 2 && b.axes == 2 && c.axes == 2 && a.shape[1] == b.shape[0]);
    expect(c.shape[0] == a.shape[0] && c.shape[1] == b.shape[1]);
    with_type(c, [&](auto t) {
        using T = decltype(t);
        multiply<T>(fixed(matrix<T>(a)), fixed(matrix<T>(b)), matrix<T>(c), add);
    });
}

// Matrix i of as many.
template <class T> LAYERKIT_INLINE Matrix<T> one_of(const Array& matrices, i64 i)
{
    i64 size = sizeof(T);
    return {reinterpret_cast<T*>(matrices.data + i * matrices.stride[0]), matrices.shape[1],
            matrices.shape[2], matrices.stride[1] / size, matrices.stride[2] / size};
}

void products(Array a, Array b, Array c)
{
    expect(a.axes == 3 && b.axes == 3 && c.axes == 3 && c.dense() && c.kind == 'f');
    expect(a.shape[0] == c.shape[0] && b.shape[0] == c.shape[0] && a.shape[1] == c.shape[1]);
    expect(a.shape[2] == b.shape[1] && b.shape[2] == c.shape[2]);
    for (const Array* other : {&a, &b}) expect(other->kind == 'f' && other->itemsize == c.itemsize);
    with_type(c, [&](auto t) {
        using T = decltype(t);
        i64 count = c.shape[0], rows = c.shape[1];
        // Few products are cut, so that there is work for many threads.
        i64 height = count >= 8 ? rows : std::max<i64>((rows + 7) / 8, 32);
        i64 cuts = (rows + height - 1) / height;
        parallel(count * cuts, [&](i64 i) {
            i64 top = i % cuts * height, bottom = std::min(top + height, rows);
            Matrix<T> x = one_of<T>(a, i / cuts), y = one_of<T>(b, i / cuts);
            Matrix<T> to{elements<T>(c) + i / cuts * rows * y.columns, rows, y.columns, y.columns, 1};
            multiply<T>(fixed(x.block(top, bottom, 0, x.columns)), fixed(y),
                        to.block(top, bottom, 0, y.columns), false);
        });
    });
}

void copy(Array from, Array to)
{
    expect(from.size() * from.itemsize == to.size() * to.itemsize && from.dense() && to.dense());
    i64 size = to.size() * to.itemsize, piece = 1 << 18;
    parallel((size + piece - 1) / piece, [&](i64 i) {
        i64 start = i * piece;
        std::memcpy(to.data + start, from.data + start, size_t(std::min(piece, size - start)));
    });
}

// The bits of a number's magnitude, as an integer, are in the order of the magnitudes; those of NaN
// come after those of infinity.
template <class T, class Bits> double largest(const Array& array)
{
    constexpr Bits mask = std::numeric_limits<Bits>::max();
    const char* data = array.data;
    i64 size = array.size(), piece = std::max<i64>(1 << 15, (size + 63) / 64);
    i64 count = (size + piece - 1) / piece;
    Bits found[64] = {};
    parallel(count, [&](i64 i) {
        constexpr i64 lanes = Simd<Bits>::lanes;
        const Bits* bits = reinterpret_cast<const Bits*>(data);
        Vector<Bits> wide{};
        i64 j = i * piece, stop = std::min(j + piece, size);
        for (; j + lanes <= stop; j += lanes) {
            Vector<Bits> these = load(bits + j) & mask;
            wide = these > wide ? these : wide;
        }
        for (int lane = 0; lane < lanes; ++lane) found[i] = std::max<Bits>(found[i], wide[lane]);
        for (; j < stop; ++j) {
            Bits one;
            std::memcpy(&one, bits + j, sizeof(Bits));
            found[i] = std::max<Bits>(found[i], one & mask);
        }
    });
    Bits most = *std::max_element(found, found + 64);
    T number;
    std::memcpy(&number, &most, sizeof(T));
    return number;
}

double magnitude_of(const Array& array)
{
    expect(array.dense() && array.kind == 'f');
    if (!array.size()) return 0;
    return array.itemsize == 4 ? largest<float, std::int32_t>(array)
                               : largest<double, std::int64_t>(array);
}

void magnitude(Array array, Array found)
{
    expect(found.holds<double>(1));
    *elements<double>(found) = magnitude_of(array);
}

// A number that no element of dW = x^T d and db = sum of d exceeds, for d of at most `slope` times
// what is given.  Products are of float64 numbers; 1% makes up for the rounding of sums.
void gradient_bound(Array x, Array d, double slope, Array bound)
{
    expect(bound.holds<double>(1) && x.axes > 0);
    double largest_x = magnitude_of(x), largest_d = std::max(1.0, slope) * magnitude_of(d);
    bool finite = largest_x < std::numeric_limits<double>::infinity();
    *elements<double>(bound) = finite
        ? 1.01 * double(x.shape[0]) * std::max(1.0, largest_x) * largest_d
        : std::numeric_limits<double>::infinity();
}

// function(start, stop) for pieces of `size` elements, shared among the threads.
template <class Function> LAYERKIT_INLINE void by_pieces(i64 size, Function&& function)
{
    constexpr i64 piece = 16384;
    parallel((size + piece - 1) / piece, [&](i64 i) {
        function(i * piece, std::min((i + 1) * piece, size));
    });
}

void fill(Array array, Array number)
{
    expect(array.dense() && array.kind == 'f' && number.holds<double>(1));
    with_type(array, [&](auto t) {
        using T = decltype(t);
        T* to = elements<T>(array);
        by_pieces(array.size(), [&](i64 i, i64 stop) {
            std::fill(to + i, to + stop, T(*elements<double>(number)));
        });
    });
}

void add_number(Array array, Array number)
{
    expect(array.dense() && array.kind == 'f' && number.holds<double>(1));
    with_type(array, [&](auto t) {
        using T = decltype(t);
        T *to = elements<T>(array), added = T(*elements<double>(number));
        by_pieces(array.size(), [&](i64 i, i64 stop) {
            for (; i < stop; ++i) to[i] += added;
        });
    });
}

void mean(Array array, Array found)
{
    expect(array.dense() && array.kind == 'f' && array.size() && found.holds<double>(1));
    with_type(array, [&](auto t) {
        using T = decltype(t);
        double total = 0;
        for (i64 i = 0; i < array.size(); ++i) total += double(elements<T>(array)[i]);
        *elements<double>(found) = total / double(array.size());
    });
}

void copy_rows(Array from, Array to)
{
    expect(from.axes == 2 && to.axes == 2 && from.kind == 'f' && to.kind == 'f');
    expect(from.shape[0] == to.shape[0] && from.shape[1] == to.shape[1]);
    expect(from.itemsize == to.itemsize && from.stride[1] == from.itemsize);
    expect(to.stride[1] == to.itemsize);
    i64 size = to.shape[1] * to.itemsize, rows = std::max<i64>(1, (1 << 16) / std::max<i64>(size, 1));
    parallel((to.shape[0] + rows - 1) / rows, [&](i64 piece) {
        for (i64 i = piece * rows; i < std::min((piece + 1) * rows, to.shape[0]); ++i)
            std::memcpy(to.data + i * to.stride[0], from.data + i * from.stride[0], size_t(size));
    });
}

void exponential(Array x, Array y)
{
    expect(x.holds(y.size(), y) && y.dense());
    with_type(y, [&](auto t) {
        using T = decltype(t);
        const T* from = elements<T>(x);
        T* to = elements<T>(y);
        for (i64 i = 0; i < y.size(); ++i) to[i] = exp_of(from[i]);
    });
}

void logarithm(Array x, Array y)
{
    expect(x.holds(y.size(), y) && y.dense());
    with_type(y, [&](auto t) {
        using T = decltype(t);
        const T* from = elements<T>(x);
        T* to = elements<T>(y);
        for (i64 i = 0; i < y.size(); ++i) to[i] = log_of(from[i]);
    });
}

void activate(int kind, double setting, Array x, Array y)
{
    expect(x.holds(y.size(), y) && y.dense());
    with_type(y, [&](auto t) {
        using T = decltype(t);
        activate<T>(kind, T(setting), elements<T>(x), elements<T>(y), y.size());
    });
}

void differentiate(int kind, double setting, Array known, Array dy, Array dx)
{
    expect(known.holds(dx.size(), dx) && dy.holds(dx.size(), dx) && dx.dense());
    with_type(dx, [&](auto t) {
        using T = decltype(t);
        differentiate<T>(
            kind, T(setting), elements<T>(known), elements<T>(dy), elements<T>(dx), dx.size());
    });
}

void update(int kind, Array w, Array g, Array first, Array second, Array constants)
{
    i64 count = w.size();
    expect(w.dense() && g.holds(count, w) && first.holds(count, w) && second.holds(count, w));
    expect(constants.holds<double>(8));
    with_type(w, [&](auto t) {
        using T = decltype(t);
        with_update<T>(kind, elements<double>(constants), [&](auto update) {
            if constexpr (!std::is_same_v<decltype(update), std::nullptr_t>) {
                i64 size = w.size(), piece = 16384;
                parallel((size + piece - 1) / piece, [&](i64 i) {
                    i64 start = i * piece, count = std::min(piece, size - start);
                    apply(update, count, elements<T>(g) + start, elements<T>(w) + start,
                          elements<T>(first) + start, elements<T>(second) + start);
                });
            }
        });
    });
}

void approach(Array average, Array w, double share)
{
    expect(average.dense() && w.holds(average.size(), average));
    with_type(average, [&](auto t) {
        using T = decltype(t);
        Approach<T> formula(share);
        T* to = elements<T>(average);
        const T* from = elements<T>(w);
        by_pieces(average.size(), [&](i64 i, i64 stop) {
            for (; i < stop; ++i) formula(from[i], to[i]);
        });
    });
}

Groups groups_of(Array sizes, const Array& like)
{
    expect(sizes.holds<i64>(6));
    const i64* n = elements<i64>(sizes);
    Groups s{n[0], n[1], n[2], n[3], n[4], n[5] != 0};
    expect(like.dense() && like.kind == 'f' && like.size() == s.size());
    expect(s.count > 0 && s.spread > 0 && s.inner > 0 && s.size() % (s.count * s.spread) == 0);
    expect(s.one ? s.groups == s.count : s.inner % s.spread == 0 && s.inner > 1);
    expect(s.one || s.spread > 1 || s.count % s.inner == 0);
    return s;
}

void normalize(
    Array x, Array gain, Array bias, Array sizes, double epsilon, double momentum,
    Array normalized, Array inverse, Array running_mean, Array running_variance, Array y)
{
    Groups s = groups_of(sizes, y);
    expect(x.holds(s.size(), y) && normalized.holds(s.size(), y) && inverse.holds(s.groups, y));
    expect(gain.absent_or_holds(s.count, y) && bias.absent_or_holds(s.count, y));
    expect(running_mean.absent_or_holds(s.groups, y));
    expect(running_variance.absent_or_holds(s.groups, y));
    expect(running_mean.size() == running_variance.size());
    with_type(y, [&](auto t) {
        using T = decltype(t);
        Normalization<T> n{s, elements<T>(x), or_null<T>(gain), or_null<T>(bias), epsilon,
                           elements<T>(normalized), elements<T>(inverse), elements<T>(y)};
        normalize(n, or_null<T>(running_mean), or_null<T>(running_variance), momentum);
    });
}

void normalize_backward(
    Array normalized, Array inverse, Array gain, Array dy, Array sizes, bool through,
    Array dgain, Array dbias, Array dx)
{
    Groups s = groups_of(sizes, dy);
    expect(normalized.holds(s.size(), dy) && inverse.holds(s.groups, dy));
    expect(gain.absent_or_holds(s.count, dy) && dgain.absent_or_holds(s.count, dy));
    expect(dbias.absent_or_holds(s.count, dy) && dx.absent_or_holds(s.size(), dy));
    with_type(dy, [&](auto t) {
        using T = decltype(t);
        NormalizationBackward<T> n{
            s, elements<T>(normalized), elements<T>(inverse), or_null<T>(gain), elements<T>(dy),
            or_null<T>(dgain), or_null<T>(dbias), or_null<T>(dx), through};
        normalize_backward(n);
    });
}

void constrain(Array w, double most)
{
    expect(w.axes == 2 && w.dense() && w.kind == 'f');
    with_type(w, [&](auto t) {
        using T = decltype(t);
        Matrix<T> m = matrix<T>(w);
        constexpr i64 width = 64;
        parallel((m.columns + width - 1) / width, [&](i64 i) {
            i64 left = i * width, size = std::min(width, m.columns - left);
            double sums[width] = {};
            for (i64 r = 0; r < m.rows; ++r)
                for (i64 j = 0; j < size; ++j)
                    sums[j] += double(m.row(r)[left + j]) * double(m.row(r)[left + j]);
            bool any = false;
            for (i64 j = 0; j < size; ++j) {
                sums[j] = shrink_of(sums[j], most);
                any = any || sums[j] < 1;
            }
            for (i64 r = 0; any && r < m.rows; ++r)
                for (i64 j = 0; j < size; ++j) m.row(r)[left + j] *= T(sums[j]);
        });
    });
}

// x (n, inputs), W (inputs, units), b (units,), y (n, units).
void expect_dense(const Array& x, const Array& w, const Array& b, const Array& y)
{
    expect(x.axes == 2 && w.axes == 2 && y.axes == 2);
    expect(x.shape[0] == y.shape[0] && x.shape[1] == w.shape[0] && w.shape[1] == y.shape[1]);
    expect(x.holds(x.size(), w) && y.holds(y.size(), w) && b.holds(w.shape[1], w));
    expect(w.dense() || w.turned().dense());
}

void dense_forward(Array x, Array w, Array b, double slope, Array y)
{
    expect_dense(x, w, b, y);
    with_type(y, [&](auto t) {
        using T = decltype(t);
        dense_forward<T>(matrix<T>(x), matrix<T>(w), elements<T>(b), T(slope), matrix<T>(y));
    });
}

void dense_backward(
    Array x, Array y, Array dy, double slope, Array before, Array w, Array b, Array dw, Array db,
    Array dx, int kind, Array w_first, Array w_second, Array b_first,
    Array b_second, Array constants)
{
    expect_dense(x, w, b, y);
    expect(dy.holds(y.size(), w) && before.holds(y.size(), w) && dx.absent_or_holds(x.size(), w));
    expect(dw.absent_or_holds(w.size(), w) || dw.turned().holds(w.size(), w));
    expect(db.absent_or_holds(b.size(), w));
    if (kind) {
        expect(w.dense());
        expect(constants.holds<double>(8));
        expect(w_first.holds(w.size(), w) && w_second.holds(w.size(), w));
        expect(db.size() == 0 || (b_first.holds(b.size(), w) && b_second.holds(b.size(), w)));
    }
    with_type(w, [&](auto t) {
        using T = decltype(t);
        DenseBackward<T> o{
            matrix<T>(x), matrix<T>(slope == 1 ? dy : before), matrix<T>(w), matrix<T>(dw),
            matrix<T>(dx), elements<T>(b), or_null<T>(db), or_null<T>(w_first),
            or_null<T>(w_second), or_null<T>(b_first), or_null<T>(b_second), dx.size() > 0};
        with_update<T>(kind, elements<double>(constants), [&](auto update) {
            dense_backward<T>(o, update, matrix<T>(y), matrix<T>(dy), T(slope));
        });
    });
}

// Arrays like x, or absent.
template <class... Arrays> void expect_alike(const Array& x, const Arrays&... others)
{
    expect(x.axes >= 1 && x.holds(x.size(), x));
    for (const Array* other : {&others...})
        expect(other->size() == 0
               || (other->holds(x.size(), x) && other->shape[0] == x.shape[0]));
}

void gaussian(
    Array x, Array mean, Array log_variance, Array mask, double floor, Array scale, Array loss,
    Array dx, Array dmean, Array dlog_variance)
{
    expect_alike(x, mean, log_variance, mask, dx, dmean, dlog_variance);
    expect(mean.size() == x.size() && log_variance.size() == x.size());
    expect(scale.holds(x.shape[0], x) && loss.holds(x.shape[0], x));
    with_type(x, [&](auto t) {
        using T = decltype(t);
        likelihood<T>(
            GaussianPixel<T>(), 0.91893853320467274, floor, matrix<T>(x), matrix<T>(mean),
            matrix<T>(log_variance), Matrix<T>{}, matrix<T>(mask), elements<T>(scale),
            elements<T>(loss), matrix<T>(dx), matrix<T>(dmean), matrix<T>(dlog_variance),
            Matrix<T>{});
    });
}

void student(
    Array x, Array mean, Array log_variance, Array skew, Array mask, double floor, double degrees,
    double fold, double constant, Array scale, Array loss, Array dx, Array dmean,
    Array dlog_variance, Array dskew)
{
    expect_alike(x, mean, log_variance, skew, mask, dx, dmean, dlog_variance, dskew);
    expect(mean.size() == x.size() && log_variance.size() == x.size());
    expect(scale.holds(x.shape[0], x) && loss.holds(x.shape[0], x));
    with_type(x, [&](auto t) {
        using T = decltype(t);
        likelihood<T>(
            StudentPixel<T>{T(degrees - 2), T(fold)}, constant, floor, matrix<T>(x), matrix<T>(mean),
            matrix<T>(log_variance), matrix<T>(skew), matrix<T>(mask), elements<T>(scale),
            elements<T>(loss), matrix<T>(dx), matrix<T>(dmean), matrix<T>(dlog_variance),
            matrix<T>(dskew));
    });
}

void reparameterize(
    Array mean, Array log_variance, Array scaled, Array z, unsigned stream, Array clock)
{
    expect(mean.holds(z.size(), z) && log_variance.holds(z.size(), z));
    expect(scaled.holds(z.size(), z) && z.dense());
    expect(clock.kind == 'u' && clock.itemsize == 8 && clock.size() == 3 && clock.dense());
    const auto* now = elements<std::uint64_t>(clock);
    with_type(z, [&](auto t) {
        using T = decltype(t);
        reparameterize<T>(z.size(), elements<T>(mean), elements<T>(log_variance),
                          elements<T>(scaled), elements<T>(z), now[2] != 0, now[0], stream, now[1]);
    });
}

void reparameterize_backward(Array scaled, Array dz, Array dmean, Array dlog_variance)
{
    expect(scaled.holds(dz.size(), dz) && dz.dense());
    expect(dmean.absent_or_holds(dz.size(), dz) && dlog_variance.absent_or_holds(dz.size(), dz));
    with_type(dz, [&](auto t) {
        using T = decltype(t);
        const T *d = elements<T>(dz), *s = elements<T>(scaled);
        T *m = elements<T>(dmean), *l = elements<T>(dlog_variance);
        for (i64 j = 0; j < dmean.size(); ++j) m[j] = d[j];
        for (i64 j = 0; j < dlog_variance.size(); ++j) l[j] = d[j] * (T(0.5) * s[j]);
    });
}

template <class T> LAYERKIT_INLINE Divergence divergence_of(
    const Matrix<T>& mean, const Matrix<T>& log_variance, const Matrix<T>& prior_mean,
    const Matrix<T>& prior_log_variance, i64 row, i64 j)
{
    bool prior = prior_mean.rows > 0;
    return Divergence(
        mean.at(row, j), log_variance.at(row, j), prior ? double(prior_mean.at(row, j)) : 0.0,
        prior ? double(prior_log_variance.at(row, j)) : 0.0);
}

void divergence(
    Array mean, Array log_variance, Array prior_mean, Array prior_log_variance, Array loss)
{
    expect_alike(mean, log_variance, prior_mean, prior_log_variance);
    expect(log_variance.size() == mean.size() && prior_mean.size() == prior_log_variance.size());
    expect(loss.holds(mean.shape[0], mean));
    with_type(mean, [&](auto t) {
        using T = decltype(t);
        Matrix<T> m = matrix<T>(mean), l = matrix<T>(log_variance);
        Matrix<T> pm = matrix<T>(prior_mean), pl = matrix<T>(prior_log_variance);
        for (i64 row = 0; row < m.rows; ++row) {
            double total = 0;
            for (i64 j = 0; j < m.columns; ++j)
                total += divergence_of(m, l, pm, pl, row, j).twice();
            elements<T>(loss)[row] = T(0.5 * total);
        }
    });
}

void divergence_backward(
    Array mean, Array log_variance, Array prior_mean, Array prior_log_variance, Array scale,
    Array dmean, Array dlog_variance, Array dprior_mean, Array dprior_log_variance)
{
    expect_alike(mean, log_variance, prior_mean, prior_log_variance);
    expect_alike(mean, dmean, dlog_variance, dprior_mean, dprior_log_variance);
    expect(log_variance.size() == mean.size() && prior_mean.size() == prior_log_variance.size());
    expect(scale.holds(mean.shape[0], mean));
    with_type(mean, [&](auto t) {
        using T = decltype(t);
        Matrix<T> m = matrix<T>(mean), l = matrix<T>(log_variance);
        Matrix<T> pm = matrix<T>(prior_mean), pl = matrix<T>(prior_log_variance);
        Matrix<T> dm = matrix<T>(dmean), dl = matrix<T>(dlog_variance);
        Matrix<T> dpm = matrix<T>(dprior_mean), dpl = matrix<T>(dprior_log_variance);
        for (i64 row = 0; row < m.rows; ++row) {
            double s = elements<T>(scale)[row];
            for (i64 j = 0; j < m.columns; ++j) {
                Divergence d = divergence_of(m, l, pm, pl, row, j);
                if (dm.rows) dm.at(row, j) = T(s * d.by_mean());
                if (dl.rows) dl.at(row, j) = T(s * d.by_log_variance());
                if (dpm.rows) dpm.at(row, j) = T(s * d.by_prior_mean());
                if (dpl.rows) dpl.at(row, j) = T(s * d.by_prior_log_variance());
            }
        }
    });
}

// Pictures (n, channels, height, width) are those that are cut into windows.
LAYERKIT_INLINE Geometry geometry_of(const Array& numbers, const Array& pictures)
{
    const i64* n = elements<i64>(numbers);
    i64 groups = std::max<i64>(n[10], 1);
    return {n[0], n[1], {n[2], n[3]}, {n[4], n[5]}, {n[6], n[7]}, n[8], n[9], groups,
            pictures.shape[1] / groups, pictures.shape[2], pictures.shape[3]};
}

void expect_windows(
    const Array& x, const Array& w, const Array& y, const Array& geometry, bool transposed)
{
    expect(x.axes == 4 && w.axes == 2 && y.axes == 4 && geometry.holds<i64>(11));
    expect(x.shape[0] == y.shape[0] && x.holds(x.size(), w) && y.holds(y.size(), w) && w.dense());
    const Array &picture = transposed ? y : x, &small = transposed ? x : y;
    Geometry g = geometry_of(geometry, picture);
    for (int axis = 0; axis < 2; ++axis) {
        i64 kernel = axis ? g.columns : g.rows, windows = axis ? g.across : g.down;
        i64 room = (axis ? g.width : g.height) + 2 * g.pad[axis];
        expect(kernel > 0 && g.stride[axis] > 0 && g.pad[axis] >= 0 && g.dilation[axis] > 0);
        expect((windows - 1) * g.stride[axis] + (kernel - 1) * g.dilation[axis] < room);
        expect(small.shape[2 + axis] == windows);
    }
    expect(picture.shape[1] % g.groups == 0 && small.shape[1] % g.groups == 0);
    expect(w.shape[transposed] == g.window() && w.shape[!transposed] == small.shape[1]);
}

void windowed_forward(
    Array x, Array w, Array b, double slope, Array y, Array geometry, bool transposed)
{
    expect_windows(x, w, y, geometry, transposed);
    expect(b.absent_or_holds(y.shape[1], w));
    with_type(y, [&](auto t) {
        using T = decltype(t);
        windowed_forward<T>(
            geometry_of(geometry, transposed ? y : x), transposed, matrix<T>(x), x.shape[1],
            matrix<T>(w), or_null<T>(b), T(slope), matrix<T>(y), y.shape[1]);
    });
}

void windowed_backward(
    Array x, Array y, Array dy, double slope, Array before, Array w, Array dw, Array db, Array dx,
    Array geometry, bool transposed)
{
    expect_windows(x, w, y, geometry, transposed);
    expect(dy.holds(y.size(), w) && before.holds(y.size(), w));
    expect(dw.absent_or_holds(w.size(), w) && dx.absent_or_holds(x.size(), w));
    expect(db.absent_or_holds(y.shape[1], w));
    with_type(y, [&](auto t) {
        using T = decltype(t);
        windowed_backward<T>(
            geometry_of(geometry, transposed ? y : x), transposed, matrix<T>(x), x.shape[1],
            matrix<T>(y), matrix<T>(dy), T(slope), matrix<T>(before), y.shape[1], matrix<T>(w),
            matrix<T>(dw), or_null<T>(db), matrix<T>(dx));
    });
}

// x (n, channels, height, width), y and places (n, channels, down, across).
PoolingShape pooling_shape(const Array& x, const Array& y, const Array& places, const Array& geometry)
{
    expect(x.axes == 4 && y.axes == 4 && geometry.holds<i64>(10));
    expect(x.shape[0] == y.shape[0] && x.shape[1] == y.shape[1]);
    expect(x.holds(x.size(), y) && y.holds(y.size(), y));
    if (places.size())
        expect(places.kind == 'i' && places.itemsize == 4 && places.dense()
               && places.size() == y.size());
    const i64* n = elements<i64>(geometry);
    auto axis = [&](int k) {
        PoolingAxis a{x.shape[2 + k], n[k], n[2 + k], n[4 + k], n[8 + k]};
        expect(a.kernel > a.pad && a.stride > 0 && a.pad >= 0 && a.windows == y.shape[2 + k]);
        expect((a.windows - 1) * a.stride - a.pad < a.size && n[6 + k] == 1);
        return a;
    };
    return {axis(0), axis(1), x.shape[0] * x.shape[1]};
}

void pool_windows(Array x, Array y, Array places, Array geometry)
{
    PoolingShape shape = pooling_shape(x, y, places, geometry);
    int* to = places.size() ? elements<int>(places) : nullptr;
    with_type(y, [&](auto t) {
        using T = decltype(t);
        pool_windows<T>(shape, elements<T>(x), elements<T>(y), to);
    });
}

void unpool_windows(Array dy, Array places, Array dx, Array geometry)
{
    PoolingShape shape = pooling_shape(dx, dy, places, geometry);
    const int* from = places.size() ? elements<int>(places) : nullptr;
    with_type(dy, [&](auto t) {
        using T = decltype(t);
        unpool_windows<T>(shape, elements<T>(dy), from, elements<T>(dx));
    });
}

// (n, side, side)
void expect_pictures(const Array& images)
{
    expect(images.axes == 3 && images.shape[1] == images.shape[2] && images.shape[1] > 1);
    expect(images.holds(images.size(), images));
}

// (n, 1 to 4) for n pictures
void expect_poses(const Array& poses, const Array& pictures)
{
    expect(poses.axes == 2 && poses.shape[0] == pictures.shape[0] && poses.shape[1] <= 4);
    expect(poses.holds(poses.size(), pictures) && poses.size());
}

void measure_poses(
    Array images, double threshold, double unit, double span, double size_spread,
    double shift_spread, Array poses)
{
    expect_pictures(images);
    expect_poses(poses, images);
    with_type(images, [&](auto t) {
        using T = decltype(t);
        measure_poses<T>(matrix<T>(images), images.shape[1], threshold, unit,
                         {span, size_spread, shift_spread}, matrix<T>(poses));
    });
}

void resample(
    Array pictures, Array poses, long long side, double span, double size_spread,
    double shift_spread, bool inverse, Array maps, Array tops)
{
    expect(side > 1 && tops.axes == 2 && tops.shape[1] == side * side);
    expect_alike(tops, pictures);
    expect_poses(poses, pictures);
    expect(pictures.size() == tops.size() && maps.holds(6 * tops.shape[0], tops));
    with_type(tops, [&](auto t) {
        using T = decltype(t);
        resample<T>(matrix<T>(pictures), matrix<T>(poses), side, {span, size_spread, shift_spread},
                    inverse, matrix<T>(maps), matrix<T>(tops));
    });
}

void resample_backward(
    Array pictures, Array poses, long long side, double span, double size_spread,
    double shift_spread, bool inverse, Array maps, Array dtops, Array dpictures, Array dposes)
{
    expect(side > 1 && dtops.axes == 2 && dtops.shape[1] == side * side);
    expect_alike(dtops, pictures, dpictures);
    expect_poses(poses, pictures);
    expect(pictures.size() == dtops.size() && maps.holds(6 * dtops.shape[0], dtops));
    expect(dposes.absent_or_holds(poses.size(), poses));
    with_type(dtops, [&](auto t) {
        using T = decltype(t);
        resample_backward<T>(
            matrix<T>(pictures), matrix<T>(poses), matrix<T>(maps), side,
            {span, size_spread, shift_spread}, inverse, matrix<T>(dtops), matrix<T>(dpictures),
            matrix<T>(dposes));
    });
}

// function(S()) with the type of an array's elements, whole numbers included.
template <class Function> void with_source_type(const Array& array, Function&& function)
{
    switch (array.itemsize) {
    case 1:
        if (array.kind == 'i') return function(std::int8_t());
        return function(std::uint8_t());
    case 2:
        if (array.kind == 'i') return function(std::int16_t());
        return function(std::uint16_t());
    case 4:
        if (array.kind == 'f') return function(float());
        if (array.kind == 'i') return function(std::int32_t());
        return function(std::uint32_t());
    default:
        if (array.kind == 'f') return function(double());
        if (array.kind == 'i') return function(std::int64_t());
        return function(std::uint64_t());
    }
}

void gather(
    Array source, Array index, Array out, long long filled, double scale, Array table,
    unsigned long long seed, unsigned stream, unsigned long long step)
{
    expect(source.axes == 2 && out.axes == 2 && source.shape[1] == out.shape[1]);
    expect(out.holds(out.size(), out) && index.holds<i64>(index.size()));
    expect(source.stride[1] == source.itemsize || source.shape[1] == 1);
    expect(source.stride[0] % source.itemsize == 0);
    expect(filled >= 0 && filled + index.size() <= out.shape[0]);
    for (i64 i = 0; i < index.size(); ++i)
        expect(elements<i64>(index)[i] >= 0 && elements<i64>(index)[i] < source.shape[0]);
    if (table.size())
        expect(table.axes == 2 && table.shape[0] == 8 && table.holds<i64>(table.size())
               && out.shape[1] % table.shape[1] == 0);
    with_type(out, [&](auto t) {
        using T = decltype(t);
        with_source_type(source, [&](auto s) {
            using S = decltype(s);
            gather<S, T>(matrix<S>(source), elements<i64>(index), index.size(), matrix<T>(out),
                         filled, scale, matrix<i64>(table), seed, stream, step);
        });
    });
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit

#include "layers.inl"

namespace layerkit {

#define LAYERKIT_TEXT_(x) #x
#define LAYERKIT_TEXT(x) LAYERKIT_TEXT_(x)

extern const Kernels LAYERKIT_TABLE{
    LAYERKIT_TEXT(LAYERKIT_SET), LAYERKIT_VECTOR, LAYERKIT_SET::activation_names,
#define KERNEL(name, ...) LAYERKIT_SET::name,
#include "list.h"
#undef KERNEL
};

}  // namespace layerkit
