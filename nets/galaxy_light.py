"""The light of a galaxy before the PSF, from stamps in linear units, each with its own noise.

    z ~ N(0, I)                                four numbers of pose, the others of shape
    s = T softmax(f(z)) / sum                  light of unit flux, nowhere negative
    x | z, F ~ N(F (psf * s), diag variance)   a stamp, with its PSF, variance and mask
    q(z | x) = N(g_mu(x), diag g_Sigma(x))

f describes a canonical galaxy, and T, which depends on the pose in z, turns, scales and shifts it.
The shape holds the rest, axis ratios among it.  The prior of the flux F is flat, so its posterior
given z is Gaussian, and integrated out exactly.  With A = sum of (psf * s)^2 / variance, the blob
`precision`, its mean, the blob `flux`, is sum of (psf * s) x / variance / A and its variance 1 / A.
Stamps may be in any unit.

g measures the pose by moments, brings the stamp to canonical pose, and says from that and the PSF
what the shape is and by how much the pose is off.  It sees the stamp in units of its peak.

The objective is the bound on -log p(x), up to log(2 pi): the prior of F has density 1 per unit.
"""

import numpy as np

from layerkit import layers as L
from layerkit.initializers import Draw, Initializer


class RoundDisk(Initializer):
    """Logits of a round exponential disk in the middle of a stamp.

    Light must start compact.  From an even stamp, what lies far out fades so slowly, as no single
    stamp shows it, that after 2,500 steps fluxes were 28% too large, and 3% from a disk.
    """

    def __init__(self, side: int, scale: float):
        self.side, self.scale = side, scale

    def draw(self, shape: tuple[int, ...], normal: Draw) -> np.ndarray:
        """Return -r / scale, with r the distance from the middle, rounded off in its last pixel."""
        line = np.arange(self.side) - (self.side - 1) / 2
        return -np.sqrt(line[:, None] ** 2 + line**2 + 1).reshape(shape) / self.scale


def galaxy_light(
    side=45,
    psf=31,
    hidden=192,
    latent=12,
    size=3.0,
    scale=2.0,
    size_spread=0.4,
    shift_spread=0.7,
    pose_log_variance=-4.0,
    kl_weight=1.0,
):
    """Return the net.

    Its inputs are `image` and `variance` (n, side, side), `mask` of that shape, which is 1 for
    pixels that count and 0 for others, and `psf` (n, psf, psf).  They must be numbers under the
    mask, too, the variance a positive one, and each stamp needs a pixel above 0 that counts.

    Args:
        side: pixels of a side of a stamp.
        psf: pixels of a side of a PSF, odd.
        hidden: units of each hidden layer.
        latent: dimensions of z, of which the first four are the pose: angle, size, x and y.
        size: root mean square extent of a typical galaxy along an axis, as seen, in pixels.
        scale: length of the exponential disk that all light starts as, in pixels.
        size_spread: standard deviation of the log size of galaxies.
        shift_spread: standard deviation of their place along either axis, in pixels.
        pose_log_variance: of the numbers of pose at the start of training.
        kl_weight: weight of the KL term; 1 makes the objective the bound.
    """
    pixels, pose_latent = side * side, 4
    shape = latent - pose_latent
    pose = {"side": side, "turns": 0.5, "size_spread": size_spread, "shift_spread": shift_spread}
    return [
        L.Input("image", shape=(side, side)),
        L.Input("psf", shape=(psf, psf)),
        L.Input("variance", shape=(side, side)),
        L.Input("mask", shape=(side, side)),
        # g: the stamp and the PSF in units of their peaks, without the pixels to leave out
        L.Multiply("used", "image", "mask"),
        L.Reduce("peak", "used", mode="max", keep=True),
        L.Divide("x", "used", "peak"),
        L.Reduce("psf_peak", "psf", mode="max", keep=True),
        L.Divide("psf_profile", "psf", "psf_peak"),
        L.ImagePose("measured", "x", size=size, latents=pose_latent, **pose),
        L.SpatialTransform("canonical", "x", "measured", inverse=True, **pose),
        L.Reshape("canonical_row", "canonical", shape=(pixels,)),
        L.Reshape("psf_row", "psf_profile", shape=(psf * psf,)),
        L.Concat("g0", "canonical_row", "psf_row", "measured"),
        L.Dense("g1", "g0", units=hidden, neuron="relu"),
        L.Dense("g2", "g1", units=hidden, neuron="relu"),
        L.Dense("shape_mean", "g2", units=shape),
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
        # f: light of unit flux in canonical pose, then as it lies on the sky
        L.Dense("f1", "shape", units=hidden, neuron="relu"),
        L.Dense("f2", "f1", units=hidden, neuron="relu"),
        L.Dense("f_deep", "f2", units=pixels, weight=0.0, bias=RoundDisk(side, scale)),
        L.Dense("f_linear", "shape", units=pixels, weight="xavier"),
        L.Add("f_logits", "f_deep", "f_linear"),
        L.Softmax("canonical_light", "f_logits"),
        L.SpatialTransform("posed_light", "canonical_light", "pose", **pose),
        L.Normalise("light_row", "posed_light"),
        L.Reshape("light", "light_row", shape=(side, side)),
        # as it is seen, and its flux, from all pixels that count
        L.ConvolvePSF("seen", "light", "psf"),
        L.Divide("weight", "mask", "variance"),
        L.Multiply("seen_weighted", "seen", "weight"),
        L.Multiply("seen_squares", "seen_weighted", "seen"),
        L.Multiply("seen_products", "seen_weighted", "image"),
        L.Reduce("precision", "seen_squares", keep=True),
        L.Reduce("product", "seen_products", keep=True),
        L.Divide("flux", "product", "precision"),
        L.Multiply("mean", "seen", "flux"),
        # the bound, with its sign turned.  With F at its mean for both, the second is
        # log(2 pi A) / 2: what integrating F out adds to the first, up to log(2 pi).
        L.KnownVarianceReconstruction("reconstruction", "image", "mean", "variance", "mask"),
        L.KnownVarianceReconstruction("flux_range", "flux", "flux", "precision"),
        L.GaussianKL("kl", "z_mean", "z_log_variance", weight=kl_weight),
    ]
