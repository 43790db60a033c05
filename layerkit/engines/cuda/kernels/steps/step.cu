// What surrounds the layers in a training step.
#include "../device.h"
#include "../../../formulas/updates.h"

// Into `result`: the objective, its terms of regularisation, and the mean of each row of `values`,
// of which the first `losses` are part of the objective; the means are taken as they are where they
// are given, those over several GPUs say.  Returns whether the objective is finite.
FORMULA bool objective(
    i64 rows, i64 losses, i64 tops, i64 stride, i64 terms, const real* values, const double* means,
    const double* term, const double* factors, double* result)
{
    double total = 0, regularisation = 0;
    for (i64 i = 0; i < tops; ++i) {
        double sum = 0;
        if (!means)
            for (i64 row = threadIdx.x; row < rows; row += THREADS) sum += values[i * stride + row];
        double mean = means ? means[i] : lanes_sum(sum, THREADS) / rows;
        if (i < losses) total += factors[i] * mean;
        if (threadIdx.x == 0) result[2 + i] = mean;
    }
    for (i64 i = 0; i < terms; ++i) regularisation += factors[losses + i] * term[i];
    if (threadIdx.x == 0) {
        result[0] = total + regularisation;
        result[1] = regularisation;
    }
    return isfinite(total + regularisation);
}

// The sum of a gradient's squares, and how many of its numbers are none or beyond `limit`, in as
// many parts as there are blocks.
KERNEL look(i64 size, const real* g, double limit, double* squares, double* beyond)
{
    double sums[2] = {};
    for (i64 i = place(); i < size; i += (i64)gridDim.x * THREADS) {
        sums[0] += (double)g[i] * g[i];
        sums[1] += fabs((double)g[i]) <= limit ? 0 : 1;
    }
    lanes_sums<2>(sums, THREADS);
    if (threadIdx.x == 0) {
        squares[blockIdx.x] = sums[0];
        beyond[blockIdx.x] = sums[1];
    }
}

// Fills the row of this step in `results`.  Halts the clock where the objective is not finite, or a
// number of the gradient was beyond the limit; else lays out the constants of the update and moves
// the clock on by the passes of a step, to the next.  Works out what the gradient must be multiplied by to have at most
// the norm `clip`.  One block.
KERNEL check(
    i64 rows, i64 passes, i64 losses, i64 tops, i64 stride, i64 terms, const real* values,
    const double* means, const double* term, const double* factors, double* results, i64 parts, const double* squares, const double* beyond,
    double clip, real* shrink, i64 width, const double* table, double* constants, i64 sources,
    i64* clock)
{
    i64 halted = clock[HALTED], step = clock[STEP];
    if (halted) return;
    bool finite = objective(
        rows, losses, tops, stride, terms, values, means, term, factors,
        results + step * (2 + tops));
    double sums[2] = {};
    for (i64 i = threadIdx.x; i < parts; i += THREADS) {
        sums[0] += squares[i];
        sums[1] += beyond[i];
    }
    lanes_sums<2>(sums, THREADS);
    if (threadIdx.x != 0) return;
    double norm = sqrt(sums[0]);
    if (shrink) shrink[0] = norm > clip ? (real)(clip / norm) : (real)1;
    if (!finite || sums[1] > 0) {
        clock[HALTED] = 1;
        return;
    }
    for (i64 k = 0; k < width; ++k) constants[k] = table[step * width + k];
    clock[STEP] = step + 1;
    clock[PASS] += passes;
    for (i64 i = 0; i < sources; ++i) clock[POSITION + i] += passes * rows;
}

// Histories below the smallest normal number become zero, as on a CPU; see solvers/solver.py.
FORMULA float flushed(float x) { return fabsf(x) < 1.17549435e-38f ? 0 : x; }
FORMULA double flushed(double x) { return fabs(x) < 2.2250738585072014e-308 ? 0 : x; }

// A thread for each column.
KERNEL constrain(i64 rows, i64 columns, double most, real* w, const i64* clock)
{
    i64 column = place();
    if (clock[HALTED] || column >= columns) return;
    double sum = 0;
    for (i64 i = column; i < rows * columns; i += columns) sum += (double)w[i] * w[i];
    real shrink = (real)shrink_of(sum, most);
    if (shrink < 1)
        for (i64 i = column; i < rows * columns; i += columns) w[i] *= shrink;
}

KERNEL approach(i64 size, const real* w, real* average, double share, const i64* clock)
{
    if (clock[HALTED]) return;
    Approach<real> formula(share);
    for (i64 i = place(); i < size; i += (i64)gridDim.x * THREADS) formula(w[i], average[i]);
}

#ifdef UPDATE  // of formulas/updates.h

// `second` is `first` again where the solver has one history only.
KERNEL update(
    i64 size, const real* g, real* w, real* first, real* second, const double* constants,
    const real* shrink, const i64* clock)
{
    if (clock[HALTED]) return;
    UPDATE<real> change(constants);
    real factor = shrink ? shrink[0] : (real)1;
    for (i64 i = place(); i < size; i += (i64)gridDim.x * THREADS) {
        real a = first[i], b = second[i];
        change(factor * g[i], w[i], a, b);
        if (second != first) second[i] = flushed(b);
        first[i] = flushed(a);
    }
}

#endif
