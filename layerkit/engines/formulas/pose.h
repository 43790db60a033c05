// Poses: what numbers u that are N(0, 1) under the prior mean for a picture; see layers/pose.py.

struct PoseScale {
    double span, size_spread, shift_spread;  // radians, of log size, pixels
};

FORMULA double clipped(double value, double least, double most)  // NaN stays NaN
{
    return value < least ? least : value > most ? most : value;
}

FORMULA double normal_density(double u) { return 0.3989422804014327 * exp(-0.5 * u * u); }

FORMULA double normal_cdf(double u) { return 0.5 * erfc(-0.7071067811865476 * u); }

// u with Phi(u) = p: Newton's method, from Tukey's lambda distribution.
FORMULA double normal_quantile(double p)
{
    p = clipped(p, 1e-4, 1 - 1e-4);
    double u = (pow(p, 0.1349) - pow(1 - p, 0.1349)) / 0.1975;
    for (int k = 0; k < 4; ++k) u += (p - normal_cdf(u)) / normal_density(u);
    return u;
}

// The rotation and scaling [[a, -b], [b, a]] that a pose, or its inverse, is, and its shift.
struct Similarity {
    double a, b, x, y;
    bool inverse;

    FORMULA Similarity(const double* u, PoseScale scale, bool inverse) : inverse(inverse)
    {
        double angle = scale.span * (normal_cdf(u[0]) - 0.5), size = exp(scale.size_spread * u[1]);
        if (!inverse) {  // places of the canonical picture for pixels of the seen one
            angle = -angle;
            size = 1 / size;
        }
        a = size * cos(angle);
        b = size * sin(angle);
        x = scale.shift_spread * u[2];
        y = scale.shift_spread * u[3];
    }

    // The map (2, 3) from pixels of the top to places in the picture.
    FORMULA void map(double* m) const
    {
        m[0] = a;
        m[1] = -b;
        m[2] = inverse ? x : b * y - a * x;
        m[3] = b;
        m[4] = a;
        m[5] = inverse ? y : -b * x - a * y;
    }

    // From the derivatives by the map to those by u.
    FORMULA void by_pose(const double* d, double u0, PoseScale scale, double* du) const
    {
        double da = d[0] + d[4], db = d[3] - d[1], dx = d[2], dy = d[5], sign = inverse ? 1 : -1;
        if (!inverse) {
            da += -x * d[2] - y * d[5];
            db += y * d[2] - x * d[5];
            dx = -a * d[2] - b * d[5];
            dy = b * d[2] - a * d[5];
        }
        du[0] = sign * (a * db - b * da) * scale.span * normal_density(u0);
        du[1] = sign * (a * da + b * db) * scale.size_spread;
        du[2] = scale.shift_spread * dx;
        du[3] = scale.shift_spread * dy;
    }
};
