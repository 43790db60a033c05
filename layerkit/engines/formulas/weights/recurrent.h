// One unit of a recurrent layer in one step, from what goes into its gates, and back.

template <class R> struct LstmUnit {
    R i, f, g, o;

    // The gates' values take the place of what goes into them; returns h, with c the memory before
    // and after.
    FORMULA R advance(R& c)
    {
        Sigmoid<R> sigmoid(0);
        i = sigmoid.value(i);
        f = sigmoid.value(f);
        g = tanh_of(g);
        o = sigmoid.value(o);
        c = f * c + i * g;
        return o * tanh_of(c);
    }
    // The slopes take the place of the values; dc is that of the memory after and before.
    FORMULA void retreat(R before, R c, R dh, R& dc)
    {
        R t = tanh_of(c), slope = dc + dh * o * (1 - t * t), memory = slope * f;
        R di = slope * g * (i * (1 - i)), df = slope * before * (f * (1 - f));
        g = slope * i * (1 - g * g);
        o = dh * t * (o * (1 - o));
        i = di;
        f = df;
        dc = memory;
    }
};

template <class R> struct GruUnit {
    R r, z, m;

    // The values take the place of what goes in, without h U_n, which is `recalled`; returns h.
    FORMULA R advance(R recalled, R before)
    {
        Sigmoid<R> sigmoid(0);
        r = sigmoid.value(r);
        z = sigmoid.value(z);
        m = tanh_of(m + r * recalled);
        return (1 - z) * m + z * before;
    }
    // The slopes take the place of the values; `through` is that of h U_n, and dh becomes what goes
    // to the step before through no gate.
    FORMULA void retreat(R recalled, R before, R& dh, R& through)
    {
        R dm = dh * (1 - z) * (1 - m * m), dz = dh * (before - m) * (z * (1 - z));
        dh = dh * z;
        through = dm * r;
        r = dm * recalled * (r * (1 - r));
        z = dz;
        m = dm;
    }
};
