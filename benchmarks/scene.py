"""Measured fields against the truth of GalSim, beside sep and a joint least-squares fit of Sersic.

    python benchmarks/scene.py [--fields 4] [--seed 0] [--no-sersic] [--light learned]

Needs `pip install galsim sep`.  Each kind of field (sparse and blended, shallow and deep) is drawn
`--fields` times; galaxies are a bulge of Sersic index 2 to 4, a disk and knots of star formation,
none of which the model has.
"""

from __future__ import annotations

import argparse
import runpy
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import galsim
import numpy as np
import sep
from scipy.linalg import solve
from scipy.optimize import brentq
from scipy.special import gammainc, gammaincinv

from layerkit.galaxy.scene import make_field, measure
from layerkit.galaxy.scene.images.background import background
from layerkit.galaxy.scene.images.detection import detect

SCALE = 0.2  # arcsec per pixel
SEEING = 0.75  # arcsec, full width of the PSF
SIGMA = 1.0  # noise of a pixel
WIDTH = SEEING / SCALE
ISOLATED = 6 * WIDTH  # pixels
BLENDED = 2.5 * WIDTH
KINDS = {  # sources, clumped, faintest and brightest signal to noise of a point of that flux
    "sparse, shallow": (18, False, 10, 200),
    "sparse, deep": (18, False, 10, 1500),
    "blended, shallow": (36, True, 10, 200),
    "blended, deep": (36, True, 10, 1500),
}


@dataclass
class Truth:
    """A simulated source."""

    x: float
    y: float
    flux: float
    star: bool
    radius: float  # half-light, pixels, of the circle of equal area
    ellipticity: float  # 1 - b/a
    signal: float = 0.0  # to noise, of its pixels if nothing else were there
    nearest: float = np.inf


def psf_model():
    """Return the PSF as GalSim draws it: atmosphere without the pixel."""
    return galsim.Moffat(beta=3.5, fwhm=SEEING)


def half_light(parts):
    """Return the half-light radius of Sersic profiles together, each (flux, index, radius)."""

    def inside(r):
        light = 0.0
        for flux, n, radius in parts:
            light += flux * gammainc(2 * n, gammaincinv(2 * n, 0.5) * (r / radius) ** (1 / n))
        return light - 0.5

    return brentq(inside, 1e-3, 10.0)


def other_galaxy(rng):
    """Return a galaxy that nothing was trained on, its half-light radius in pixels and b/a."""
    disk = 10 ** rng.normal(-0.35, 0.2)  # arcsec
    bulge = rng.beta(1, 3)
    light = (1 - bulge) * galsim.Exponential(half_light_radius=disk)
    index = float(rng.choice([2.0, 3.0, 4.0]))
    core = disk * rng.uniform(0.3, 0.8)
    light += bulge * galsim.Sersic(index, half_light_radius=core)
    radius = half_light([(1 - bulge, 1.0, disk), (bulge, index, core)]) / SCALE
    if rng.random() < 0.5:
        knots = galsim.RandomKnots(
            12, half_light_radius=disk, rng=galsim.BaseDeviate(int(rng.integers(1, 2**31)))
        )
        light = 0.92 * light + 0.08 * knots
    ratio = rng.uniform(0.25, 1)
    return light.shear(q=ratio, beta=rng.uniform(0, np.pi) * galsim.radians), radius, ratio


def training_galaxy(rng):
    """Return a galaxy as examples/simulate_galaxies.py draws it, of no one size or axis ratio."""
    return TRAINING["draw_galaxy"](TRAINING["draw_numbers"](rng), rng), np.nan, np.nan


TRAINING = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "simulate_galaxies.py"))
GALAXIES = {"other": other_galaxy, "training": training_galaxy}


