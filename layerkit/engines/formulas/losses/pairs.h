// Losses that are sums over pairs of numbers: `term`, and the derivatives of `factor` times it.

// Half the squared distance.
template <class R> struct SquaredDistance {
    static constexpr double factor = 0.5;
    FORMULA double term(R x, R target) const { return (x - target) * (x - target); }
    FORMULA R by_first(R x, R target) const { return x - target; }
    FORMULA R by_second(R x, R target) const { return target - x; }
};

// The cross entropy of a Bernoulli variable, from its logit, in a form that cannot overflow.
template <class R> struct BernoulliEntropy {
    static constexpr double factor = 1;
    FORMULA double term(R logit, R target) const
    {
        if (target < R(-0.01) || target > R(1.01)) return log(-1.0);  // not a number: no probability
        return (logit < 0 ? R(0) : logit) - logit * target + log1p(exp(-fabs(logit)));
    }
    FORMULA R by_first(R logit, R target) const { return R(0.5) * (1 + tanh(R(0.5) * logit)) - target; }
    FORMULA R by_second(R logit, R) const { return -logit; }
};
