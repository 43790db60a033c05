// The Kullback-Leibler divergence of two normal distributions of one number: (4) of Kingma and
// Welling (2014), with any prior.

struct Divergence {
    double m, t, precision, v;
    // From the means and log variances of the distribution and of the prior.
    FORMULA Divergence(double mean, double log_variance, double prior_mean, double prior_log_variance)
        : m(mean - prior_mean), t(log_variance - prior_log_variance),
          precision(exp(-prior_log_variance)), v(expm1(t))
    {
    }
    FORMULA double twice() const { return m * m * precision + (v - t); }
    FORMULA double by_mean() const { return m * precision; }
    FORMULA double by_log_variance() const { return 0.5 * v; }
    FORMULA double by_prior_mean() const { return -m * precision; }
    FORMULA double by_prior_log_variance() const { return -0.5 * (v + m * m * precision); }
};
