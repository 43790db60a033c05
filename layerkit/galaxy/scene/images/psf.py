"""The PSF of an image: its width, and its picture from stars where none is given."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from layerkit.galaxy.scene.images.detection import detect

HALF = 12  # pixels that an estimated PSF reaches from its centre
SIGNAL = 25.0  # least signal to noise of a star that tells about the PSF
LIKE = 0.12  # relative spread of sizes among stars
ENOUGH = 3  # stars


def width_of(psf: np.ndarray) -> float:
    """Return the full width at half maximum: of a circle with the area above half the peak."""
    fine = ndimage.zoom(psf, 5, order=3)
    return float(2 * np.sqrt((fine > fine.max() / 2).sum() / np.pi) / 5)


def gaussian(width: float, half: int = HALF) -> np.ndarray:
    """Return a Gaussian PSF of full width `width`, shape (2 half + 1, 2 half + 1), of unit sum."""
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    picture = np.exp(-4 * np.log(2) * (x * x + y * y) / width**2)
    return picture / picture.sum()


def estimate_psf(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, str]:
    """Estimate the PSF of each band from the image's own stars.

    Bright, isolated sources are measured; the smallest of one size are taken for stars, moved to a
    common centre and averaged.  Without three of these, the PSF is a Gaussian as wide as the
    smallest bright source.

    Args:
        values, weights: background-subtracted image, shape (bands, height, width).

    Returns:
        The PSFs, shape (bands, 25, 25), and a line that says how they were made.
    """
    bands = len(values)
    guess = np.broadcast_to(gaussian(3.0), (bands, 2 * HALF + 1, 2 * HALF + 1))
    found = detect(values, weights, guess, 3.0, threshold=8.0)
    total = (values * np.sqrt(weights)).sum(axis=0)
    height, width = total.shape
    candidates = []
    places = np.array([[f.x, f.y, f.significance] for f in found]).reshape(-1, 3)
    for f in found:
        inside = HALF < f.x < width - HALF - 1 and HALF < f.y < height - HALF - 1
        near = np.hypot(places[:, 0] - f.x, places[:, 1] - f.y) <= HALF
        alone = (near & (places[:, 2] > 0.02 * f.significance)).sum() == 1
        if not (inside and f.significance > SIGNAL):
            continue
        row, column = round(f.y), round(f.x)
        part = (
            slice(None),
            slice(row - HALF, row + HALF + 1),
            slice(column - HALF, column + HALF + 1),
        )
        if (weights[part] <= 0).any():
            continue
        size, dx, dy = _moments(total[part[1:]])
        if np.isfinite(size):
            candidates.append((size, column + dx, row + dy, alone))
    if not candidates:
        return np.array(guess), "no PSF, and no bright source: a Gaussian 3 pixels wide is assumed"
    sizes = np.sort([c[0] for c in candidates])
    counts = [((sizes >= s) & (sizes < s * (1 + LIKE))).sum() for s in sizes]
    # The smallest size that many share: galaxies are larger, cosmic rays smaller but fewer.
    least = sizes[next(i for i, n in enumerate(counts) if n >= 0.5 * max(counts))]
    stars = [c for c in candidates if least <= c[0] < least * (1 + LIKE) and c[3]]
    if len(stars) < ENOUGH:
        wide = 2.3548 * float(sizes[0])
        return np.array([gaussian(wide)] * bands), (
            f"no PSF, and {len(stars)} isolated stars: a Gaussian {wide:.1f} pixels wide is assumed"
        )
    psfs = []
    for band in values:
        pictures = []
        for _, x, y, _ in stars:
            moved = ndimage.shift(
                band[
                    round(y) - HALF - 2 : round(y) + HALF + 3,
                    round(x) - HALF - 2 : round(x) + HALF + 3,
                ],
                (round(y) - y, round(x) - x),
                order=3,
                mode="nearest",
            )[2:-2, 2:-2]
            if moved.shape == guess.shape[1:] and moved.sum() > 0:
                pictures.append(moved / moved[HALF - 3 : HALF + 4, HALF - 3 : HALF + 4].sum())
        psf = np.median(pictures, axis=0) if pictures else gaussian(2.3548 * float(least))
        psfs.append(_tidied(psf))
    return np.array(psfs), f"PSF estimated from {len(stars)} stars"


def _moments(picture: np.ndarray) -> tuple[float, float, float]:
    """Return size and centre by moments under a Gaussian that follows them; NaN if they fail."""
    y, x = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1].astype(float)
    dx, dy, spread = 0.0, 0.0, 1.5
    for _ in range(30):
        window = picture * np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / (2 * spread**2))
        total = window.sum()
        if total <= 0:
            return np.nan, 0.0, 0.0
        dx += 2 * ((x - dx) * window).sum() / total
        dy += 2 * ((y - dy) * window).sum() / total
        second = (((x - dx) ** 2 + (y - dy) ** 2) * window).sum() / total / 2
        if not (second > 0 and abs(dx) < 3 and abs(dy) < 3):
            return np.nan, 0.0, 0.0
        # A Gaussian source under this window has the mean inverse of both variances.
        inverse = 1 / second - 1 / spread**2
        spread = np.clip(inverse**-0.5 if inverse > 0 else 4.0, 0.6, 4.0)
    return (np.nan if spread >= 4.0 else float(spread)), dx, dy


def _tidied(psf: np.ndarray) -> np.ndarray:
    """Return the PSF without a pedestal, tapered to zero at the rim, of unit sum."""
    y, x = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1]
    radius = np.hypot(x, y)
    psf = psf - np.median(psf[radius > HALF - 1])
    psf = np.where(radius > HALF / 2, np.maximum(psf, 0), psf)
    psf = psf * np.clip((HALF + 0.5 - radius) / 3, 0, 1)
    return psf / psf.sum()
