"""The English of docstrings: functions begin with a verb in the imperative, sentences plainly."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Words that begin no sentence, and words that begin no function's docstring: a phrase that follows
# them tells what is returned, and not what the function does.
OPENERS = {"What", "Where", "Of", "Whether", "By"}
NO_VERBS = OPENERS | {
    "The",
    "A",
    "An",
    "As",
    "How",
    "Nothing",
    "All",
    "Any",
    "Each",
    "Every",
    "Those",
    "These",
    "This",
    "That",
    "Its",
    "It",
    "One",
    "Only",
    "Half",
    "With",
    "For",
    "From",
    "In",
    "To",
}
# From verbs whose third person is no noun in the plural, as "Calls" and "Draws" are.
THIRD_PERSON = {
    f"{verb}s"
    for verb in (
        "Add",
        "Bind",
        "Bring",
        "Compare",
        "Compute",
        "Declare",
        "Fail",
        "Fall",
        "Fill",
        "Find",
        "Give",
        "Hold",
        "Join",
        "Let",
        "Make",
        "Minimise",
        "Put",
        "Raise",
        "Read",
        "Refuse",
        "Register",
        "Return",
        "Rise",
        "Run",
        "Say",
        "Serve",
        "Set",
        "Take",
        "Tell",
        "Write",
        "Yield",
    )
}
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def faults(source: str) -> list[str]:
    """Return what is wrong with a module's docstrings and comments, a line for each fault."""
    docstrings = [
        f"line {getattr(node, 'lineno', 1)}, {getattr(node, 'name', 'module')}: {fault}: {text!r}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, Documented)
        if (text := ast.get_docstring(node)) is not None
        for fault in (*bad_openers(text), *bad_beginnings(node, text))
    ]
    suspicious = re.search(rf"#.*\b({'|'.join(OPENERS)})\b", source)  # reading tokens takes long
    comments = [
        f"line {token.start[0]}: {fault}: {token.string}"
        for token in tokenize.generate_tokens(io.StringIO(source if suspicious else "").readline)
        if token.type == tokenize.COMMENT
        for fault in bad_openers(token.string.lstrip("# "))
    ]
    return docstrings + comments


def bad_openers(text: str) -> list[str]:
    """Return a fault for each sentence that opens badly."""
    # After a full stop, a colon or an empty line a sentence begins.
    starts = re.findall(r"(?:^|[.!?:]\s+|\n\s*\n\s*)([A-Z][a-z]*)\b", text)
    return [f"a sentence opens with {start}" for start in starts if start in OPENERS]


def bad_beginnings(node: Documented, text: str) -> Iterator[str]:
    """Yield what is wrong with the first word of a docstring."""
    found = re.match(r"[A-Z][a-z]*\b(?! *=)", text)
    first = found.group() if found else ""
    if isinstance(node, ast.ClassDef) and first in THIRD_PERSON:
        yield f"a class is a thing, but {first} says what it does"
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    if not first:
        yield "it opens with no verb"
    elif first not in NO_VERBS:
        # Hardly an imperative ends in a single s: such a word is in the third person or a plural.
        if re.search(r"[^s]s$", first):
            yield f"{first} is no imperative"
    elif not (first == "The" and is_property(node)):
        yield f"{first} is no verb"


def is_property(node: ast.AST) -> bool:
    """Tell whether a function is read like an attribute, so that a noun may stand for it."""
    return any("property" in ast.unparse(d) for d in getattr(node, "decorator_list", []))


def faults_in(*folders: str) -> list[str]:
    """Return what is wrong in the modules of some folders, a line for each fault."""
    return [
        f"{path.relative_to(ROOT)}: {fault}"
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        for fault in faults(path.read_text(encoding="utf-8"))
    ]


def test_docstrings_are_plain_english():
    assert faults_in("layerkit", "nets", "examples") == []


def test_sentences_of_tests_and_benchmarks_open_well():
    """A test's docstring tells what is true, so it need not begin with a verb."""
    found = faults_in("tests", "benchmarks")
    assert [fault for fault in found if "a sentence opens with" in fault] == []


@pytest.mark.parametrize(
    "docstring",
    [
        "Returns the sum.",
        "Computes y = a(x).",
        "What each array holds.",
        "The sum.",
        "y = a(x).",
        "Nothing: there is nothing to do.",
        "(n, ...) as (n, size).",
        "`rate`.",
        "Y = a(x).",
        "Rows gathered on the backend.",
        "As any data layer.",
        "How many there are.",
        "Return y.\n\n    Where it is asked not to, return x.",
        "Return y.  By default it is x.",
        "Return y.\n\n    Args:\n        x: the number.  Of course it is real.",
    ],
)
def test_faulty_docstrings_of_functions_are_found(docstring):
    assert faults(f'def f(x):\n    """{docstring}"""\n') != []


@pytest.mark.parametrize("docstring", ["Return y.", "Pass y on.", "Compute y = a(x); set dx."])
def test_good_docstrings_of_functions_pass(docstring):
    assert faults(f'def f(x):\n    """{docstring}"""\n') == []


@pytest.mark.parametrize("comment", ["# Where it is zero.", "x = 1  # What it is"])
def test_faulty_comments_are_found(comment):
    assert faults(comment) != []
    assert faults("# From where it is, what it is\n") == []


def test_docstrings_of_classes_and_properties():
    assert faults('class C:\n    """Serves examples."""\n') != []
    assert faults('class C:\n    """What layers have in common."""\n') != []
    assert faults('class C:\n    """The base class of layers, Adds among them."""\n') == []
    prop = 'class C:\n    @property\n    def size(self):\n        """{} number of rows."""\n'
    assert faults(prop.format("The")) == faults(prop.format("Return the")) == []
    assert faults(prop.format("What is the")) != []
    assert faults(prop.replace("@property", "@staticmethod").format("The")) != []
