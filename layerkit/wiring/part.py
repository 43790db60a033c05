"""Parts of a net that look back at it."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerkit.net import Net


class Part:
    """Base class of parts that a net holds and that know the net.

    They do not keep it alive: without a cycle of references, a net that is dropped frees its arrays
    at once.  Python's collector, which counts objects and not bytes, would let many nets pile up.

    Attributes:
        net: the net.
    """

    def __init__(self, net: Net):
        self._net = weakref.ref(net)

    @property
    def net(self) -> Net:
        """Return the net."""
        net = self._net()
        assert net is not None  # its parts are called by the net and by what holds it
        return net
