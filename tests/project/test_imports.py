"""Imports run one way: from what is built upon to what is built, and never back."""

import ast
import functools
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("layerkit", "nets", "examples")

# A module imports modules of lower ranks only, or of its own folder.  `layerkit` is the package
# itself, whose __init__ gathers the public names: only what stands above the core imports it.
RANKS = [
    [  # the packages themselves, whose __init__ imports nothing
        "layerkit.inspection",
        "layerkit.passes",
        "layerkit.saving",
        "layerkit.system",
        "layerkit.wiring",
    ],
    [
        "layerkit.errors",
        "layerkit.inspection.display",
        "layerkit.system.bars",
        "layerkit.system.interrupt",
        "layerkit.system.memory",
        "layerkit.system.uninterrupted",
    ],
    ["layerkit.system.files", "layerkit.system.locks", "layerkit.settings.names"],
    ["layerkit.saving.hdf5", "layerkit.saving.shards"],
    ["layerkit.backends", "layerkit.settings"],
    ["layerkit.blob", "layerkit.initializers", "layerkit.data"],
    ["layerkit.run", "layerkit.settings.tuning"],
    ["layerkit.layer"],
    ["layerkit.layers", "layerkit.wiring.sharing"],
    [
        "layerkit.inspection.profile",
        "layerkit.wiring.wires",
        "layerkit.wiring.contract",
        "layerkit.passes.methods",
        "layerkit.system.turns",
    ],
    ["layerkit.passes.feeding"],
    ["layerkit.passes.inference", "layerkit.engines"],
    [
        "layerkit.wiring.building",
        "layerkit.inspection.drawing",
        "layerkit.passes.finite",
        "layerkit.passes.objective",
        "layerkit.wiring.parameters",
        "layerkit.wiring.plan",
        "layerkit.saving.states",
        "layerkit.inspection.summary",
    ],
    ["layerkit.saving.copying", "layerkit.passes.evaluation", "layerkit.passes.running"],
    ["layerkit.net"],
    ["layerkit.saving.onnx"],
    [
        "layerkit.solvers",
        "layerkit.netfile",
        "layerkit.inspection.gradcheck",
        "layerkit.inspection.activity",
    ],
    ["layerkit.saving.snapshot", "layerkit.distributed"],
    ["layerkit.saving.loading"],
    ["layerkit.saving.tensors"],
    ["layerkit.train"],
    ["layerkit"],
    ["layerkit.cli.command"],
    ["layerkit.saving.runfile"],
    ["layerkit.galaxy.layout", "layerkit.galaxy.images.decode", "layerkit.galaxy.images.masks"],
    ["layerkit.galaxy.images.crop", "layerkit.galaxy.images.prepared"],
    ["layerkit.galaxy.images.sources", "layerkit.galaxy.images.stored"],
    ["layerkit.galaxy.images.prepare"],
    ["layerkit.galaxy.images.parts"],
    ["layerkit.galaxy.images"],
    ["layerkit.galaxy.model", "layerkit.galaxy.baselines"],
    ["layerkit.galaxy.evaluation"],
    ["layerkit.galaxy.catalogue"],
    ["layerkit.galaxy.report"],
    ["layerkit.galaxy.scene"],
    ["layerkit.galaxy.training"],
    ["layerkit.galaxy"],
    ["layerkit.cli"],
    ["layerkit.__main__"],
    ["nets"],
    ["examples"],
]
CORE = {name for names in RANKS[: RANKS.index(["layerkit"]) + 1] for name in names}


