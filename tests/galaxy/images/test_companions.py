"""Weights, masks and models beside a picture are told by their names."""

from picture_files import encoded, pixels_of, reason

from layerkit.galaxy.images.sources.sources import open_source


def test_files_that_belong_to_another_by_their_names_are_no_pictures(rng, tmp_path):
    """As SExtractor, SWarp, drizzle and GALFIT's users name weights, masks, errors and models."""
    light = [
        "a.fits",
        "b_sci.fits",
        "coadd.fits",
        "d.jpg",
        "mask.png",
        "e_mask.png",
        "deep/a.fits",
        "a_r.fits",
        "a_exp1.fits",
    ]
    others = [
        "a_mask.png",
        "a_sigma.fits",
        "b_wht.fits",
        "coadd.weight.fits.fz",
        "d-model.png",
        "deep/a_psf.fits",
        "a_r_INVVAR.fits",
    ]
    (tmp_path / "deep").mkdir()
    for name in (*light, *others):
        (tmp_path / name).write_bytes(encoded(pixels_of(rng, 9, 9)))
    source = open_source(tmp_path)
    assert set(source.files) == {*light, *others}
    for i, name in enumerate(source.files):
        if name in light:
            assert source.read(i).shape == (9, 9)
        else:
            assert reason(source, i).startswith("named as weights, a mask, a model or the like")
    assert open_source(tmp_path / "a_mask.png").read(0).shape == (9, 9)  # asked for by name
