// Normalization: groups of numbers get mean 0 and variance 1, and each number a gain and a bias.

// Arrays (outer, groups, inner), whose groups are normalised over both other axes.  Element i has
// gain and bias number i / spread % count.  A group's numbers have one gain (`one`), or come in whole
// runs of `spread` with one gain, or, where spread is 1, in the order of the gains.
template <class Index> struct GroupsOf {
    Index outer, groups, inner, count, spread;
    bool one;

    FORMULA Index size() const { return outer * groups * inner; }
    FORMULA Index numbers() const { return outer * inner; }  // of a group
    FORMULA Index start(Index o, Index group) const { return (o * groups + group) * inner; }
    FORMULA Index element(Index group, Index k) const { return start(k / inner, group) + k % inner; }
    FORMULA Index channel(Index i) const { return i / spread % count; }
};

// Moves a running estimate towards what was found, unless that is not finite.
template <class R> FORMULA void follow(R& running, double momentum, double found, double factor)
{
    R moved = R(momentum) * running + R((1 - momentum) * factor) * R(found);
    if (moved - moved == 0) running = moved;
}

// By what the variance of `count` numbers is multiplied so that it has no bias.
FORMULA double without_bias(double count) { return count > 1 ? count / (count - 1) : 1; }

// dx of a number that is d once it is normalised, given dy gain, and the means over the group of dy
// gain and dy gain d.
template <class R> FORMULA R slope_of(R slope, R mean, R d, R product, R inverse)
{
    return (slope - mean - d * product) * inverse;
}
