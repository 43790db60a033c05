// Activations y = a(x), named like the classes in layers/: `value` of x, and `gradient`, dy * a'(x),
// told from y; that of GELU and SiLU, of which two x have one y, from x.  exp_of and the like are of
// either precision.  Both sides of a choice are computed first, so that compilers make vectors of it
// and no branch.

template <class R> struct Linear {
    FORMULA explicit Linear(R) {}
    FORMULA R value(R x) const { return x; }
    FORMULA R gradient(R, R dy) const { return dy; }
};

template <class R> struct ReLU {
    FORMULA explicit ReLU(R) {}
    FORMULA R value(R x) const { return x <= 0 ? R(0) : x; }
    FORMULA R gradient(R y, R dy) const { return y > 0 ? dy : R(0); }
};

template <class R> struct LeakyReLU {
    R slope;
    FORMULA explicit LeakyReLU(R slope) : slope(slope) {}
    FORMULA R value(R x) const
    {
        R below = slope * x;
        return x <= 0 ? below : x;
    }
    FORMULA R gradient(R y, R dy) const
    {
        R below = slope * dy;
        return y > 0 ? dy : below;
    }
};

template <class R> struct ELU {
    R alpha;
    FORMULA explicit ELU(R alpha) : alpha(alpha) {}
    FORMULA R value(R x) const
    {
        R below = alpha * expm1_of(x);
        return x <= 0 ? below : x;
    }
    FORMULA R gradient(R y, R dy) const
    {
        R below = dy * (y + alpha);
        return y > 0 ? dy : below;
    }
};

template <class R> struct Sigmoid {
    FORMULA explicit Sigmoid(R) {}
    FORMULA R value(R x) const { return 1 / (1 + exp_of(-x)); }
    FORMULA R gradient(R y, R dy) const { return dy * (y * (1 - y)); }
};

template <class R> struct Tanh {
    FORMULA explicit Tanh(R) {}
    FORMULA R value(R x) const { return tanh_of(x); }
    FORMULA R gradient(R y, R dy) const { return dy * (1 - y * y); }
};

template <class R> struct Softplus {
    FORMULA explicit Softplus(R) {}
    FORMULA R value(R x) const { return (x < 0 ? R(0) : x) + log1p_of(exp_of_negative(-fabs(x))); }
    FORMULA R gradient(R y, R dy) const { return dy * -expm1_of(-y); }
};

template <class R> struct Exponential {
    FORMULA explicit Exponential(R) {}
    FORMULA R value(R x) const { return exp_of(x); }
    FORMULA R gradient(R y, R dy) const { return dy * y; }
};

template <class R> struct GELU {
    FORMULA explicit GELU(R) {}
    FORMULA static R probability(R x) { return R(0.5) * erfc_of(R(-0.70710678118654752) * x); }
    FORMULA R value(R x) const { return x * probability(x); }
    FORMULA R gradient(R x, R dy) const
    {
        // e^(-x^2 / 2) written as in erfc_of of a CPU, so that its compiler computes it once.
        R size = fabs(R(-0.70710678118654752) * x);
        R density = R(0.39894228040143268) * exp_of_negative(-size * size);
        return dy * (probability(x) + x * density);
    }
};

template <class R> struct SiLU {
    FORMULA explicit SiLU(R) {}
    FORMULA static R sigmoid(R x) { return 1 / (1 + exp_of(-x)); }
    FORMULA R value(R x) const { return x * sigmoid(x); }
    FORMULA R gradient(R x, R dy) const
    {
        R s = sigmoid(x);
        return dy * (s * (1 + x * (1 - s)));
    }
};

// All of them, for an engine that chooses among them as it runs.
#define ACTIVATIONS(with) \
    with(Linear) with(ReLU) with(LeakyReLU) with(ELU) with(Sigmoid) with(Tanh) with(Softplus) \
    with(Exponential) with(GELU) with(SiLU)
