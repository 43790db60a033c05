// Losses that are sums over pairs of numbers: `term`, and the derivatives of `factor` times it.  `good`
// says whether the second is one that the loss is made for.

// Half the squared distance.
template <class R> struct SquaredDistance {
    static constexpr double factor = 0.5;
    FORMULA explicit SquaredDistance(R) {}
    FORMULA bool good(R) const { return true; }
    FORMULA R term(R x, R target) const { return (x - target) * (x - target); }
    FORMULA R by_first(R x, R target) const { return x - target; }
    FORMULA R by_second(R x, R target) const { return target - x; }
};

// The cross entropy of a Bernoulli variable, from its logit, in a form that cannot overflow.
template <class R> struct BernoulliEntropy {
    static constexpr double factor = 1;
    FORMULA explicit BernoulliEntropy(R) {}
    FORMULA bool good(R target) const { return target >= 0 && target <= 1; }
    FORMULA R term(R logit, R target) const
    {
        R value = (logit < 0 ? R(0) : logit) - logit * target + log1p_of(exp_of(-fabs(logit)));
        // Not a number where the target is no probability.
        return target < R(-0.01) || target > R(1.01) ? log_of(R(-1)) : value;
    }
    FORMULA R by_first(R logit, R target) const
    {
        return R(0.5) * (1 + tanh_of(R(0.5) * logit)) - target;
    }
    FORMULA R by_second(R logit, R) const { return -logit; }
};

// Huber's: the square of a small residual, else its magnitude.
template <class R> struct HuberDistance {
    static constexpr double factor = 1;
    R delta;
    FORMULA explicit HuberDistance(R delta) : delta(delta) {}
    FORMULA bool good(R) const { return true; }
    FORMULA R term(R x, R target) const
    {
        R size = fabs(x - target), cut = size < delta ? size : delta;
        return cut * (size - R(0.5) * cut);
    }
    FORMULA R by_first(R x, R target) const
    {
        R d = x - target, cut = d > delta ? delta : d;
        return cut < -delta ? -delta : cut;
    }
    FORMULA R by_second(R x, R target) const { return by_first(target, x); }
};

// How far a score is from a margin on the side of its sign.
template <class R> struct Hinge {
    static constexpr double factor = 1;
    R margin;
    FORMULA explicit Hinge(R margin) : margin(margin) {}
    FORMULA bool good(R sign) const { return sign == 1 || sign == -1; }
    FORMULA R term(R x, R sign) const
    {
        R short_of = margin - sign * x;
        return short_of <= 0 ? R(0) : short_of;
    }
    FORMULA R by_first(R x, R sign) const { return margin - sign * x > 0 ? -sign : R(0); }
    FORMULA R by_second(R, R) const { return 0; }
};

template <class R> struct SquaredHinge {
    static constexpr double factor = 1;
    Hinge<R> hinge;
    FORMULA explicit SquaredHinge(R margin) : hinge(margin) {}
    FORMULA bool good(R sign) const { return hinge.good(sign); }
    FORMULA R term(R x, R sign) const { return hinge.term(x, sign) * hinge.term(x, sign); }
    FORMULA R by_first(R x, R sign) const { return -2 * sign * hinge.term(x, sign); }
    FORMULA R by_second(R, R) const { return 0; }
};

// The contrastive loss of a pair at distance d, similar (1) or not (0).
template <class R> struct ContrastivePair {
    R margin, d, similar;
    FORMULA R short_of() const { return d < margin ? margin - d : R(0); }
    FORMULA R loss() const
    {
        return R(0.5) * (similar * d * d + (1 - similar) * short_of() * short_of());
    }
    // By what the points' difference is multiplied.
    FORMULA R slope() const { return similar - (1 - similar) * short_of() / (d > 0 ? d : R(1)); }
};
