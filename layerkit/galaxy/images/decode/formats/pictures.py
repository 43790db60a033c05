"""Pictures: what every format gives of an open file."""

from __future__ import annotations

import numpy as np

from layerkit.galaxy.images.decode.bounds import only_unusable


class Pictures:
    """The pictures in one open file: `len(pictures)`, and `read(k)` for k from 0.

    `deep` says whether they are of type uint16, and `row_order` whether the first row of a picture
    is meant to be seen at its "top" or at its "bottom".
    """

    deep = False
    row_order = "top"

    def __len__(self) -> int:
        return 1

    def read(self, k: int) -> np.ndarray:
        """Picture `k`, (height, width), of a type that says what its numbers mean (see above)."""
        with only_unusable():
            return self._read(k)

    def _read(self, k: int) -> np.ndarray:
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what is open beside the file itself."""
