"""Weights, masks and models beside a picture are told by their names."""

import pytest
from picture_files import encoded, pixels_of, reason

from layerkit.galaxy.images.sources.companions import companions
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


# A folder's files: pictures, and those that belong to one of them.
FOLDERS = {
    "folder": (["images/0.jpg", "images/1.jpg"], ["masks/0.jpg", "masks/1.png"]),
    "no folder of science": (["jpg/0.jpg"], ["train_masks/0.png"]),
    "science": (["sci/0.fits"], ["weight/0.fits", "models/0.fits", "sky/0.fits", "errs/0.fits"]),
    "above": (["0.jpg"], ["seg/0.png", "seg/0_seg.png"]),
    "deeper": (["images/train/0.jpg"], ["masks/train/0.jpg", "masks/train/0_mask.png"]),
    "prefix": (["ngc0.fits"], ["sigma_ngc0.fits", "seg_ngc0.fits", "weight_map_ngc0.fits"]),
    "inside": (["hst_0_drz_sci.fits"], ["hst_0_drz_err_v1.0.fits", "hst_0_wht_drz.fits"]),
    "between": (["a_sci_r.fits", "b_r_v2.fits"], ["a_err_r.fits", "b_rms_r_v1.fits"]),
    "CANDELS": (["hlsp_a_f160w_v1.0_drz.fits"],
                ["hlsp_a_f160w_v1.0_wht.fits", "hlsp_a_f160w_v1.0_rms.fits"]),
    "KiDS": (["KiDS_DR4.0_180.0_0.5_r_sci.fits"],
             ["KiDS_DR4.0_180.0_0.5_r_wei.fits", "KiDS_DR4.0_180.0_0.5_r_msk.fits"]),
    "ZTF": (["ztf_20200401152477_000683_zg_c06_o_q2_sciimg.fits"],
            ["ztf_20200401152477_000683_zg_c06_o_q2_mskimg.fits",
             "ztf_20200401152477_000683_zg_c06_o_q2_diffimgpsf.fits"]),
    "S-PLUS": (["a_R_swp.fits", "damask.fits"], ["a_R_swpweight.fits"]),
    "WISE": (["0000p000_ac51-w1-int-3.fits"],
             ["0000p000_ac51-w1-unc-3.fits.gz", "0000p000_ac51-w1-cov-3.fits.gz"]),
    "GALEX": (["NGC628-fd-int.fits.gz"],
              [f"NGC628-fd-{x}.fits.gz" for x in ("skybg", "rrhr", "flags", "exp")]),
    "Spitzer": (["SPITZER_I1_1_E1_maic.fits"],
                ["SPITZER_I1_1_E1_munc.fits", "SPITZER_I1_1_E1_mcov.fits"]),
    "JWST": (["jw01345-o001_t021_nircam_clear-f115w_i2d.fits"],
             ["jw01345-o001_t021_nircam_clear-f115w_segm.fits"]),
    "HSC": (["10-cutout-HSC-G-9813-pdr2_wide.fits"], ["10-psf-HSC-G-9813-pdr2_wide.fits"]),
    "Legacy": (["brick-image-r.fits.fz"], ["brick-chi2-r.fits.fz", "brick-nexp-r.fits.fz"]),
    "labels": (["images/0.png"], ["labels/0.png", "annotations/0.png"]),
    "numbers": (["image1.fits", "img2.png"],
                ["mask1.fits", "weight1.fits", "psf1.fits", "mask2.png"]),
    "several": (["galaxy1.png"], ["galaxy1_mask1.png", "galaxy1_seg2.png"]),
    "two words": (["a.fits"], ["a_fluxerr.fits", "a_badmask.fits"]),
    "image": (["image_0.png", "img-1.png"], ["mask_0.png", "mask-1.png"]),
    "joined": (["gal1.fits", "ngc7.png", "8.jpg"],
               ["gal1Mask.fits", "gal1Weight.fits", "ngc7RMS.png", "8mask.png"]),
    "Euclid": (["EUC_MER_BGSUB-MOSAIC-VIS_TILE102018211-ACBD03_20241018T142710.276838Z_00.00.fits"],
               [f"EUC_MER_{x}_TILE102018211-8FD7AE_20241018T143000.100000Z_00.00.fits" for x in
                ("MOSAIC-VIS-RMS", "MOSAIC-VIS-FLAG", "BGMOD-VIS", "GRID-PSF-VIS",
                 "FINAL-SEGMAP")]),
    "unWISE": (["unwise-1234p015-w1-img-m.fits"],
               [f"unwise-1234p015-w1-{x}" for x in
                ("invvar-m.fits.gz", "n-m.fits.gz", "std-m.fits.gz", "n-u.fits.gz")]),
    "Legacy bricks": (["legacysurvey-0001m002-image-r.fits.fz"],
                      [f"legacysurvey-0001m002-{x}.fits.fz" for x in
                       ("invvar-r", "maskbits", "nexp-r", "blobmodel-r", "psfsize-r")]),
    "Pan-STARRS": (["rings.v3.skycell.1234.056.stk.g.unconv.fits"],
                   [f"rings.v3.skycell.1234.056.stk.g.unconv.{x}.fits" for x in
                    ("wt", "mask", "num", "exp", "expwt")]),
    "GALEX counts": (["AIS_1-nd-int.fits.gz"],
                     [f"AIS_1-nd-{x}.fits.gz" for x in ("cnt", "rrhr", "wt", "rr", "objmask")]),
}  # fmt: skip
# No file of these says of what it could be a mask or the like.
ALONE = [
    ["masks/0.jpg", "images/1.jpg"],
    ["masks/0.jpg", "weights/0.jpg"],  # whatever these are
    ["sky/0.jpg", "lab/0.jpg"],
    ["sky/0.jpg", "0.jpg"],
    ["hits/0.png", "misses/0.png", "high_quality/0.png", "models/0.png"],
    ["sigma_ngc0.fits", "ngc1.fits"],
    ["hst_0_err_a.fits", "hst_0_sci_b.fits"],
    ["mask_0.png", "seg_0.png"],
    ["mask.png", "image.png", "images/mask.png", "masked_a.png"],
    ["a_exp1_r.fits", "a_r.fits", "exp1/a.fits", "images/a.fits"],
    ["sky1.fits", "1.fits", "models.fits"],
    ["exp1.fits", "image1.fits", "mask2.fits"],
    ["gal_1.png", "cal_1.png", "cutout_1.png"],
    ["gal1.fits", "gal1Bright.fits", "gal1b.fits", "galMask.fits", "2mask.png", "1masked.png"],
    ["EUC_MER_BGSUB-MOSAIC-VIS_TILE1-A_B.fits", "EUC_MER_MOSAIC-VIS-RMS_TILE2-A_B.fits"],
    ["unwise-1234p015-w1-img-m.fits", "unwise-1234p015-w2-n-m.fits", "a-n-m.fits", "a-img-m.fits"],
    ["legacysurvey-0001m002-image-r.fits", "legacysurvey-0001m005-nexp-r.fits"],
    ["a-cnt.fits", "a-int.fits", "b-nd-rr.fits", "num.fits"],
]


@pytest.mark.parametrize("name", FOLDERS)
def test_the_word_may_be_anywhere_in_a_name_or_name_the_folder(name):
    light, others = FOLDERS[name]
    assert companions([*light, *others]) == set(range(len(light), len(light) + len(others)))
    assert companions(light) == set()
    assert not any(companions([other]) for other in others)  # beside no picture, they are ones


@pytest.mark.parametrize("names", ALONE)
def test_a_picture_that_nothing_lies_beside_stays_one(names):
    assert companions(names) == set()


def test_masks_in_a_folder_beside_that_of_the_pictures(rng, tmp_path):
    pixels = pixels_of(rng, 2, 9, 9)
    for folder, values in zip(("images", "masks"), pixels, strict=True):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.png").write_bytes(encoded(values))
    source = open_source(tmp_path)
    assert source.ids == ["images/0", "masks/0"]
    assert source.read(0).shape == (9, 9)
    assert reason(source, 1).startswith("named as weights, a mask")
    assert open_source(tmp_path / "masks").read(0).shape == (9, 9)
