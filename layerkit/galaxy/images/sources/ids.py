"""Ids of pictures, made from the names of their files.

An id is the name of the file without folder and suffix.  If two files share it, both keep their
folders; if they share that as well, their suffixes too.  A file of several pictures adds the number
of each, as in `name[0003]`.
"""

from __future__ import annotations

import re
from collections import Counter

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
SUFFIX = re.compile(r"(\.(fits?|fts|fz))?\.[^./]+$", re.IGNORECASE)


def unique_ids(names: list[str]) -> list[str]:
    """Shorten file names to ids that are printable and, for different names, different.

    Args:
        names: paths with "/" between folders.

    Returns:
        For each name its stem; if stems collide, the path without suffix; if those collide, the
        path.
    """
    names = [printable(name) for name in names]
    plain = [SUFFIX.sub("", name) for name in names]
    stems = [name.rsplit("/", 1)[-1] for name in plain]
    # A zip may hold a name twice; `numbered` tells these apart.
    different = dict(zip(names, zip(stems, plain, strict=True), strict=True)).values()
    of_stem, of_plain = Counter(s for s, _ in different), Counter(p for _, p in different)
    return [
        stem if of_stem[stem] == 1 else path if of_plain[path] == 1 else name
        for stem, path, name in zip(stems, plain, names, strict=True)
    ]


def numbered(ids: list[str]) -> list[str]:
    """Append a number, as in `name~2`, to every id that repeats an earlier one."""
    taken, result = set(ids), []
    seen: set[str] = set()
    for name in ids:
        fresh, n = name, 2
        while fresh in seen or (fresh != name and fresh in taken):
            fresh, n = f"{name}~{n}", n + 1
        seen.add(fresh)
        result.append(fresh)
    return result


def printable(name: str) -> str:
    """Replace control characters, and bytes that are not UTF-8, by backslash escapes."""
    # Python decodes bytes that are not UTF-8 to surrogates, U+DC80 to U+DCFF.
    name = re.sub("[\udc80-\udcff]", lambda m: f"\\x{ord(m[0]) - 0xDC00:02x}", name)
    name = name.encode("utf-8", "backslashreplace").decode()
    return CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode(), name)
