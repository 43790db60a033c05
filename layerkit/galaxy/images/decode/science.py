"""Words in names that tell science images from weights, masks, models and the like."""

from __future__ import annotations

import re

SCIENCE = re.compile(r"(SCI|SCIENCE|IMAGE)\d*")
NOT_SCIENCE = re.compile(
    r"(ERR|ERRORS?|ERRS?|STD|STDEV|STDDEV|RMS|SIG|SIGMA|UNC|UNCERT|UNCERTAINTY|NOISE"
    r"|WHT|WGT|WT|WEIGHTS?|WEIGHTMAP|VAR|VARIANCE|IVAR|INVVAR|IVARIANCE"
    r"|DQ|BPM|BPMASK|MSK|MASKS?|MASKED|FLAGS?|QUALITY|QUAL|CTX|CON|CONTEXT"
    r"|EXP|EXPOSURE|EXPTIME|EXPMAP|TIME|NSAMP|SAMP|COV|COVERAGE|NEXP|AREA|PSF"
    r"|STAT|ERRMAP|RMSMAP|NOISEMAP|VARMAP|COVMAP|NMAP|NIMAGE|HITS?|FLG|BADPIX"
    r"|CONF|CONFIDENCE|CONFMAP|MASKBITS|DEPTH|GALDEPTH|PSFDEPTH|PSFSIZE|CHI|CHISQ|BGMOD"
    r"|BKG|BACKGROUND|SKY|SEG|SEGM|SEGMAP|SEGMENTATION|MODELS?|RES|RESID|RESIDS|RESIDUALS?)\d*"
)

# Words that may also name science images, so that they count beside a science image only.
BESIDE_SCIENCE = re.compile(r"(SNR|SIGNIFICANCE|MAGLIM|OFFSETS|APERTURES?)\d*")
# The words among these that no folder of galaxies is called by.
PLAINLY_NOT_SCIENCE = re.compile(
    r"ERR|ERRORS?|SIGMA|UNC|UNCERTAINTY|RMS|WHT|WGT|WEIGHTS?|IVAR|INVVAR|DQ|BPM|MSK|MASKS?|FLAGS?"
    r"|PSF|SEG|SEGM|SEGMAP|SEGMENTATION"
)


def is_science(word: str) -> bool:
    """Tell whether a word from the name of a file or folder stands for science images."""
    return SCIENCE.fullmatch(word.upper()) is not None or word.upper() == "IMG"


def is_no_science(word: str) -> bool:
    """Tell whether a word from a name stands for errors, weights, a mask or the like."""
    word = word.upper()
    return any(words.fullmatch(word) is not None for words in (NOT_SCIENCE, BESIDE_SCIENCE))


def is_plainly_no_science(word: str) -> bool:
    """Tell whether a word from the name of a folder can stand for nothing else."""
    return PLAINLY_NOT_SCIENCE.fullmatch(word.upper()) is not None


def says(words: re.Pattern[str], name: str) -> bool:
    """Tell whether any word of an EXTNAME matches a pattern."""
    name = re.sub(r"\bS/N\b", "SNR", name.upper())
    return any(words.fullmatch(part) for part in re.split(r"[^A-Z0-9]+", name))
