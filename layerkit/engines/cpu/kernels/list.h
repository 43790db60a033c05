// The kernels, with their arguments; whoever includes this says what a KERNEL becomes.  An array that is
// not wanted has no elements.

KERNEL(multiply, Array a, Array b, Array c, bool add)
KERNEL(products, Array a, Array b, Array c)  // of as many matrices as there are
KERNEL(copy, Array from, Array to)
KERNEL(magnitude, Array array, Array found)  // the largest |a|; NaN where there is one
KERNEL(gradient_bound, Array x, Array d, double slope, Array bound)
KERNEL(fill, Array array, Array number)  // a = number, of float64
KERNEL(add_number, Array array, Array number)  // a = a + number
// y = a formula of a, b and c, arrays of one shape and any strides, summed where y has strides of 0;
// see elementwise.h.
KERNEL(elementwise, int kind, double setting, Array a, Array b, Array c, Array y)
KERNEL(mean, Array array, Array found)
KERNEL(copy_rows, Array from, Array to)  // matrices of any strides
KERNEL(exponential, Array x, Array y)
KERNEL(logarithm, Array x, Array y)
KERNEL(activate, int kind, double setting, Array x, Array y)  // which may be one
KERNEL(differentiate, int kind, double setting, Array known, Array dy, Array dx)
KERNEL(update, int kind, Array w, Array g, Array first, Array second, Array constants)
KERNEL(approach, Array average, Array w, double share)
KERNEL(constrain, Array w, double most)
KERNEL(dense_forward, Array x, Array w, Array b, double slope, Array y)
KERNEL(
    dense_backward, Array x, Array y, Array dy, double slope, Array before, Array w, Array b,
    Array dw, Array db, Array dx, int kind, Array w_first, Array w_second, Array b_first,
    Array b_second, Array constants)
KERNEL(
    gaussian, Array x, Array mean, Array log_variance, Array mask, double floor, Array scale,
    Array loss, Array dx, Array dmean, Array dlog_variance)
KERNEL(
    student, Array x, Array mean, Array log_variance, Array skew, Array mask, double floor,
    double degrees, double fold, double constant, Array scale, Array loss, Array dx, Array dmean,
    Array dlog_variance, Array dskew)
KERNEL(
    divergence, Array mean, Array log_variance, Array prior_mean, Array prior_log_variance,
    Array loss)
KERNEL(
    divergence_backward, Array mean, Array log_variance, Array prior_mean, Array prior_log_variance,
    Array scale, Array dmean, Array dlog_variance, Array dprior_mean, Array dprior_log_variance)
KERNEL(
    reparameterize, Array mean, Array log_variance, Array scaled, Array z, unsigned stream,
    Array clock)
KERNEL(reparameterize_backward, Array scaled, Array dz, Array dmean, Array dlog_variance)
// sizes: outer, groups, inner, count, spread, one; see normalization.h.
KERNEL(
    normalize, Array x, Array gain, Array bias, Array sizes, double epsilon, double momentum,
    Array normalized, Array inverse, Array running_mean, Array running_variance, Array y)
KERNEL(
    normalize_backward, Array normalized, Array inverse, Array gain, Array dy, Array sizes,
    bool through, Array dgain, Array dbias, Array dx)
// geometry: kernel, stride, pad and dilation, each for rows and for columns; windows down and
// across; groups.  Without a bias b is absent.
KERNEL(
    windowed_forward, Array x, Array w, Array b, double slope, Array y, Array geometry,
    bool transposed)
KERNEL(
    windowed_backward, Array x, Array y, Array dy, double slope, Array before, Array w, Array dw,
    Array db, Array dx, Array geometry, bool transposed)
// geometry: kernel, stride, pad and dilation, each for rows and for columns; windows down and
// across.  Places, int32, are absent for means.
KERNEL(pool_windows, Array x, Array y, Array places, Array geometry)
KERNEL(unpool_windows, Array dy, Array places, Array dx, Array geometry)
KERNEL(
    measure_poses, Array images, double threshold, double unit, double span, double size_spread,
    double shift_spread, Array poses)
KERNEL(
    resample, Array pictures, Array poses, long long side, double span, double size_spread,
    double shift_spread, bool inverse, Array maps, Array tops)
KERNEL(
    resample_backward, Array pictures, Array poses, long long side, double span, double size_spread,
    double shift_spread, bool inverse, Array maps, Array dtops, Array dpictures, Array dposes)
KERNEL(
    gather, Array source, Array index, Array out, long long filled, double scale, Array table,
    unsigned long long seed, unsigned stream, unsigned long long step)
// The largest numbers along the last axes of x, those that y lacks; the gradient goes to the first.
KERNEL(largest, Array x, Array y)
KERNEL(largest_backward, Array x, Array dy, Array dx)
// Arrays (outer, classes, after): softmax along the middle axis; see losses/classes.h.
KERNEL(softmax, Array x, Array y)
KERNEL(softmax_backward, Array y, Array dy, Array dx)
// Labels, or probabilities of the logits' shape; `ignored` is NaN for none, and `checked` says whether
// soft labels must be probabilities.
KERNEL(
    softmax_loss, Array logits, Array label, Array importance, Array weights, double ignored,
    double smoothing, bool checked, Array scale, Array loss, Array dlogits, Array dlabel)
KERNEL(accuracy, Array logits, Array label, double ignored, long long top, Array value)
// Sums over pairs of numbers, by kind; see losses/pairs.h.  The second may be one class for each row.
KERNEL(
    pair_loss, int kind, double setting, bool checked, Array x, Array target, Array scale, Array loss,
    Array dx, Array dtarget)
KERNEL(
    contrastive, Array a, Array b, Array similar, double margin, Array scale, Array loss, Array da,
    Array db)
KERNEL(embed, Array ids, Array table, Array y)  // rows of a table, by their numbers
KERNEL(embed_backward, Array ids, Array dy, Array dtable)
KERNEL(one_hot, Array ids, Array y)  // y (outer, count, after)
KERNEL(dropout, Array x, Array mask, Array y, double ratio, unsigned stream, Array clock)
// x and y (n, steps, size), y (n, units) where only the last is wanted; buffers in the order of the
// passage, (steps, n, size).  See recurrent.h.
KERNEL(
    recurrent_forward, bool gru, double forget, bool reverse, Array x, Array w, Array u, Array b,
    Array inputs, Array values, Array states, Array other, Array y)
KERNEL(
    recurrent_backward, bool gru, bool reverse, Array inputs, Array w, Array u, Array values,
    Array states, Array other, Array dy, Array slopes, Array through, Array dw, Array du, Array db,
    Array dx)