def simulate(kind, rng, galaxy=other_galaxy, side=160):
    """Draw a field; return its pixels, the PSF (with the pixel) and the truth."""
    count, clumped, low, high = KINDS[kind]
    psf = psf_model()
    psf_image = psf.drawImage(nx=41, ny=41, scale=SCALE).array
    point = np.sqrt((psf_image**2).sum()) / SIGMA
    image, truths, centre = np.zeros((side, side)), [], None
    while len(truths) < count:
        if clumped and centre is not None and rng.random() < 0.67:
            x, y = centre + rng.normal(0, 1.6 * WIDTH, 2)
        else:
            x, y = rng.uniform(14, side - 14, 2)
            centre = np.array([x, y])
        away = min((np.hypot(x - t.x, y - t.y) for t in truths), default=np.inf)
        if not (12 < x < side - 12 and 12 < y < side - 12) or away < 1.1 * WIDTH:
            continue
        star = rng.random() < 0.3
        flux = low / point * (high / low) ** (rng.random() ** 1.5) * (1 if star else 1.6)
        radius, ratio, light = 0.0, 1.0, galsim.DeltaFunction(flux=flux)
        if not star:
            light, radius, ratio = galaxy(rng)
            light = light.withFlux(flux)
        middle = light.centroid / SCALE  # knots move it; the truth is the centre of the light
        drawn = galsim.Convolve(light, psf).drawImage(
            nx=side, ny=side, scale=SCALE, offset=(x - (side - 1) / 2, y - (side - 1) / 2)
        )
        own = drawn.array.astype(float)
        signal = np.sqrt((own**2).sum()) / SIGMA
        image += own
        truths.append(Truth(x + middle.x, y + middle.y, flux, star, radius, 1 - ratio, signal))
    for t in truths:
        t.nearest = min(np.hypot(t.x - o.x, t.y - o.y) for o in truths if o is not t)
    return image + rng.normal(0, SIGMA, image.shape), psf_image, truths


def match(truths, x, y):
    """Return for each truth the index of its source, or -1: nearest pairs first."""
    out = np.full(len(truths), -1)
    away = np.array([np.hypot(x - t.x, y - t.y) for t in truths]).reshape(len(truths), len(x))
    while away.size and away.min() < WIDTH:
        i, j = np.unravel_index(away.argmin(), away.shape)
        out[i] = j
        away[i] = np.inf
        away[:, j] = np.inf
    return out


def by_layerkit(image, psf, light):
    """Return the catalogue of layerkit."""
    variance = np.full(image.shape, SIGMA**2)
    return measure(make_field(image, psf, variance), light=light).table


def by_sep(image):
    """Return x, y, flux and its error by SExtractor's detection, deblending and AUTO photometry."""
    image = np.ascontiguousarray(image)
    sky = sep.Background(image)
    data = image - sky
    found, segments = sep.extract(data, 1.5, err=SIGMA, minarea=5, segmentation_map=True)
    mine = {"segmap": segments, "seg_id": np.arange(1, len(found) + 1)}  # neighbours are masked
    a, b = np.maximum(found["a"], 0.5), np.maximum(found["b"], 0.5)
    theta = np.clip(found["theta"], -np.pi / 2, np.pi / 2)
    radius, _ = sep.kron_radius(data, found["x"], found["y"], a, b, theta, 6.0, **mine)
    radius = np.maximum(np.nan_to_num(radius), 1.75)
    flux, error, _ = sep.sum_ellipse(
        data, found["x"], found["y"], a, b, theta, 2.5 * radius, err=SIGMA, subpix=5, **mine
    )
    return found["x"], found["y"], flux, error