def module_of(path):
    """layerkit/layers/__init__.py is layerkit.layers."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def sources():
    """Module -> its syntax tree."""
    return {
        module_of(path): ast.parse(path.read_text(encoding="utf-8"))
        for folder in OURS
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def statements(node, function=None):
    """(statement, name of the function around it) for each that can run."""
    never = isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING"
    for child in node.orelse if never else ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child, function
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from statements(child, child.name if inside else function)


def imports_of(tree):
    """(module, function around it) for each import of our own or other modules that can run."""
    for node, function in statements(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, function
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:  # `from a import b` imports a.b where that is a module
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in sources() else node.module, function


def group_of(module):
    """The longest entry of RANKS that the module is, or is inside of."""
    entries = [name for names in RANKS for name in names]
    inside = [e for e in entries if module == e or (module.startswith(e + ".") and e != "layerkit")]
    return max(inside, key=len, default=None)


def rank_of(module):
    group = group_of(module)
    return next((i for i, names in enumerate(RANKS) if group in names), None)


@functools.cache
def edges(on_import=False):
    """Module -> those of ours that it imports or, `on_import`, that it imports at once."""
    return {
        name: {
            module
            for module, function in imports_of(tree)
            if module.split(".")[0] in OURS and not (on_import and function)
        }
        for name, tree in sources().items()
    }


@pytest.fixture(scope="module", autouse=True)
def _forgotten():
    """Keeps the trees no longer than these tests take: each collection of garbage visits them."""
    yield
    sources.cache_clear()
    edges.cache_clear()


def test_there_is_something_to_check():
    assert "layerkit.layers" in edges()["layerkit"]
    neuron = "layerkit.layers.elementwise.neuron"
    assert neuron in edges()["layerkit.layers.elementwise.activations"]
    assert edges()["examples.lenet"] >= {"layerkit", "layerkit.cli.command", "layerkit.layers"}


def test_imports_run_one_way():
    faults = [f"{m} has no rank: give it one in RANKS" for m in sources() if not group_of(m)]
    for module, targets in edges().items():
        for target in sorted(targets):
            if target not in sources():
                faults.append(f"{module} imports {target}, which is not there")
            elif group_of(target) != group_of(module) and rank_of(target) >= rank_of(module):
                ranks = rank_of(module), rank_of(target)
                faults.append(f"{module} (rank {ranks[0]}) imports {target} (rank {ranks[1]})")
    assert not faults


def test_the_core_never_imports_what_is_built_on_it():
    core = {module for module in sources() if group_of(module) in CORE}
    assert "layerkit.net" in core
    reached = set(core)
    while more := {target for module in reached for target in edges()[module]} - reached:
        reached |= more
    assert not [module for module in reached if group_of(module) not in CORE]


def test_no_module_needs_itself_to_be_imported():
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for target in sorted(edges(on_import=True)[module]):
                visit(target)
            path.pop()
            done.add(module)

    for module in sources():
        visit(module)


def test_cupy_is_imported_only_when_it_is_asked_for():
    """Anywhere else, a machine without CuPy could not import layerkit."""
    found = [
        (module, function, target)
        for module, tree in sources().items()
        for target, function in imports_of(tree)
        if target.split(".")[0] == "cupy" or target == "layerkit.backends.cupy"
    ]
    assert sorted(found, key=str) == [
        ("layerkit.backends", "_cupy", "cupy"),
        ("layerkit.backends", "_cupy", "layerkit.backends.cupy"),
        ("layerkit.backends.cublas", "library", "cupy"),
        ("layerkit.backends.cupy", None, "cupy"),
        ("layerkit.distributed.nccl", "__init__", "cupy"),
        ("layerkit.distributed.nccl", "__init__", "cupy.cuda"),
    ]


def test_no_module_takes_what_is_private_to_a_net():
    found = [
        (module, node.attr)
        for module, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.match("_[^_]", node.attr)
        and "net" in (getattr(node.value, "id", None), getattr(node.value, "attr", None))
    ]
    assert not found


def test_no_constant_is_set_twice():
    """Kernels for the CPU and the GPU share a file, and one's constant must not be the other's."""
    counts = Counter(
        (module, target.id)
        for module, tree in sources().items()
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    )
    assert not [name for name, count in counts.items() if count > 1]
