"""File formats, recognised by the first bytes of a file and never by its name."""

from __future__ import annotations

GZIP, BZIP2, FITS = b"\x1f\x8b", b"BZh", b"SIMPLE  ="
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HDF5, MATLAB = b"\x89HDF\r\n\x1a\n", b"MATLAB 7.3 MAT-file"
PLAIN = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP", b"GIF8": "GIF",
    b"RIFF": "WEBP",
}  # fmt: skip
TAR, TAR_OFFSET = b"ustar", 257
OTHERS = {  # unsupported formats, and what to do about them
    b"\xfd7zXZ\0": "an xz file; unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it and give the folder",
    b"Rar!\x1a\x07": "a rar archive; unpack it and give the folder",
    b"\x28\xb5\x2f\xfd": "a zstd file; unpack it",
    b"\x93NUMPY": "a NumPy array; save it as FITS or HDF5",
    b"#ASDF": "an ASDF file; save it as FITS or HDF5",
    b"CDF\1": "a netCDF file older than version 4; convert it with nccopy -k nc4",
    b"CDF\2": "a netCDF file older than version 4; convert it with nccopy -k nc4",
    b"PK\3\4": "a zip archive inside a folder or another archive; open it by itself, or unpack it",
    b"PAR1": "a Parquet table; save its images as files",
    b"\x1f\x9d": "a compressed file; unpack it with gunzip",
    b"MATLAB 5.0 MAT-file": "a MATLAB file older than version 7.3; save it with -v7.3",
}
ARCHIVE = "a tar archive; unpack it and give the folder"
HEAD = 264  # bytes needed to recognise a format


def plain_kind(head: bytes) -> str | None:
    """Return Pillow's name of the format if it is one that Pillow decodes, else None.

    Args:
        head: the first HEAD bytes of a file.
    """
    kind = next((kind for magic, kind in PLAIN.items() if head.startswith(magic)), None)
    return None if kind == "WEBP" and head[8:12] != b"WEBP" else kind


def is_deep_png(head: bytes) -> bool:
    """Tell whether the head of a file is that of a 16-bit PNG."""
    return plain_kind(head) == "PNG" and head[24:25] == b"\x10"


def is_image_file(head: bytes) -> bool:
    """Tell whether the head of a file is that of a supported format."""
    known = (GZIP, BZIP2, FITS, HDF5, MATLAB, *TIFF)
    return head.startswith(known) or plain_kind(head) is not None


def other_format(head: bytes) -> str | None:
    """Name an unsupported format by the head of a file, and say what to do; None if unknown."""
    if head[TAR_OFFSET:].startswith(TAR):
        return ARCHIVE
    return next((says for magic, says in OTHERS.items() if head.startswith(magic)), None)
