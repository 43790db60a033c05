// Poses: what numbers u that are N(0, 1) under the prior mean for a picture; see layers/pictures/pose.py.

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

// ImagePose: the moments of light under a window that moves to it; see layers/pictures/image_pose.py.
struct LightMoments {
    static constexpr int iterations = 5;
    static constexpr double window = 2, rounding = 1e-5, none = 1e-12, faint = 1e-3, widest = 3;

    double side, unit;  // pixels: of the picture, and the size of an object
    double x = 0, y = 0, size, mass = 0, total = 0, xx = 0, yy = 0, xy = 0;

    FORMULA LightMoments(double side, double unit) : side(side), unit(unit), size(unit) {}

    // Moves on, given m[k][l] = sum of window * (Y - y)^k * (X - x)^l * light.
    FORMULA void move(const double (*m)[4])
    {
        total = m[0][0] + faint;
        mass = m[0][0] < none ? none : m[0][0];
        double cx = m[0][1] / mass, cy = m[1][0] / mass, bound = side / 4;
        xx = (m[0][2] - cx * m[0][1] + faint * unit * unit) / total;
        yy = (m[2][0] - cy * m[1][0] + faint * unit * unit) / total;
        xy = (m[1][1] - cx * m[1][0]) / total;
        x = clipped(x + m[0][1] / total, -bound, bound);
        y = clipped(y + m[1][0] / total, -bound, bound);
        double half = 0.5 * (xx + yy);
        size = clipped(sqrt(half < 0 ? 0 : half), 0.5, side / 3);
    }

    // The third moment along an axis, about the centre of light.
    FORMULA double third(const double (*m)[4], double angle) const
    {
        double c = cos(angle), s = sin(angle), first = (c * m[0][1] + s * m[1][0]) / mass;
        double second = c * c * m[0][2] + 2 * c * s * m[1][1] + s * s * m[2][0];
        double sum = c * c * c * m[0][3] + 3 * c * c * s * m[1][2] + 3 * c * s * s * m[2][1]
            + s * s * s * m[3][0];
        return sum / mass - 3 * first * second / mass + 2 * first * first * first;
    }

    // The four numbers u of the pose, from the last moments.
    FORMULA void pose(const double (*m)[4], PoseScale scale, double* u) const
    {
        constexpr double pi = 3.141592653589793;
        // Rounding shall not decide which axis or which tail is the longer.
        double spread = (m[0][2] + m[2][0]) / total;
        bool round = hypot(2 * xy, xx - yy) <= rounding * spread;
        double angle = round ? 0 : 0.5 * atan2(2 * xy, xx - yy);
        if (scale.span > 3.1416) {
            if (third(m, angle) < -rounding * pow(spread * total / mass, 1.5)) angle += pi;
            if (angle > pi) angle -= 2 * pi;
        }
        u[0] = normal_quantile(angle / scale.span + 0.5);
        u[1] = log(size / unit) / scale.size_spread;
        u[2] = x / scale.shift_spread;
        u[3] = y / scale.shift_spread;
        for (int k = 0; k < 4; ++k) u[k] = clipped(u[k], -widest, widest);
    }
};

// SpatialTransform: where a pixel of the top, at x from the middle, looks in a picture of side x side
// pixels.  `x_row` and `y_row` are where the middle of its row looks.
template <class R> struct PlaceInPicture {
    int at;                // number of the place's upper left neighbour
    R right, down;         // how far right of and below it the place is
    R inside_x, inside_y;  // 0 where the place is outside the picture, whose border goes on

    FORMULA PlaceInPicture(const R* m, R x, R x_row, R y_row, int side)
    {
        R zero = 0, one = 1, last = R(side - 1), free_x = m[0] * x + x_row, free_y = m[3] * x + y_row;
        R at_x = free_x > zero ? free_x : zero, at_y = free_y > zero ? free_y : zero;
        at_x = at_x < last ? at_x : last;
        at_y = at_y < last ? at_y : last;
        int column = int(at_x), row = int(at_y);
        column = column < side - 2 ? column : side - 2;
        row = row < side - 2 ? row : side - 2;
        right = at_x - R(column) + (free_x == free_x ? zero : free_x);  // NaN stays NaN
        down = at_y - R(row) + (free_y == free_y ? zero : free_y);
        at = row * side + column;
        inside_x = at_x == free_x ? one : zero;
        inside_y = at_y == free_y ? one : zero;
    }
};
