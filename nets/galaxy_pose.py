"""The galaxy autoencoder with the galaxy's pose among its latents, and the noise pictures have.

    z ~ N(0, I)                                 some numbers of pose, the others of shape
    x | z ~ t(T f_mu(z), diag exp(T log f_Sigma(z)), T f_gamma(z))
    q(z | x) = N(g_mu(x), diag g_Sigma(x))

f describes a canonical galaxy, which lies along the x axis in the middle, and T, which depends on
the pose in z, turns, scales and shifts its pictures to where the galaxy is seen (Jaderberg et al.,
2015).  g measures the pose by moments of light, brings the picture to canonical pose, and says from
that what its shape is and by how much the pose is off.  Pixels of the picture as it was taken are
scored, every latent has the prior of the paper's net and pays its Kullback-Leibler divergence: the
two nets' bounds compare.

t is Student's t with a mean and a variance for each pixel, as the paper's Gaussian has, and a skew:
what nothing predicts, such as a faint star, is far brighter than its variance says, and sky is
never much darker than its mean.

f and g are as in galaxy_gdae.py, and beside each goes a linear path, which is all that principal
components are: the hidden layers only have to learn what is left.
"""

from layerkit import Layer
from layerkit import layers as L


def galaxy_pose(
    side=69,
    hidden=128,
    latent=16,
    pose_latent=2,
    noise=0,
    log_variance=-5.0,
    kl_weight=1.0,
    turns=1.0,
    size=None,
    size_spread=0.12,
    shift_spread=0.3,
    pose_log_variance=-4.0,
    mean_l2=0.3,
    variance_l2=0.06,
    degrees=10.0,
):
    """Return the net.

    Args:
        side: pixels of a side of a picture.
        hidden: units of each hidden layer.
        latent: dimensions of z.
        pose_latent: how many of them are pose: 1 for the angle, 2 for angle and size, 4 for angle,
            size, x and y.  The others are shape.
        noise: units of a hidden layer for a log-variance that does not turn with the galaxy, such
            as 32, beside one that turns and fades around it.  0, the default, has only one that
            turns, whole: the edges of its square show in f_Sigma, and the bound is 10 to 17 nats
            higher (docs/results.md).
        log_variance: of every pixel at the start of training.
        kl_weight: weight of the KL term; 1 makes the objective the bound.
        turns: how much of a full turn the angle spans; see layers.ImagePose.
        size: root mean square extent of a typical galaxy along an axis, in pixels; by default 8
            for a side of 69, and as much of any other.
        size_spread: standard deviation of the log size of galaxies.
        shift_spread: standard deviation of their place along either axis, in pixels.
        pose_log_variance: of the numbers of pose at the start of training.
        mean_l2, variance_l2: regularisation of the weights that make means, and log-variances and
            skews, of pixels, against learning the training set by heart: 1 / (number of galaxies *
            expected square of a weight) is their scale.
        degrees: of freedom of Student's t: the fewer, the longer its tails.
    """
    pixels, shape = side * side, latent - pose_latent
    size = 8 * side / 69 if size is None else size
    pose = {"side": side, "turns": turns, "size_spread": size_spread, "shift_spread": shift_spread}
    turned: list[Layer] = [
        L.SpatialTransform("x_log_variance", "canonical_log_variance", "pose", **pose)
    ]
    if noise:
        turned = [
            L.Taper("tapered", "canonical_log_variance", side=side),
            L.SpatialTransform("galaxy_log_variance", "tapered", "pose", **pose),
            L.Concat("f2_pose", "f2", "pose"),
            L.Dense("f3", "f2_pose", units=noise, neuron="relu"),
            L.Dense(
                "picture_log_variance",
                "f3",
                units=pixels,
                weight=0.0,
                bias=log_variance,
                l2=variance_l2,
            ),
            L.Add("x_log_variance", "galaxy_log_variance", "picture_log_variance"),
        ]
    return [
        L.Input("x", shape=(pixels,)),
        # g: the pose by moments, the rest from the picture in canonical pose
        L.ImagePose("measured", "x", size=size, latents=pose_latent, **pose),
        L.SpatialTransform("canonical", "x", "measured", inverse=True, **pose),
        L.Dense("g1", "canonical", units=hidden, neuron="relu"),
        L.Dense("g2", "g1", units=hidden, neuron="relu"),
        L.Concat("g2_linear", "g2", "canonical"),
        L.Dense("shape_mean", "g2_linear", units=shape),
        L.Dense("shape_log_variance", "g2", units=shape),
        # an angle far from 0 is spread out: of the log variance of u, u^2 is known beforehand
        L.Multiply("measured_squared", "measured", "measured"),
        L.Concat("g2_pose", "g2", "measured", "measured_squared"),
        L.Dense("pose_correction", "g2_pose", units=pose_latent, weight=0.0),
        L.Add("pose_mean", "measured", "pose_correction"),
        L.Dense(
            "pose_log_variance", "g2_pose", units=pose_latent, weight=0.0, bias=pose_log_variance
        ),
        L.Concat("z_mean", "pose_mean", "shape_mean"),
        L.Concat("z_log_variance", "pose_log_variance", "shape_log_variance"),
        # one sample of q(z | x), through which gradients flow
        L.Reparameterize("z", "z_mean", "z_log_variance"),
        L.Slice("z_parts", "z", tops=["pose", "shape"], sizes=[pose_latent, shape]),
        # f: the canonical picture that the shape describes, and where the pose puts it
        L.Dense("f1", "shape", units=hidden, neuron="relu"),
        L.Dense("f2", "f1", units=hidden, neuron="relu"),
        L.Dense("f_mean", "f2", units=pixels, weight=0.0, l2=mean_l2),
        L.Dense("f_linear", "shape", units=pixels, weight=0.0, l2=mean_l2),
        L.Add("canonical_mean", "f_mean", "f_linear"),
        L.Dense(
            "canonical_log_variance",
            "f2",
            units=pixels,
            weight=0.0,
            bias=0.0 if noise else log_variance,
            l2=variance_l2,
        ),
        L.Dense("canonical_skew", "f2", units=pixels, weight=0.0, l2=variance_l2),
        L.SpatialTransform("x_mean", "canonical_mean", "pose", **pose),
        *turned,
        L.SpatialTransform("x_skew", "canonical_skew", "pose", **pose),
        # the bound, with its sign turned: -E_q[log p(x | z)] + KL(q || p)
        L.StudentReconstruction(
            "reconstruction", "x", "x_mean", "x_log_variance", "x_skew", degrees=degrees
        ),
        L.GaussianKL("kl", "z_mean", "z_log_variance", weight=kl_weight),
    ]
