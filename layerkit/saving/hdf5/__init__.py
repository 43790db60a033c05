"""HDF5 from anybody: written so that damage shows, and read so that a file can do no harm.

HDF5 believes its files.  A damaged one makes it crash, loop for ever, or return other numbers; a
hostile one makes it read other files, or fill the memory with what the file only claims to hold.
So what layerkit writes is *sealed*: behind the HDF5 data, where HDF5 does not look, stands their
SHA-256, which is compared before HDF5 sees a byte.  And whatever is read, sealed or not, goes
through a `Reader`, which looks at the kind, shape, size and storage of a thing before it reads it.
"""

from layerkit.saving.hdf5.reader import Reader, one_line, open_unsealed
from layerkit.saving.hdf5.sealed import (
    HEADER,
    SIGNATURE,
    Rows,
    attribute,
    is_sealed,
    open_sealed,
    refuse_other,
    write_sealed,
)
from layerkit.saving.hdf5.values import plain

__all__ = [
    "HEADER",
    "SIGNATURE",
    "Reader",
    "Rows",
    "attribute",
    "is_sealed",
    "one_line",
    "open_sealed",
    "open_unsealed",
    "plain",
    "refuse_other",
    "write_sealed",
]
