// Losses that are sums over pairs of numbers of an example.
#pragma once

#include <algorithm>
#include <cmath>

#include "../../vectors/formulas.h"
#include "../../threads/pool.h"

namespace layerkit {
namespace LAYERKIT_SET {

constexpr i64 row_piece = 8192;  // numbers of examples that are worked on at a time

// function(pair) with the loss of this number; those of runners/losses.py.
template <class T, class Function>
LAYERKIT_INLINE void with_pair(int kind, T setting, Function&& function)
{
    if (kind == 0) function(SquaredDistance<T>(setting));
    else if (kind == 1) function(BernoulliEntropy<T>(setting));
    else if (kind == 2) function(HuberDistance<T>(setting));
    else if (kind == 3) function(Hinge<T>(setting));
    else if (kind == 4) function(SquaredHinge<T>(setting));
    else expect(false);
}

// The terms of a run of numbers, and the diffs that are wanted.
template <class T, class Pair>
double pair_run(
    const Pair& pair, bool checked, i64 size, const T* x, const T* target, T scale, T* dx, T* dtarget)
{
    constexpr i64 chunk = 64;
    T totals[chunk] = {};  // a sum that vectorises, and does not depend on how it is compiled
    int bad = 0;
    for (i64 start = 0; start < size; start += chunk, x += chunk, target += chunk) {
        i64 count = std::min(chunk, size - start);
        for (i64 i = 0; i < count; ++i) totals[i] += pair.term(x[i], target[i]);
        if (checked) for (i64 i = 0; i < count; ++i) bad |= !pair.good(target[i]);
        if (dx) for (i64 i = 0; i < count; ++i) dx[start + i] = scale * pair.by_first(x[i], target[i]);
        if (dtarget)
            for (i64 i = 0; i < count; ++i)
                dtarget[start + i] = scale * pair.by_second(x[i], target[i]);
    }
    expect_good(!bad);
    double total = 0;
    for (i64 i = 0; i < chunk; ++i) total += double(totals[i]);
    return total;
}

// Sums over each row of x and the target, which may be one class for each row: then it stands for
// signs, 1 at this place and -1 elsewhere.  `scale`, dx and dtarget may be null.
template <class T, class Pair>
void pair_loss(
    const Pair& pair, bool checked, Matrix<T> x, const Array& target, const T* scale, T* loss, T* dx,
    T* dtarget)
{
    i64 size = x.columns, rows = std::max<i64>(row_piece / size, 1), cut = std::min(size, row_piece);
    i64 cuts = (size + cut - 1) / cut;
    bool by_class = target.size() < x.rows * size;
    double* sums = work_space<struct OfPairs, double>(x.rows * cuts);
    parallel((x.rows + rows - 1) / rows * cuts, [&](i64 i) {
        i64 start = i % cuts * cut, count = std::min(cut, size - start);
        T* signs = by_class ? work_space<struct OfSigns, T>(cut) : nullptr;
        for (i64 row = i / cuts * rows; row < std::min((i / cuts + 1) * rows, x.rows); ++row) {
            i64 at = row * size + start;
            const T* second = signs;
            if (by_class) {
                double label = number_at(target, row);
                expect_good(label >= 0 && label < double(size) && label == std::floor(label));
                std::fill(signs, signs + count, T(-1));
                i64 place = i64(label) - start;
                if (place >= 0 && place < count) signs[place] = T(1);
            } else {
                second = elements<T>(target) + at;
            }
            sums[row * cuts + i % cuts] = pair_run(
                pair, checked && !by_class, count, x.data + at, second, scale ? scale[row] : T(0),
                dx ? dx + at : nullptr, dtarget ? dtarget + at : nullptr);
        }
    });
    for (i64 row = 0; row < x.rows; ++row) {
        double total = 0;
        for (i64 k = 0; k < cuts; ++k) total += sums[row * cuts + k];
        loss[row] = T(Pair::factor * total);
    }
}

template <class T>
void contrastive(
    Matrix<T> a, const T* b, const Array& similar, T margin, const T* scale, T* loss, T* da, T* db)
{
    i64 size = a.columns, rows = std::max<i64>(row_piece / size, 1);
    SquaredDistance<T> distance(0);
    parallel((a.rows + rows - 1) / rows, [&](i64 i) {
        for (i64 row = i * rows; row < std::min((i + 1) * rows, a.rows); ++row) {
            const T *x = a.data + row * size, *y = b + row * size;
            double s = number_at(similar, row);
            expect_good(s == 0 || s == 1);
            double squares = pair_run<T>(distance, false, size, x, y, T(0), nullptr, nullptr);
            ContrastivePair<T> pair{margin, T(std::sqrt(squares)), T(s)};
            loss[row] = pair.loss();
            T slope = scale ? scale[row] * pair.slope() : T(0);
            T *dx = da ? da + row * size : nullptr, *dy = db ? db + row * size : nullptr;
            if (dx) for (i64 j = 0; j < size; ++j) dx[j] = slope * (x[j] - y[j]);
            if (dy) for (i64 j = 0; j < size; ++j) dy[j] = slope * (y[j] - x[j]);
        }
    });
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