def by_sersic(image, psf, side=48):
    """Return x, y and flux by a joint least-squares fit of Sersic profiles to our detections.

    A profile may be as small as a point.  Numbers are x, y, log flux, log radius, two components
    of shear and the index, which GalSim sets up once for each of its steps of 0.1.
    """
    level, _ = background(image, np.ones(image.shape, bool))
    data = image - level
    found = detect(data[None], np.full((1, *image.shape), SIGMA**-2), psf[None], WIDTH)
    theta = np.array(
        [
            [f.x, f.y, np.log(max(1.5 * f.fluxes[0], 1.0)), np.log(0.5 * WIDTH), 0, 0, 1.5]
            for f in found
        ]
    )
    corner = [(round(f.y) - side // 2, round(f.x) - side // 2) for f in found]
    optics = psf_model()
    steps = np.array([0.02, 0.02, 0.01, 0.03, 0.02, 0.02, 0.1])
    least = np.array([-np.inf, -np.inf, -5, np.log(0.1), -1.8, -1.8, 0.5])
    most = np.array([np.inf, np.inf, 20, np.log(20), 1.8, 1.8, 5.0])

    def stamp(t, at):
        e = np.hypot(t[4], t[5])
        light = galsim.Sersic(round(t[6], 1), half_light_radius=np.exp(t[3]) * SCALE)
        light = light.shear(eta1=t[4], eta2=t[5]) if e > 1e-6 else light
        centre = (t[0] - at[1] - (side - 1) / 2, t[1] - at[0] - (side - 1) / 2)
        drawn = galsim.Convolve(light.withFlux(np.exp(t[2])), optics).drawImage(
            nx=side, ny=side, scale=SCALE, offset=centre
        )
        return drawn.array.astype(float)

    def windows(at):
        rows = slice(max(at[0], 0), min(at[0] + side, len(image)))
        columns = slice(max(at[1], 0), min(at[1] + side, len(image[0])))
        inner = (
            slice(rows.start - at[0], rows.stop - at[0]),
            slice(columns.start - at[1], columns.stop - at[1]),
        )
        return (rows, columns), inner

    def total(stamps):
        out = np.zeros(image.shape)
        for own, at in zip(stamps, corner, strict=True):
            outer, inner = windows(at)
            out[outer] += own[inner]
        return out

    stamps = [stamp(t, at) for t, at in zip(theta, corner, strict=True)]
    model = total(stamps)
    loss, damping = ((data - model) ** 2).sum(), 1e-2
    for _ in range(25):
        jacobian = np.zeros((theta.size, image.size), np.float32)
        for i, (t, at) in enumerate(zip(theta, corner, strict=True)):
            outer, inner = windows(at)
            for k in range(7):
                up = t.copy()
                step = steps[k] if t[k] + steps[k] <= most[k] else -steps[k]
                up[k] += step
                own = np.zeros(image.shape, np.float32)
                slope = stamps[i] if k == 2 else (stamp(up, at) - stamps[i]) / step
                own[outer] = slope[inner]
                jacobian[7 * i + k] = own.ravel()
        curvature = (jacobian @ jacobian.T).astype(float)
        gradient = (jacobian @ (data - model).ravel()).astype(float)
        for _ in range(6):
            damped = curvature + np.diag(damping * np.diag(curvature) + 1e-3)
            change = solve(damped, gradient, assume_a="pos").reshape(theta.shape)
            trial = np.clip(theta + np.clip(change, -0.7, 0.7), least, most)
            trial_stamps = [stamp(t, at) for t, at in zip(trial, corner, strict=True)]
            trial_model = total(trial_stamps)
            trial_loss = ((data - trial_model) ** 2).sum()
            if trial_loss < loss:
                break
            damping *= 6
        else:
            break
        better = loss - trial_loss
        theta, stamps, model, loss = trial, trial_stamps, trial_model, trial_loss
        damping = max(damping / 4, 1e-6)
        if better < 0.1:
            break
    return theta[:, 0], theta[:, 1], np.exp(theta[:, 2])


def area_under_curve(scores, stars):
    """Return how often a star scores above a galaxy."""
    a, b = scores[stars], scores[~stars]
    if not len(a) or not len(b):
        return np.nan
    return float(((a[:, None] > b) + 0.5 * (a[:, None] == b)).mean())


def print_pulls(pulls, title):
    """Print how often intervals hold the truth, for numbers of each name in (name, pull, ...)."""
    print(f"{title}: truths in 68% and 95% intervals, their number, robust deviation and middle")
    for name in dict.fromkeys(p[0] for p in pulls):
        values = np.array([p[1] for p in pulls if p[0] == name])
        size = np.abs(values)
        print(
            f"  {name:18s} {100 * (size < 1).mean():3.0f} {100 * (size < 1.96).mean():3.0f} "
            f"{len(size):5d}   {1.4826 * np.median(size):.2f} {np.median(values):+.2f}"
        )


def main():
    """Draw, measure, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fields", type=int, default=4, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-sersic", action="store_true", help="leave out the slow peer")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--galaxies", choices=list(GALAXIES), default="other")
    parser.add_argument("--light", choices=("learned", "spergel"), default="spergel")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    pulls = []  # of each number: its name, (found - truth) / error, clumped, neighbours all found
    scores, positions = [], []
    print(
        "kind                found us/sep    pure us/sep     flux error us/sep/Sersic   bias  CPU s"
    )
    for kind in args.kinds:
        found, pure, errors, bias, seconds = ([], []), ([], []), [], [], 0.0
        for number in range(args.fields):
            rng = np.random.default_rng([args.seed, number, list(KINDS).index(kind)])
            image, psf, truths = simulate(kind, rng, GALAXIES[args.galaxies])
            start = time.process_time()
            table = by_layerkit(image, psf, args.light)
            seconds += time.process_time() - start
            x, y = np.array(table["x"]), np.array(table["y"])
            flux, error = np.array(table["flux"]), np.array(table["flux_err"])
            sx, sy, sflux, serror = by_sep(image)
            ours, theirs = match(truths, x, y), match(truths, sx, sy)
            if not args.no_sersic:
                lx, ly, lflux = by_sersic(image, psf)
                joint = match(truths, lx, ly)
            for side, (matched, f, e) in enumerate(((ours, flux, error), (theirs, sflux, serror))):
                found[side].extend(
                    j >= 0 for t, j in zip(truths, matched, strict=True) if t.signal > 10
                )
                strong = f > 10 * e
                hit = np.isin(np.arange(len(f)), matched)
                pure[side].extend(hit[strong])
            for n, t in enumerate(truths):
                j = ours[n]
                if j < 0 or t.signal < 10:
                    continue
                bias.append(flux[j] / t.flux - 1)
                row = table[int(j)]
                off = {
                    "flux": np.log(flux[j] / t.flux) / (error[j] / flux[j]),
                    "x": (x[j] - t.x) / row["x_err"],
                    "y": (y[j] - t.y) / row["y_err"],
                }
                if np.isfinite(t.radius) and not t.star:
                    r, e = row["half_light_radius"], row["half_light_radius_err"]
                    off["half-light radius"] = np.log(r / t.radius) / (e / r)
                    off["ellipticity"] = row["ellipticity"] - t.ellipticity
                    off["ellipticity"] /= row["ellipticity_err"]
                near = [np.hypot(o.x - t.x, o.y - t.y) < BLENDED for o in truths]
                told = (ours[near] >= 0).all()
                pulls += [(name, v, KINDS[kind][1], told) for name, v in off.items()]
                if t.signal > 20:
                    scores.append((float(row["p_star"]), t.star))
                if t.star and t.nearest > ISOLATED:
                    k = 2j * np.pi * np.fft.fftfreq(len(psf))
                    slope = np.fft.ifft(k * np.fft.fft(psf, axis=1), axis=1).real
                    bound = SIGMA / (t.flux * np.sqrt((slope**2).sum()))
                    positions.append((x[j] - t.x) / bound)
                    positions.append((y[j] - t.y) / bound)
                blended = t.nearest < BLENDED or not KINDS[kind][1]
                if blended and theirs[n] >= 0 and (args.no_sersic or joint[n] >= 0):
                    row = [flux[j], sflux[theirs[n]], np.nan if args.no_sersic else lflux[joint[n]]]
                    errors.append(np.abs(np.array(row) / t.flux - 1))
        middle = np.median(errors, axis=0) * 100
        print(
            f"{kind:18s}  {np.mean(found[0]):.3f} / {np.mean(found[1]):.3f}   "
            f"{np.mean(pure[0]):.3f} / {np.mean(pure[1]):.3f}   "
            f"{middle[0]:5.2f} / {middle[1]:5.2f} / {middle[2]:5.2f} %"
            f"        {100 * np.median(bias):+.2f} % {seconds / args.fields:5.1f}",
            flush=True,
        )
    print_pulls(pulls, "All")
    print_pulls([p for p in pulls if not p[2]], "Sparse fields")
    print_pulls([p for p in pulls if p[2]], "Blended fields")
    print_pulls([p for p in pulls if p[2] and p[3]], "Of these, with all neighbours found")
    scores = np.array(scores, float)
    area = area_under_curve(scores[:, 0], scores[:, 1] > 0)
    print(f"stars against galaxies above 20 sigma: area under the curve {area:.3f}")
    if positions:
        rms = np.sqrt(np.mean(np.square(positions)))
        print(f"isolated stars: error {rms:.2f} of the Cramer-Rao bound, {len(positions)} numbers")


if __name__ == "__main__":
    main()
