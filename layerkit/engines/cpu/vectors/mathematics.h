// Functions of arithmetic that compilers vectorise, as the C library's are not.
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

// x = n log(2) + r with |r| <= log(2) / 2, and e^r by seven terms of its series.
struct Power {
    std::int32_t n;
    float y;  // e^r

    LAYERKIT_INLINE explicit Power(float x)
    {
        float shifted = x * log2_e + rounder;
        float whole = shifted - rounder;
        float r = (x - whole * ln2_high) - whole * ln2_low;
        float p = 1.0f / 2 + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)))));
        y = 1.0f + (r + r * r * p);
        n = less(bits_of(shifted), bits_of(rounder));
    }
};

LAYERKIT_INLINE float exp_of(float x)
{
    x = x > 89.0f ? 89.0f : x;  // beyond these e^x is infinite, or zero; a NaN passes
    x = x < -104.5f ? -104.5f : x;
    Power e(x);
    // In two steps, as 2^n itself may be out of range where 2^n e^r is not.
    std::int32_t half = e.n >> 1;
    return e.y * of_bits(up(half + 127)) * of_bits(up(e.n - half + 127));
}

LAYERKIT_INLINE double exp_of(double x) { return std::exp(x); }

// e^x for x <= 0: 2^n is 0 where the result would be a denormal number, which counts as zero.
LAYERKIT_INLINE float exp_of_negative(float x)
{
    Power e(x < -88.0f ? -88.0f : x);
    return e.y * of_bits(up(e.n + 127));
}

LAYERKIT_INLINE double exp_of_negative(double x) { return std::exp(x); }

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

// e^x - 1: near 0, where the difference would lose digits, by its series.
LAYERKIT_INLINE float expm1_of(float x)
{
    float series = x + x * (x * (1.0f / 2 + x * (1.0f / 6 + x * (1.0f / 24 + x * (1.0f / 120 + x * (1.0f / 720))))));
    return x > -0.25f && x < 0.25f ? series : exp_of(x) - 1.0f;
}

LAYERKIT_INLINE double expm1_of(double x) { return std::expm1(x); }

// log(1 + x) for x >= 0: the rounding of 1 + x changes log(1 + x) / x, which is smooth, by little.
LAYERKIT_INLINE float log1p_of(float x)
{
    float sum = 1.0f + x, rounded = sum - 1.0f;
    return rounded == 0 ? x : log_of(sum) * (x / rounded);
}

LAYERKIT_INLINE double log1p_of(double x) { return std::log1p(x); }

// sign(x) (1 - e^-2|x|) / (1 + e^-2|x|), and near 0 the series.
LAYERKIT_INLINE float tanh_of(float x)
{
    float size = std::fabs(x), e = exp_of_negative(-2.0f * size), z = x * x;
    float series = size + size * (z * (-1.0f / 3 + z * (2.0f / 15 + z * (-17.0f / 315 + z * (62.0f / 2835)))));
    float y = size < 0.25f ? series : (1.0f - e) / (1.0f + e);
    return x < 0 ? -y : y;
}

LAYERKIT_INLINE double tanh_of(double x) { return std::tanh(x); }

// erfc(x) e^(x^2) / t is a polynomial in t = 1 / (1 + 0.4 x), x >= 0, fitted to 1.3e-7 of itself.
LAYERKIT_INLINE float erfc_of(float x)
{
    float size = std::fabs(x), t = 1.0f / (1.0f + 0.4f * size);
    float p = 0.207838643f + t * (0.168577756f + t * (0.141278866f + t * (-0.00525853065f + t * (0.168647452f + t * (-0.182617522f + t * 0.0501878267f)))));
    float y = t * (0.225675861f + t * (0.22566977f + t * p)) * exp_of_negative(-size * size);
    return x < 0 ? 2.0f - y : y;
}

LAYERKIT_INLINE double erfc_of(double x) { return std::erfc(x); }

LAYERKIT_INLINE float sqrt_of(float x) { return std::sqrt(x); }
LAYERKIT_INLINE double sqrt_of(double x) { return std::sqrt(x); }

}  // namespace LAYERKIT_SET
}  // namespace layerkit
