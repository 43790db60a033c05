// An array as it comes from Python: memory, shape and strides, without an owner.
#pragma once

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <utility>

namespace layerkit {

using i64 = std::int64_t;

struct Array {
    static constexpr int most = 16;  // axes
    char* data = nullptr;
    int axes = 0;
    int itemsize = 0;
    char kind = 'f';     // as in NumPy: b, i, u or f
    i64 shape[most]{};   // elements
    i64 stride[most]{};  // bytes

    i64 size() const
    {
        i64 count = 1;
        for (int axis = 0; axis < axes; ++axis) count *= shape[axis];
        return count;
    }
    // Whether each element follows the one before in memory.
    bool dense() const
    {
        i64 apart = itemsize;
        for (int axis = axes - 1; axis >= 0; apart *= shape[axis--])
            if (shape[axis] > 1 && stride[axis] != apart) return size() == 0;
        return true;
    }
    // Whether it holds `count` floats of the other's type, one after the other.
    bool holds(i64 count, const Array& other) const
    {
        bool alike = itemsize == other.itemsize && kind == 'f' && other.kind == 'f';
        return alike && size() == count && dense();
    }
    // A matrix with rows for columns; anything else is as it was.
    Array turned() const
    {
        Array other = *this;
        if (axes == 2) {
            std::swap(other.shape[0], other.shape[1]);
            std::swap(other.stride[0], other.stride[1]);
        }
        return other;
    }
    bool absent_or_holds(i64 count, const Array& other) const
    {
        return size() == 0 || holds(count, other);
    }
    template <class T> bool holds(i64 count) const
    {
        char wanted = T(0.5) > T(0) ? 'f' : 'i';
        return kind == wanted && itemsize == sizeof(T) && size() == count && dense();
    }
};

// Arrays that cannot be those that a net has allocated.
struct Mismatch : std::logic_error {
    using std::logic_error::logic_error;
};

// Kernels read and write what shapes say, so these are compared first.
inline void expect(bool fits)
{
    if (!fits)
        throw Mismatch(
            "it has arrays whose shapes, strides or types do not belong together; leave those of "
            "blobs and parameters, and sizes in a layer's settings, as they were when the net was "
            "made");
}

// Data that a layer cannot work on, such as labels of no class; which, its own check says.
struct BadData : std::runtime_error {
    BadData() : std::runtime_error("data that a layer cannot work on") {}
};

inline void expect_good(bool good)
{
    if (!good) throw BadData();
}

// Rows and columns of elements of one type.
template <class T> struct Matrix {
    T* data;
    i64 rows, columns;
    i64 down, across;  // elements from one row, and from one column, to the next

    T* row(i64 i) const { return data + i * down; }
    T& at(i64 i, i64 j) const { return data[i * down + j * across]; }
    bool empty() const { return rows == 0 || columns == 0; }
    Matrix block(i64 top, i64 bottom, i64 left, i64 right) const
    {
        return {data + top * down + left * across, bottom - top, right - left, down, across};
    }
    Matrix turned() const { return {data, columns, rows, across, down}; }
};

// The matrix that an array (n, ...) of neighbouring elements is, or a matrix of any strides.
template <class T> Matrix<T> matrix(const Array& array)
{
    i64 rows = array.axes ? array.shape[0] : 1, columns = 1, size = sizeof(T);
    for (int axis = 1; axis < array.axes; ++axis) columns *= array.shape[axis];
    i64 down = array.axes ? array.stride[0] / size : 0;
    i64 across = array.axes == 2 ? array.stride[1] / size : 1;
    return {reinterpret_cast<T*>(array.data), rows, columns, down, across};
}

template <class T> T* elements(const Array& array) { return reinterpret_cast<T*>(array.data); }

// Element i of neighbouring ones, of any type, as labels and ids may be; NaN for a type that is none
// of numbers.
inline double number_at(const Array& array, i64 i)
{
    const char* at = array.data + i * array.itemsize;
    auto as = [at](auto type) { return double(*reinterpret_cast<const decltype(type)*>(at)); };
    bool with_sign = array.kind == 'i';
    switch (array.itemsize) {
    case 1: return with_sign ? as(std::int8_t()) : as(std::uint8_t());
    case 2: return with_sign ? as(std::int16_t()) : as(std::uint16_t());
    case 4: return array.kind == 'f' ? as(float()) : with_sign ? as(std::int32_t()) : as(std::uint32_t());
    case 8: return array.kind == 'f' ? as(double()) : with_sign ? as(std::int64_t()) : as(std::uint64_t());
    default: return std::numeric_limits<double>::quiet_NaN();
    }
}

}  // namespace layerkit
