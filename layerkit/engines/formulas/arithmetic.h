// Formulas of up to three numbers a, b and c, and a setting; their numbers are those of the engines'
// tables.
#define ELEMENTWISE(name, expression)                                                               \
    template <class R> struct name {                                                                \
        R setting;                                                                                  \
        FORMULA R operator()(R a, R b, R c) const                                                   \
        {                                                                                           \
            (void)a, (void)b, (void)c;                                                              \
            return expression;                                                                      \
        }                                                                                           \
    };

ELEMENTWISE(Copy, a)
ELEMENTWISE(Scale, setting * a)
ELEMENTWISE(Sum, a + b)
ELEMENTWISE(Difference, a - b)
ELEMENTWISE(Product, a * b)
ELEMENTWISE(ProductOfThree, a * b * c)
ELEMENTWISE(Quotient, a / b)
ELEMENTWISE(QuotientSlope, -(a / b) * c)  // by the divisor b, given dy and y
ELEMENTWISE(Affine, a * b + c)
ELEMENTWISE(Prelu, a > 0 ? a : b * a)
ELEMENTWISE(PreluSlope, a > 0 ? b : c * b)  // given x, dy and the slope
ELEMENTWISE(PreluSteepness, (a > 0 ? R(0) : a) * b)  // by the slope, given x and dy

#undef ELEMENTWISE
