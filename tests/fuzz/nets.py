"""Net definition files, damaged or doing what none should: a list of layers or a NetFileError."""

from __future__ import annotations

from pathlib import Path

import layerkit as lk
from fuzz.harness import Case, check
from layerkit.errors import LayerkitError
from layerkit.layer import Layer

SECONDS = 30
NETS = sorted((Path(__file__).resolve().parents[2] / "nets").glob("*.py"))

GOOD = "return [L.Input('x', shape=(2,))]"
# Bodies of the function of a net file, or code in its place.
BODIES = (
    "return []",
    "return None",
    "return [None]",
    "return 3",
    "return L.Input('x', shape=(2,))",
    "yield L.Input('x', shape=(2,))",
    "raise SystemExit(3)",
    "import sys; sys.exit()",
    "raise KeyError",
    "raise ValueError('two\\nlines')",
    "return net()",
    "assert False",
    "return [L.Dense('y', 'x', units=0)]",
    "return [L.Dense('y', 'x')]",
    "return [L.Nothing('x')]",
    "return (L.Input('x', shape=(2,)),)",
    "raise BaseException('x')",
    "raise ValueError('x' * 9999)",
    "return [L.Input(f'x{i}', shape=(2,)) for i in range(3)]",
    "raise GeneratorExit",
    "class E(Exception):\n        def __str__(self): raise ValueError\n    raise E",
    "raise ExceptionGroup('many', [ValueError('a'), TypeError('b')])",
    "return [lk.Layer('x')]",
    "class R:\n        def __repr__(self): raise ValueError\n    return R()",
    "print('hello'); return []",
    "import a_module_that_is_not_there",
    "global L; L = None; return []",
    "return [1] * 10 ** 5",
)
HEADS = (
    "",
    "from __future__ import annotations\n",
    "# coding: latin-1\n",
    "# coding: nonsense\n",
    "\ufeff",
    "\x00",
    "\x0c\n",
    "if True:\n",
    "'''",
    "def f(:\n",
    "net = 3\n",
    "\t\n  \n",
    "from dataclasses import dataclass\n@dataclass\nclass A:\n    n: int = 3\n",
    "import beside\n",
    "raise SystemExit\n",
    "1 / 0\n",
    "exec('raise OSError(5)')\n",
    "(" * 300 + ")" * 300 + "\n",
    "x = " + "-" * 3000 + "1\n",
    "async def net(): return []\n",
    "import sys; sys.path.append('/')\n",
)
SIGNATURES = ("", "*, units=3", "units", "*args, **kwargs", "units, /", "lk", "units=1 / 0", "*")


def written(case: Case) -> tuple[bytes, str]:
    """A net file from parts, and its name."""
    plain = case.whole(0, 3)  # the part that is odd: more than one would hide each other
    head = case.pick(HEADS) if plain in (0, 3) else ""
    body = case.pick(BODIES) if plain in (1, 3) else GOOD
    name = case.pick(["net", "other", "net_2"]) if plain in (2, 3) else "net"
    signature = case.pick(SIGNATURES) if plain in (2, 3) else "*, units=3"
    before = case.pick(["async ", "@staticmethod\n", ""]) if plain in (2, 3) else ""
    text = (
        f"{head}import layerkit as lk\nfrom layerkit import layers as L\n\n\n"
        f"{before}def {name}({signature}):\n    {body}\n"
    )
    if case.chance(0.1):
        text += "\n\ndef second():\n    return []\n"
    return text.encode(case.pick([*["utf-8"] * 5, "utf-16", "latin-1"]), "replace"), "net.py"


def damaged(case: Case) -> tuple[bytes, str]:
    """A net file of ours with a few characters changed."""
    path = case.pick(NETS)
    data = bytearray(path.read_bytes())
    for _ in range(case.whole(1, 6)):
        place = case.whole(0, len(data) - 1)
        kind = case.whole(0, 3)
        if kind == 0:
            data[place] ^= 1 << case.whole(0, 7)
        elif kind == 1:
            del data[place : place + case.whole(1, 30)]
        elif kind == 2:
            data[place:place] = case.rng.bytes(3)
        else:
            del data[place:]
            data = data or bytearray(b"\n")
    return bytes(data), case.pick([path.name, "copy of it.py", "net.py", "3.py", "class.py"])


def case(case: Case) -> None:
    """One file, and what is asked of it."""
    case.odd = True
    content, name = case.pick([written, damaged])(case)
    path = case.folder / name
    path.write_bytes(content)
    case.say("file", content[:1500])
    settings = case.pick(
        [{}, {}, {}, {}, {"units": 2}, {"latent": 3}, {"path": 1}, {"nothing": None}]
    )
    others = [str(path), case.folder, case.folder / "gone.py"]
    asked = case.pick(others) if case.chance(0.1) else path
    case.say("load_net", asked, settings)
    try:
        layers = lk.load_net(asked, **settings)
    except LayerkitError as error:
        check("layerkit_" not in str(error), "a message about our own parts")
        raise
    check(isinstance(layers, list), "a net file gave something else than a list")
    check(all(isinstance(x, Layer) for x in layers), "a net file gave other things than layers")
