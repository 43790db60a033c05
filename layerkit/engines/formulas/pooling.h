// Pooling as Caffe defines it, window by window and axis by axis.

// How windows lie along an axis of `size` pixels.
struct PoolingAxis {
    i64 size, kernel, stride, pad, windows;

    // Pixels first, first + 1, ..., stop - 1 are those of a window in the picture; `whole` is how many
    // it has in the picture and its pads.
    struct Span {
        i64 first, stop, whole;
    };
    FORMULA Span span(i64 window) const
    {
        i64 start = window * stride - pad, end = start + kernel;
        if (end > size + pad) end = size + pad;
        return {start < 0 ? 0 : start, end > size ? size : end, end - start};
    }
    // Windows first, first + 1, ..., stop - 1 are those that hold a pixel.
    FORMULA i64 first_with(i64 pixel) const
    {
        return pixel + pad < kernel ? 0 : (pixel + pad - kernel) / stride + 1;
    }
    FORMULA i64 stop_with(i64 pixel) const
    {
        i64 stop = (pixel + pad) / stride + 1;
        return stop < windows ? stop : windows;
    }
};

// The largest number of a window, and the place of its first pixel of that value in the picture.  A
// NaN is larger than any number.
template <class R> struct Largest {
    R value;
    int place;
    FORMULA Largest(const R* picture, i64 width, PoolingAxis::Span rows, PoolingAxis::Span columns)
        : value(picture[rows.first * width + columns.first]),
          place(int(rows.first * width + columns.first))
    {
        for (i64 row = rows.first; row < rows.stop; ++row) {
            for (i64 column = columns.first; column < columns.stop; ++column) {
                R x = picture[row * width + column];
                if (x <= value || value != value) continue;
                value = x;
                place = int(row * width + column);
            }
        }
    }
};

template <class R>
FORMULA R mean_of_window(
    const R* picture, i64 width, PoolingAxis::Span rows, PoolingAxis::Span columns)
{
    double sum = 0;
    for (i64 row = rows.first; row < rows.stop; ++row)
        for (i64 column = columns.first; column < columns.stop; ++column)
            sum += picture[row * width + column];
    return R(sum / double(rows.whole * columns.whole));
}
