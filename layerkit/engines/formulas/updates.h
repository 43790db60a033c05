// Solvers' updates of one parameter w, given its gradient g and up to two histories.

// Kingma and Ba (2015), algorithm 1, and with decoupled weight decay Loshchilov and Hutter (2019),
// algorithm 2.  Constants: beta1, 1 - beta1, beta2, 1 - beta2, rate / (1 - beta1^t),
// 1 / sqrt(1 - beta2^t), epsilon, and 1 - rate * decay, what is left of w itself.
template <class R> struct AdamUpdate {
    R keep_m, add_m, keep_v, add_v, step, root, epsilon, keep_w;
    FORMULA explicit AdamUpdate(const double* c)
        : keep_m((R)c[0]), add_m((R)c[1]), keep_v((R)c[2]), add_v((R)c[3]), step((R)c[4]),
          root((R)c[5]), epsilon((R)c[6]), keep_w((R)c[7])
    {
    }
    FORMULA void operator()(R g, R& w, R& m, R& v) const
    {
        R first = keep_m * m + add_m * g, second = keep_v * v + add_v * (g * g);
        w = keep_w * w - step * first / (sqrt_of(second) * root + epsilon);
        m = first;
        v = second;
    }
};

// Stochastic gradient descent with momentum, plain and Nesterov's.  Constants: momentum, and by what
// the gradient and the velocity are multiplied in the step.
template <class R> struct MomentumUpdate {
    R momentum, of_g, of_velocity;
    FORMULA explicit MomentumUpdate(const double* c)
        : momentum((R)c[0]), of_g((R)c[1]), of_velocity((R)c[2])
    {
    }
    FORMULA void operator()(R g, R& w, R& velocity, R&) const
    {
        R faster = momentum * velocity + g;
        w = w - (of_g * g + of_velocity * faster);
        velocity = faster;
    }
};

// Tieleman and Hinton (2012).  Constants: decay, 1 - decay, rate, epsilon.
template <class R> struct RmsUpdate {
    R keep, add, rate, epsilon;
    FORMULA explicit RmsUpdate(const double* c)
        : keep((R)c[0]), add((R)c[1]), rate((R)c[2]), epsilon((R)c[3])
    {
    }
    FORMULA void operator()(R g, R& w, R& square, R&) const
    {
        R now = keep * square + add * (g * g);
        w = w - rate * g / (sqrt_of(now) + epsilon);
        square = now;
    }
};

// By what weights are multiplied whose squares have this sum, to have at most the norm `most`.
FORMULA double shrink_of(double squares, double most)
{
    return squares > most * most ? most / sqrt_of(squares) : 1.0;
}

// A moving average, which takes `share` of its way to a parameter.
template <class R> struct Approach {
    R share;
    FORMULA explicit Approach(double share) : share((R)share) {}
    FORMULA void operator()(R w, R& average) const { average = average + share * (w - average); }
};
