// Log likelihoods of one pixel, at distance d from its mean, with variance v = e + floor.

// A normal distribution.
template <class R> struct GaussianPixel {
    // Twice the loss without its constant; its derivatives by d and by the skew, of which it has none.
    FORMULA void operator()(R d, R v, R, R& term, R& r, R& by_skew) const
    {
        r = d / v;
        term = log_of(v) + d * r;
        by_skew = 0;
    }
};

// Student's t, scaled to variance v and skewed as by Fernandez and Steel (1998).
template <class R> struct StudentPixel {
    R below, fold;  // degrees of freedom - 2; E|T| at mean 0 and variance 1
    FORMULA void operator()(R d, R v, R skew, R& term, R& r, R& by_skew) const
    {
        R above = below + 3, g = exp_of(skew), h = 1 / g, rest = 1 - fold * fold;
        R variance = rest * (g * g + h * h) + (1 - rest - rest);
        R s = sqrt_of(variance), root = sqrt_of(v);
        R standard = d / root, y = fold * (g - h) + s * standard;
        R shrink = y >= 0 ? h : g, u = y * shrink, w = u * u;
        R p = above * (u / (below + w)), q = p * shrink;
        R by_s = rest * (g * g - h * h) / s, mean = (g + h) / 2, turn = p * u;
        term = log_of(v * (mean * mean / variance)) + above * log_of(1 + w / below);
        r = q * s / root;
        by_skew = (g - h) / (g + h) - by_s / s + q * (fold * (g + h) + by_s * standard)
            - (y >= 0 ? turn : -turn);
    }
};
