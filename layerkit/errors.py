"""Every error layerkit raises on purpose.

Each message names the layer, file or setting at fault, says what was expected and what came, and
what to do about it.  A command-line program catches `LayerkitError`, prints the message as one line
and exits with status 2; anything else is a bug and keeps its traceback.
"""

from typing import Any

LONGEST = 80  # letters of a value in a message


def brief(value: Any) -> str:
    """Show a value in a message: in one line, and only the beginning of a long one."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**40:
        return "a whole number of more than 40 digits"
    try:
        axes = getattr(value, "ndim", 0)
        if isinstance(axes, int) and axes:
            return f"an array of shape {tuple(value.shape)}"
        text = repr(value)
        if "\n" in text and type(value).__module__ != "builtins":  # a table, say, of a whole net
            text = f"an object of type {type(value).__name__}"
        text = " ".join(text.split())
    except Exception:  # somebody's own, which is not what is wrong here
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


class LayerkitError(Exception):
    """Base class: something the user can put right.

    Its message is one line, whatever names of files and texts of other libraries are in it.

    Attributes:
        agreed: whether all processes that train together raise it, so that one of them tells.
    """

    agreed = False

    def __str__(self) -> str:
        return " ".join(Exception.__str__(self).splitlines())  # KeyError's would be in quotes


class NetError(LayerkitError):
    """A net that cannot be wired: duplicate top, missing bottom, cycle, shape mismatch, setting."""


class ContractError(NetError):
    """A layer that breaks the contract between layers and the net; see layerkit.Layer."""


class NetFileError(LayerkitError):
    """A net definition file that cannot be read or does not return a list of layers."""


class BackendError(LayerkitError):
    """A backend that is not there, or cannot do what was asked."""


class DataError(LayerkitError):
    """Input data that is missing, empty or of the wrong kind."""


class SnapshotError(LayerkitError):
    """A snapshot that is truncated, of a newer format, or of another net."""


class BreaksError(SnapshotError):
    """A snapshot of a trainer whose breaks remember other things than those of this one."""


class BusyError(LayerkitError):
    """A folder that another process is working in."""


class NotFiniteError(LayerkitError):
    """A loss that is infinite or not a number; names the first blob in which it shows."""


class GradientError(LayerkitError, AssertionError):
    """A backward pass that disagrees with finite differences of its forward pass."""

    def __str__(self) -> str:
        return Exception.__str__(self)
