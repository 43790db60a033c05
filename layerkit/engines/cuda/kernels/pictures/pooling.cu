// Pooling and GlobalPooling.  Pictures are (n * channels, height, width), tops and the places of their
// pixels (n * channels, down, across).
#include "../device.h"
#include "../../../formulas/pooling.h"

#define GEOMETRY \
    i64 rows, i64 columns, i64 stride_down, i64 stride_across, i64 pad_down, i64 pad_across, \
    i64 down, i64 across, i64 height, i64 width
#define DOWN PoolingAxis{height, rows, stride_down, pad_down, down}
#define ACROSS PoolingAxis{width, columns, stride_across, pad_across, across}

KERNEL largest_of_windows(i64 size, GEOMETRY, const real* x, real* y, int* places)
{
    i64 i = place();
    if (i >= size) return;
    const real* picture = x + i / (down * across) * (height * width);
    auto of_rows = DOWN.span(i / across % down), of_columns = ACROSS.span(i % across);
    int first = (int)(of_rows.first * width + of_columns.first);
    Largest<real> largest{picture[first], first};
    for (i64 row = of_rows.first; row < of_rows.stop; ++row)
        for (i64 column = of_columns.first; column < of_columns.stop; ++column)
            largest.look(picture[row * width + column], (int)(row * width + column));
    y[i] = largest.value;
    places[i] = largest.place;
}

KERNEL means_of_windows(i64 size, GEOMETRY, const real* x, real* y)
{
    i64 i = place();
    if (i >= size) return;
    const real* picture = x + i / (down * across) * (height * width);
    auto of_rows = DOWN.span(i / across % down), of_columns = ACROSS.span(i % across);
    double sum = 0;
    for (i64 row = of_rows.first; row < of_rows.stop; ++row)
        for (i64 column = of_columns.first; column < of_columns.stop; ++column)
            sum += picture[row * width + column];
    y[i] = (real)(sum / (double)(of_rows.whole * of_columns.whole));
}

// d loss / d picture: each pixel gathers from the windows that hold it, in their order; from those
// whose places it is, or its share from all where there are no places.
KERNEL gather_windows(i64 size, GEOMETRY, const real* dy, const int* places, real* dx)
{
    i64 i = place();
    if (i >= size) return;
    PoolingAxis rows_of = DOWN, columns_of = ACROSS;
    i64 column = i % width, row = i / width % height, first = i / (width * height) * (down * across);
    i64 bottom = rows_of.stop_with(row), right = columns_of.stop_with(column);
    real sum = 0;
    for (i64 a = rows_of.first_with(row); a < bottom; ++a) {
        for (i64 b = columns_of.first_with(column); b < right; ++b) {
            i64 window = first + a * across + b;
            if (!places) sum += dy[window] / (real)(rows_of.span(a).whole * columns_of.span(b).whole);
            else if (places[window] == row * width + column) sum += dy[window];
        }
    }
    dx[i] = sum;
}
