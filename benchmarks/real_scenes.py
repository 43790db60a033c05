"""Real blends, and a simulated one with its truth, measured from files that the project has not.

    python benchmarks/real_scenes.py FOLDER [--light learned] [--only NAME] [--out DIR]

FOLDER holds any of `hsc_cosmos.npz`, `hsc_cosmos_35.npz` and `blend_simulated.npz` of scarlet's
repository, each with arrays images, psfs, catalog and maybe variance and mask, and `ntt_field.fits`
of sep's.  The simulated blend's own PSFs are narrower than its stars, so the PSF is taken from the
picture of its brighter star.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from layerkit.galaxy.scene import make_field, measure, read_field, write_scene

NAMES = ("hsc_cosmos.npz", "hsc_cosmos_35.npz", "blend_simulated.npz", "ntt_field.fits")
HALF = 12  # pixels that the PSF of a star reaches


def psf_of_star(catalog, bands):
    """Return PSFs of the picture of the brighter star, moved to the middle of a pixel."""
    stars = catalog[catalog["is_star"]]
    star = max(stars, key=lambda s: s["intensity_i"].sum())
    total = sum(star[f"intensity_{b}"].astype(float) for b in bands)
    y, x = (np.sum(total * a) / total.sum() for a in np.mgrid[: total.shape[0], : total.shape[1]])
    row, column = round(y), round(x)
    out = []
    for b in bands:
        moved = ndimage.shift(star[f"intensity_{b}"].astype(float), (row - y, column - x), order=5)
        psf = moved[row - HALF : row + HALF + 1, column - HALF : column + HALF + 1]
        out.append(psf / psf.sum())
    return np.array(out)


def run(path, light, out):
    """Measure one file, print what there is to say, and return a row of the table."""
    settings = {}
    if path.suffix == ".npz":
        arrays = np.load(path)
        catalog, bands = arrays["catalog"], [str(b) for b in arrays["filters"]]
        field = read_field(path)
        if path.stem == "blend_simulated":
            psfs = psf_of_star(catalog, bands)
            field = make_field(arrays["images"], psfs, filters=bands, name=path.name)
            settings["gain"] = 1.0  # counts
    else:
        field, catalog = read_field(path), None
    start = time.process_time()
    scene = measure(field, light=light, **settings)
    seconds = time.process_time() - start
    table, used = scene.table, scene.weights > 0
    squares = np.where(used, np.nan_to_num(scene.residual) ** 2 * scene.weights, 0)
    lit = used & (scene.model**2 * scene.weights > 1)
    outside = used & ~lit
    print(f"{path.name}: {len(table)} sources, {(table['p_star'] > 0.5).sum()} more likely stars")
    for note in scene.notes:
        print(f"  {note}")
    near, right, known = [], [], [] if catalog is None else catalog
    for c in known:
        away = np.hypot(table["x"] - c["x"], table["y"] - c["y"])
        j = int(away.argmin())
        near.append(away[j] < 1)
        line = f"  catalogued ({c['x']:.1f}, {c['y']:.1f}): source {table['id'][j]}, {away[j]:.2f}"
        if "is_star" in catalog.dtype.names:
            off = table["flux_i"][j] / c["intensity_i"].sum() - 1
            right.append(abs(off) < 0.1)
            line += f" pixels away, flux in i {off:+.1%}, "
            line += f"{'star' if c['is_star'] else 'galaxy'}, p_star {table['p_star'][j]:.2f}"
        print(line)
    if out:
        write_scene(scene, Path(out) / path.stem)
    return (
        f"| {path.stem} | {len(table)} for {len(known) or '?'} | {squares[used].mean():.2f}, "
        f"{squares[lit].mean():.2f}, {squares[outside].mean():.2f} | "
        f"{f'{sum(near)} of {len(near)}' if near else ''} | "
        f"{f'{sum(right)} of {len(right)}' if right else ''} | {seconds:.0f} |"
    )


def main():
    """Measure what files there are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--light", choices=("learned", "spergel"), default="spergel")
    parser.add_argument("--only", choices=[n.split(".")[0] for n in NAMES])
    parser.add_argument("--out", help="folder for catalogues and reports")
    args = parser.parse_args()
    paths = [args.folder / name for name in NAMES]
    paths = [p for p in paths if p.is_file() and args.only in (None, p.stem)]
    rows = [run(path, args.light, args.out) for path in paths]
    print(
        "\n| image | sources | squared residual over the noise's: all, where sources exceed the "
        "noise, elsewhere | centres within a pixel | fluxes within 10% | CPU s |\n"
        "|---|---|---|---|---|---|"
    )
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
