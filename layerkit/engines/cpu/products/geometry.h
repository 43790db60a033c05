// How windows lie on pictures.
#pragma once

#include "../vectors/simd.h"

namespace layerkit {
namespace LAYERKIT_SET {

// Windows on pictures (channels, height, width), whose channels fall into groups that are cut each by
// itself; `channels` are those of a group.
struct Geometry {
    i64 rows, columns;           // of a window
    i64 stride[2], pad[2], dilation[2];
    i64 down, across;            // windows
    i64 groups, channels, height, width;

    i64 places() const { return down * across; }
    i64 run() const { return columns * channels; }               // numbers in a row of a window
    i64 window() const { return rows * run(); }
    i64 line() const { return (width + 2 * pad[1]) * channels; }  // of a picture with its border
    i64 bordered() const { return (height + 2 * pad[0]) * line(); }
    i64 start(i64 i, i64 j) const { return i * stride[0] * line() + j * stride[1] * channels; }
    i64 together() const { return dilation[1] == 1 ? run() : channels; }  // neighbours of a window
    bool by_places() const { return stride[1] == 1 && across >= together(); }
    // Calls function(number of the window, where a row of it begins in the border, and in the
    // window, how many numbers follow) for each run of numbers that are neighbours in both.
    template <class Function> LAYERKIT_INLINE void runs(Function&& function) const
    {
        i64 length = together(), pieces = run() / length;
        i64 below = dilation[0] * line(), beside = dilation[1] * channels, at = 0;
        for (i64 i = 0; i < down; ++i)
            for (i64 j = 0; j < across; ++j)
                for (i64 u = 0; u < rows; ++u)
                    for (i64 v = 0; v < pieces; ++v, at += length)
                        function(start(i, j) + u * below + v * beside, at, length);
    }
};

}  // namespace LAYERKIT_SET
}  // namespace layerkit
