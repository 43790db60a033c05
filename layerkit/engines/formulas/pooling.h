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

// The largest number of a window so far, and the place of the first pixel that has it.  A NaN is larger
// than any number.
template <class R> struct Largest {
    R value;
    int place;
    // In selects only, of which compilers make vectors.
    FORMULA void look(R x, int at)
    {
        R next = x <= value ? value : x;
        int next_place = x <= value ? place : at;
        place = value == value ? next_place : place;
        value = value == value ? next : value;
    }
};
