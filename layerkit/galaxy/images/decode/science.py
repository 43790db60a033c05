"""Words in names that tell science images from weights, masks, models and the like."""

from __future__ import annotations

import re

IMAGES = re.compile(r"DR[ZC]|FL[TC]|I2D|CAL|INT|MAIC|CUTOUT|STAMP|COADD|MOSAIC|STACK|GALAXY|GAL")
SCIENCE = re.compile(r"(SCI|SCIENCE|IMAGE)\d*")
NOT_SCIENCE = re.compile(
    r"(ERR|ERRORS?|ERRS?|STD|STDEV|STDDEV|RMS|SIG|SIGMA|UNC|UNCERT|UNCERTAINTY|NOISE"
    r"|WHT|WGT|WT|WEI|WEIGHTS?|WEIGHTMAP|VAR|VARIANCE|IVAR|INVVAR|IVARIANCE"
    r"|DQ|BPM|BPMASK|MSK|MASKS?|MASKED|FLAGS?|QUALITY|QUAL|CTX|CON|CONTEXT"
    r"|EXP|EXPOSURE|EXPTIME|EXPMAP|TIME|NSAMP|SAMP|COV|COVERAGE|NEXP|AREA|PSF"
    r"|STAT|ERRMAP|RMSMAP|NOISEMAP|VARMAP|COVMAP|NMAP|NIMAGE|HITS?|FLG|BADPIX"
    r"|CONF|CONFIDENCE|CONFMAP|MASKBITS|DEPTH|GALDEPTH|PSFDEPTH|PSFSIZE|CHI|CHISQ|BGMOD"
    r"|MUNC|MCOV|RRHR|SKYBG|OBJMASK|BLOBMODEL|WISEMASK|EXPWT|LABELS?|ANNOTATIONS?"
    r"|WCSDVARR|D2IMARR"  # distortions of Hubble's detectors
    r"|LSF|LSFPRE|LSFPOST|(PRE)?(DISP|SPECRES|SPECRESD)"  # of MaNGA's spectra
    r"|BKG|BKGD|BKGMASK|BGMASK|BACKGROUND|SKY|SEG|SEGM|SEGMAP|SEGMENTATION|MODELS?|RES|RESID|RESIDS|RESIDUALS?)\d*"
)
# Two words in one, as COUNTSERR, WEIGHTIMAGE and NEPOCHS, and GPSF of the band g.
_OF = (
    r"[UGRIZYJHK]|FLUX|FLUXES|COUNTS?|OBS|DATA|IMAGE|IMG|SCI|SIGNAL|INTENSITY|INT|INV|INVERSE|N|NUM|PSF|DQ|BAD"
    r"|PIX|PIXEL|STAR|OBJ"
)
_PLANE = (
    r"ERR|ERRORS?|RMS|SIGMA|UNC|UNCERTAINTY|NOISE|WHT|WGT|WT|WEIGHTS?|VAR|VARIANCE|IVAR|STD|STDDEV"
    r"|DQ"
    r"|MASKS?|MSK|FLAGS?|QUALITY|PSF|SEG|SEGMENTATION|EPOCHS?|COVERAGE"
)
COMPOUND = re.compile(
    rf"({_OF})({_PLANE}|EXP|EXPOSURES?)|({_OF})?({_PLANE}|EXPOSURE)(IMAGE|IMG|MAP|DATA|PLANE|ARRAY)"
)

# Words that may also name science images, so that they count beside a science image only.
BESIDE_SCIENCE = re.compile(r"(SNR|SIGNIFICANCE|MAGLIM|OFFSETS|APERTURES?)\d*")
# That the sky is subtracted: the field of a science image once more, as SCI_BKSUB beside SCI.
SUBTRACTED = re.compile(r"(BK|BKG|BG|BACK|BACKGROUND|SKY)SUB(TRACTED)?")
# Keywords of FITS headers that tell what an image is, as its EXTNAME does: of the Vera Rubin
# Observatory, ESO, the Dark Energy Survey, the Legacy Surveys, and NOIRLab's DECam pipeline.
KEYWORDS = ("EXTTYPE", "HDUCLAS2", "DES_EXT", "IMTYPE", "PRODTYPE")
# Names in archives that say what a file is together with what they call the field, `of`: of Euclid,
# unWISE, the Legacy Surveys, Pan-STARRS, GALEX and ZTF.  Their words may mean anything elsewhere.
ARCHIVES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"EUC_MER_.*?(RMS|FLAG|BGMOD|PSF|SEGMAP).*?_(?P<of>TILE\d+)-.*",
        r"(?P<of>unwise-\w+-w\d)-(invvar|n|std|frames|mask|msk)(-[mu])?",
        r"(?P<of>legacysurvey-\w+)-(invvar|nexp|maskbits|model|blobmodel|chi2|psfsize|depth|galdepth"
        r"|wisemask)(-\w+)?",
        r"(?P<of>rings\.v\d.*\.stk\.[a-z]\.unconv)\.(wt|mask|num|exp|expwt)",
        r"(?P<of>.+-[fnx]d)-(cnt|rr|rrhr|wt|flags|skybg|objmask|exp|mask)",
        r"(?P<of>ztf_.*_q\d)_(mskimg|diffimgpsf|\w*unc(img)?)",
    )
]
# The words among these that no folder of galaxies is called by.
PLAINLY_NOT_SCIENCE = re.compile(
    r"ERR|ERRORS?|SIGMA|UNC|UNCERTAINTY|RMS|WHT|WGT|WEIGHTS?|IVAR|INVVAR|DQ|BPM|MSK|MASKS?|FLAGS?"
    r"|PSF|SEG|SEGM|SEGMAP|SEGMENTATION"
)


def is_science(word: str) -> bool:
    """Tell whether a word from the name of a file or folder stands for science images."""
    return SCIENCE.fullmatch(word.upper()) is not None or word.upper() == "IMG"


def is_image(word: str) -> bool:
    """Tell whether a word in the name of a file says that it is the image, not a plane beside it.

    The words are those of `is_science`, of drizzled and calibrated images (drz, drc, flt, flc, i2d,
    cal), and of the archives of WISE and GALEX (int), Spitzer (maic) and HSC (cutout).
    """
    return is_science(word) or IMAGES.fullmatch(word.upper()) is not None


def is_no_science(word: str) -> bool:
    """Tell whether a word from a name stands for errors, weights, a mask or the like."""
    words = NOT_SCIENCE, COMPOUND, BESIDE_SCIENCE
    return any(pattern.fullmatch(word.upper()) is not None for pattern in words)


def is_plainly_no_science(word: str) -> bool:
    """Tell whether a word from the name of a folder can stand for nothing else."""
    return PLAINLY_NOT_SCIENCE.fullmatch(word.upper()) is not None


def says(name: str, *words: re.Pattern[str]) -> bool:
    """Tell whether any word of an EXTNAME matches any of some patterns."""
    return any(pattern.fullmatch(part) for part in words_of(name) for pattern in words)


def words_of(name: str) -> list[str]:
    """Return the words of an EXTNAME, in capitals."""
    return re.split(r"[^A-Z0-9]+", re.sub(r"\bS/N\b", "SNR", name.upper()))


def field_of(name: str) -> str | None:
    """Return what an archive calls the field of a weight map or the like, or None for others.

    Args:
        name: of a file, without folders and suffix.
    """
    matches = (pattern.fullmatch(name) for pattern in ARCHIVES)
    return next((match["of"] for match in matches if match), None)
