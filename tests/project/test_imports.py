"""Imports run one way: from what is built upon to what is built, and never back."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

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
    ["layerkit.galaxy.layout", "layerkit.galaxy.images.decode"],
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


SOURCES = {
    module_of(path): ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("layerkit", "nets", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def for_annotations(tree):
    """ids of the nodes below `if TYPE_CHECKING:`, which never run."""
    return {
        id(node)
        for check in ast.walk(tree)
        if isinstance(check, ast.If) and getattr(check.test, "id", None) == "TYPE_CHECKING"
        for statement in check.body
        for node in ast.walk(statement)
    }


def imports_of(tree):
    """(module, node) for each import statement of our own or other modules that can run."""
    never = for_annotations(tree)
    for node in ast.walk(tree):
        if id(node) in never:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:  # `from a import b` imports a.b where that is a module
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in SOURCES else node.module, node


def group_of(module):
    """The longest entry of RANKS that the module is, or is inside of."""
    entries = [name for names in RANKS for name in names]
    inside = [e for e in entries if module == e or (module.startswith(e + ".") and e != "layerkit")]
    return max(inside, key=len, default=None)


def rank_of(module):
    group = group_of(module)
    return next((i for i, names in enumerate(RANKS) if group in names), None)


def functions_around(tree):
    """id of each node inside a function -> the function's name: imports there run when called."""
    return {
        id(node): function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }


OURS = ("layerkit", "nets", "examples")
EDGES = {
    name: {m for m, _ in imports_of(tree) if m.split(".")[0] in OURS}
    for name, tree in SOURCES.items()
}
EDGES_ON_IMPORT = {
    name: {m for m, node in imports_of(tree) if m in EDGES[name] and id(node) not in inside}
    for name, tree in SOURCES.items()
    for inside in [functions_around(tree)]
}


def test_there_is_something_to_check():
    assert "layerkit.layers" in EDGES["layerkit"]
    assert "layerkit.layers.elementwise.neuron" in EDGES["layerkit.layers.elementwise.activations"]
    assert EDGES["examples.lenet"] >= {"layerkit", "layerkit.cli.command", "layerkit.layers"}


@pytest.mark.parametrize("module", SOURCES)
def test_imports_run_one_way(module):
    assert group_of(module), f"{module} has no rank: give it one in RANKS"
    for target in EDGES[module]:
        assert target in SOURCES, f"{module} imports {target}, which is not there"
        assert group_of(target) == group_of(module) or rank_of(target) < rank_of(module), (
            f"{module} (rank {rank_of(module)}) imports {target} (rank {rank_of(target)})"
        )


def test_the_core_never_imports_what_is_built_on_it():
    core = {module for module in SOURCES if group_of(module) in CORE}
    assert "layerkit.net" in core
    reached = set(core)
    while more := {target for module in reached for target in EDGES[module]} - reached:
        reached |= more
    assert not [module for module in reached if group_of(module) not in CORE]


def test_no_module_needs_itself_to_be_imported():
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for target in sorted(EDGES_ON_IMPORT[module]):
                visit(target)
            path.pop()
            done.add(module)

    for module in SOURCES:
        visit(module)


def test_cupy_is_imported_only_when_it_is_asked_for():
    """Anywhere else, a machine without CuPy could not import layerkit."""
    found = []
    for module, tree in SOURCES.items():
        inside = functions_around(tree)
        for target, node in imports_of(tree):
            if target.split(".")[0] == "cupy" or target == "layerkit.backends.cupy":
                found.append((module, inside.get(id(node)), target))
    assert sorted(found, key=str) == [
        ("layerkit.backends", "_cupy", "cupy"),
        ("layerkit.backends", "_cupy", "layerkit.backends.cupy"),
        ("layerkit.backends.cublas", "library", "cupy"),
        ("layerkit.backends.cupy", None, "cupy"),
        ("layerkit.distributed.nccl", "__init__", "cupy"),
        ("layerkit.distributed.nccl", "__init__", "cupy.cuda"),
    ]


@pytest.mark.parametrize("module", SOURCES)
def test_no_module_takes_what_is_private_to_a_net(module):
    found = [
        node.attr
        for node in ast.walk(SOURCES[module])
        if isinstance(node, ast.Attribute)
        and re.match("_[^_]", node.attr)
        and "net" in (getattr(node.value, "id", None), getattr(node.value, "attr", None))
    ]
    assert not found


@pytest.mark.parametrize("module", SOURCES)
def test_no_constant_is_set_twice(module):
    """Kernels for the CPU and the GPU share a file, and one's constant must not be the other's."""
    names = [
        target.id
        for node in SOURCES[module].body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    assert sorted(names) == sorted(set(names))
