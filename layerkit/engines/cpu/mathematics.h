// exp and log of arithmetic that compilers vectorise, as the C library's are not.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "simd.h"

namespace layerkit {
namespace LAYERKIT_SET {

constexpr float log2_e = 1.44269504f, ln2_high = 0.693359375f;  // nine bits: exact times an exponent
constexpr float ln2_low = -2.12194440e-4f;
constexpr float rounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
constexpr float smallest = 1.17549435e-38f;  // normal number

LAYERKIT_INLINE float of_bits(std::int32_t bits)
{
    float number;
    std::memcpy(&number, &bits, 4);
    return number;
}

LAYERKIT_INLINE std::int32_t bits_of(float number)
{
    std::int32_t bits;
    std::memcpy(&bits, &number, 4);
    return bits;
}

// a - b and a 2^23, without the bits that do not fit: those of NaN do not, and their result is unused.
LAYERKIT_INLINE std::int32_t less(std::int32_t a, std::int32_t b)
{
    return std::int32_t(std::uint32_t(a) - std::uint32_t(b));
}
LAYERKIT_INLINE std::int32_t up(std::int32_t a) { return std::int32_t(std::uint32_t(a) << 23); }

// 2^n e^r with |r| <= log(2) / 2, and e^r by seven terms of its series.
LAYERKIT_INLINE float exp_of(float x)
{
    x = x > 89.0f ? 89.0f : x;  // beyond these e^x is infinite, or zero; a NaN passes
    x = x < -104.5f ? -104.5f : x;
    float shifted = x * log2_e + rounder;
    float n = shifted - rounder;
    float r = (x - n * ln2_high) - n * ln2_low;
    float p = 1.0f / 2 + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)))));
    float y = 1.0f + (r + r * r * p);
    // In two steps, as 2^n itself may be out of range where 2^n e^r is not.
    std::int32_t whole = less(bits_of(shifted), bits_of(rounder)), half = whole >> 1;
    return y * of_bits(up(half + 127)) * of_bits(up(whole - half + 127));
}

LAYERKIT_INLINE double exp_of(double x) { return std::exp(x); }

// n log(2) + log(m), sqrt(1/2) <= m < sqrt(2), with log(m) = 2 artanh((m - 1) / (m + 1)).
LAYERKIT_INLINE float log_of(float x)
{
    std::int32_t bits = bits_of(x);
    std::int32_t n = less(bits, 0x3F3504F3) >> 23;  // the bits of sqrt(1/2)
    float m = of_bits(less(bits, up(n)));
    float f = m - 1.0f, s = f / (2.0f + f), s2 = s * s, k = static_cast<float>(n);
    // 2 artanh(s) = f - s (f - ...): the large term f is exact
    float q = s2 * (2.0f / 3 + s2 * (2.0f / 5 + s2 * (2.0f / 7 + s2 * (2.0f / 9))));
    float y = k * ln2_high + (f + (k * ln2_low - s * (f - q)));
    y = x == std::numeric_limits<float>::infinity() ? x : y;
    y = x < smallest ? -std::numeric_limits<float>::infinity() : y;  // zero, as denormals are
    return x >= 0 ? y : std::numeric_limits<float>::quiet_NaN();
}

LAYERKIT_INLINE double log_of(double x) { return std::log(x); }

LAYERKIT_INLINE float sqrt_of(float x) { return std::sqrt(x); }
LAYERKIT_INLINE double sqrt_of(double x) { return std::sqrt(x); }

}  // namespace LAYERKIT_SET
}  // namespace layerkit
