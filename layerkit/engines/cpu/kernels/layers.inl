// Kernels of layers that are formulas, sums or lookups: their arrays, checked and handed to drivers.

namespace layerkit {
namespace LAYERKIT_SET {

// Arrays of one shape and type.
template <class... Arrays> void expect_like(const Array& y, const Arrays&... others)
{
    expect(y.kind == 'f');
    for (const Array* other : {&others...}) {
        expect(other->axes == y.axes && other->itemsize == y.itemsize && other->kind == 'f');
        for (int axis = 0; axis < y.axes; ++axis) expect(other->shape[axis] == y.shape[axis]);
    }
}

void elementwise(int kind, double setting, Array a, Array b, Array c, Array y)
{
    expect_like(y, a, b, c);
    expect(kind >= 0 && kind < formulas && y.size() > 0);
    with_type(y, [&](auto t) {
        using T = decltype(t);
        elementwise(Walk<T, 4>({a, b, c, y}), kind, T(setting));
    });
}

// The axes of x that are those of y, and the others.
Array first_axes(Array x, int count)
{
    x.axes = count;
    return x;
}

Array last_axes(Array x, int count)
{
    for (int axis = count; axis < x.axes; ++axis) {
        x.shape[axis - count] = x.shape[axis];
        x.stride[axis - count] = x.stride[axis];
    }
    x.axes -= count;
    return x;
}

void expect_largest(const Array& x, const Array& y)
{
    expect(x.axes > y.axes && x.size() > 0 && x.kind == 'f' && y.holds(y.size(), x));
    expect_like(y, first_axes(x, y.axes));
    expect(last_axes(x, y.axes).size() < (i64(1) << 31));
}

void largest(Array x, Array y)
{
    expect_largest(x, y);
    with_type(y, [&](auto t) {
        using T = decltype(t);
        Walk<T, 1> inner({last_axes(x, y.axes)});
        Walk<T, 2> kept({first_axes(x, y.axes), y});
        each_of_largest(kept, inner.size(), [&](i64 start, i64 offset, i64 step, i64 length) {
            int places[staged];
            largest_of(inner, elements<T>(x) + offset, step, length, elements<T>(y) + start, places);
        });
    });
}

void largest_backward(Array x, Array dy, Array dx)
{
    expect_largest(x, dy);
    expect_like(x, dx);
    for (int axis = 0; axis < x.axes; ++axis)
        expect(x.shape[axis] == 1 || x.stride[axis] == dx.stride[axis]);
    with_type(dy, [&](auto t) {
        using T = decltype(t);
        Walk<T, 1> inner({last_axes(x, dy.axes)});
        Walk<T, 2> kept({first_axes(x, dy.axes), dy});
        i64 apart = inner.stride[0][inner.axes - 1];
        each_of_largest(kept, inner.size(), [&](i64 start, i64 offset, i64 step, i64 length) {
            T values[staged];
            int places[staged];
            largest_of(inner, elements<T>(x) + offset, step, length, values, places);
            const T* given = elements<T>(dy) + start;
            T* to = elements<T>(dx) + offset;
            inner.runs(0, 0, inner.size(), [&](i64 at, i64 from, i64 count) {
                for (i64 k = 0; k < count; ++k)
                    for (i64 i = 0; i < length; ++i)
                        to[i * step + from + k * apart] = at + k == places[i] ? given[i] : T(0);
            });
        });
    });
}

ClassShape class_shape(const Array& x)
{
    expect(x.axes == 3 && x.size() > 0 && x.holds(x.size(), x));
    return {x.shape[0], x.shape[1], x.shape[2]};
}

void softmax(Array x, Array y)
{
    ClassShape s = class_shape(x);
    expect(y.holds(x.size(), x));
    with_type(y, [&](auto t) {
        using T = decltype(t);
        softmax<T>(s, elements<T>(x), elements<T>(y));
    });
}

void softmax_backward(Array y, Array dy, Array dx)
{
    ClassShape s = class_shape(y);
    expect(dy.holds(y.size(), y) && dx.holds(y.size(), y));
    with_type(y, [&](auto t) {
        using T = decltype(t);
        softmax_backward<T>(s, elements<T>(y), elements<T>(dy), elements<T>(dx));
    });
}

void softmax_loss(
    Array logits, Array label, Array importance, Array weights, double ignored, double smoothing,
    bool checked, Array scale, Array loss, Array dlogits, Array dlabel)
{
    ClassShape s = class_shape(logits);
    i64 examples = loss.size(), places = s.places();
    bool soft = label.size() == logits.size() && label.size() > places;
    expect(examples > 0 && places % examples == 0 && loss.holds(examples, logits) && label.dense());
    expect(soft ? label.holds(label.size(), logits) : label.size() == places);
    expect(importance.dense() && weights.dense());
    expect(importance.size() == 0 || importance.size() == places || importance.size() == examples);
    expect(weights.size() == 0 || weights.size() == s.count);
    expect(scale.absent_or_holds(examples, logits) && dlogits.absent_or_holds(logits.size(), logits));
    expect(dlabel.absent_or_holds(soft ? logits.size() : 0, logits));
    with_type(logits, [&](auto t) {
        using T = decltype(t);
        softmax_loss(SoftmaxLoss<T>{
            s, examples, elements<T>(logits), label, importance, weights, ignored, smoothing, soft,
            checked, or_null<T>(scale), elements<T>(loss), or_null<T>(dlogits), or_null<T>(dlabel)});
    });
}

void accuracy(Array logits, Array label, double ignored, long long top, Array value)
{
    ClassShape s = class_shape(logits);
    i64 examples = value.size();
    expect(examples > 0 && s.places() % examples == 0 && value.holds(examples, logits));
    expect(label.dense() && label.size() == s.places());
    with_type(logits, [&](auto t) {
        using T = decltype(t);
        accuracy<T>(s, examples, elements<T>(logits), label, ignored, top, elements<T>(value));
    });
}

void pair_loss(
    int kind, double setting, bool checked, Array x, Array target, Array scale, Array loss, Array dx,
    Array dtarget)
{
    i64 rows = loss.size(), size = x.size();
    expect(x.axes >= 1 && rows == x.shape[0] && size > 0 && x.holds(size, x));
    expect(loss.holds(rows, x) && scale.absent_or_holds(rows, x) && target.dense());
    expect(target.size() == rows ? size > rows || target.holds(rows, x) : target.holds(size, x));
    expect(dx.absent_or_holds(size, x) && dtarget.absent_or_holds(target.size(), x));
    with_type(x, [&](auto t) {
        using T = decltype(t);
        with_pair<T>(kind, T(setting), [&](auto pair) {
            pair_loss<T>(pair, checked, matrix<T>(x), target, or_null<T>(scale), elements<T>(loss),
                         or_null<T>(dx), or_null<T>(dtarget));
        });
    });
}

void contrastive(
    Array a, Array b, Array similar, double margin, Array scale, Array loss, Array da, Array db)
{
    i64 rows = loss.size(), size = a.size();
    expect(a.axes >= 1 && rows == a.shape[0] && size > 0 && a.holds(size, a) && b.holds(size, a));
    expect(similar.dense() && similar.size() == rows && loss.holds(rows, a));
    expect(scale.absent_or_holds(rows, a) && da.absent_or_holds(size, a) && db.absent_or_holds(size, a));
    with_type(a, [&](auto t) {
        using T = decltype(t);
        contrastive<T>(matrix<T>(a), elements<T>(b), similar, T(margin), or_null<T>(scale),
                       elements<T>(loss), or_null<T>(da), or_null<T>(db));
    });
}

void expect_table(const Array& ids, const Array& table, const Array& y)
{
    expect(table.axes == 2 && table.dense() && table.kind == 'f' && table.size() > 0 && ids.dense());
    expect(y.holds(ids.size() * table.shape[1], table));
}

void embed(Array ids, Array table, Array y)
{
    expect_table(ids, table, y);
    with_type(y, [&](auto t) {
        using T = decltype(t);
        embed<T>(ids, matrix<T>(table), elements<T>(y));
    });
}

void embed_backward(Array ids, Array dy, Array dtable)
{
    expect_table(ids, dtable, dy);
    with_type(dy, [&](auto t) {
        using T = decltype(t);
        embed_backward<T>(ids, elements<T>(dy), matrix<T>(dtable));
    });
}

void one_hot(Array ids, Array y)
{
    ClassShape s = class_shape(y);
    expect(ids.dense() && ids.size() == s.places());
    with_type(y, [&](auto t) {
        using T = decltype(t);
        one_hot<T>(ids, s.count, s.after, elements<T>(y));
    });
}

void dropout(Array x, Array mask, Array y, double ratio, unsigned stream, Array clock)
{
    expect(y.dense() && x.holds(y.size(), y) && mask.holds(y.size(), y) && ratio < 1);
    expect(clock.kind == 'u' && clock.itemsize == 8 && clock.size() == 3 && clock.dense());
    const auto* now = elements<std::uint64_t>(clock);
    with_type(y, [&](auto t) {
        using T = decltype(t);
        dropout<T>(y.size(), elements<T>(x), elements<T>(mask), elements<T>(y), ratio, now[0], stream,
                   now[1]);
    });
}

// The arrays that both passes of a recurrent layer have; y is the top, or its diff.
template <class T>
Sequence<T> sequence_of(
    bool gru, double forget, bool reverse, const Array& inputs, const Array& w, const Array& u,
    const Array& values, const Array& states, const Array& other, const Array& y)
{
    expect(inputs.axes == 3 && w.axes == 2 && u.axes == 2 && (y.axes == 2 || y.axes == 3) && w.kind == 'f');
    i64 steps = inputs.shape[0], n = inputs.shape[1], units = u.shape[0], all = steps * n;
    i64 width = (gru ? 3 : 4) * units;
    expect(inputs.holds(all * inputs.shape[2], w) && w.holds(inputs.shape[2] * width, w));
    expect(u.holds(units * width, w) && w.shape[1] == width && values.holds(all * width, w));
    expect(states.holds(all * units, w) && other.holds(all * units, w) && y.shape[0] == n);
    expect(y.holds((y.axes == 2 ? n : all) * units, w));
    return {gru, reverse, y.axes == 2, n, steps, inputs.shape[2], units, T(forget), matrix<T>(w),
            matrix<T>(u), nullptr, elements<T>(inputs), elements<T>(values), elements<T>(states),
            elements<T>(other)};
}

void recurrent_forward(
    bool gru, double forget, bool reverse, Array x, Array w, Array u, Array b, Array inputs,
    Array values, Array states, Array other, Array y)
{
    with_type(w, [&](auto t) {
        using T = decltype(t);
        auto o = sequence_of<T>(gru, forget, reverse, inputs, w, u, values, states, other, y);
        expect(x.holds(inputs.size(), w) && b.holds(o.width(), w));
        o.b = elements<T>(b);
        recurrent_forward<T>(o, elements<T>(x), elements<T>(y));
    });
}

void recurrent_backward(
    bool gru, bool reverse, Array inputs, Array w, Array u, Array values, Array states, Array other,
    Array dy, Array slopes, Array through, Array dw, Array du, Array db, Array dx)
{
    with_type(w, [&](auto t) {
        using T = decltype(t);
        auto o = sequence_of<T>(gru, 0, reverse, inputs, w, u, values, states, other, dy);
        expect(slopes.holds(values.size(), w) && through.holds(values.size(), w));
        expect(dw.absent_or_holds(w.size(), w) && du.absent_or_holds(u.size(), w));
        expect(db.absent_or_holds(o.width(), w) && dx.absent_or_holds(inputs.size(), w));
        recurrent_backward<T>(o, elements<T>(dy), elements<T>(slopes), elements<T>(through),
                              or_null<T>(dw), or_null<T>(du), or_null<T>(db), or_null<T>(dx));
    });
}

}  // namespace LAYERKIT_SET
}  // namespace layerkit
