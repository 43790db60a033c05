"""Files are short enough to read, and folders hold few enough of them to choose from."""

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PACKAGE = TESTS.parent / "layerkit"
SOURCES = {".py", ".cpp", ".cu", ".h", ".inl"}
ENTRANCES = {"__init__.py", "__main__.py"}
LINES, FILES = 400, 7


def too_long(package):
    """Python files of more than LINES lines, with their number of lines."""
    counts = {
        path.relative_to(package).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in package.rglob("*.py")
    }
    return {name: count for name, count in counts.items() if count > LINES}


def too_full(package):
    """Folders of more than FILES source files, without entrances and what is in rooms below."""
    folders = [package, *(path for path in package.rglob("*") if path.is_dir())]
    counts = {
        folder.relative_to(package).as_posix(): sum(
            path.suffix in SOURCES and path.name not in ENTRANCES for path in folder.iterdir()
        )
        for folder in folders
    }
    return {name: count for name, count in counts.items() if count > FILES}


def test_no_file_is_too_long():
    assert not too_long(PACKAGE), f"more than {LINES} lines: split by job"


def test_no_folder_is_too_full():
    assert not too_full(PACKAGE), f"more than {FILES} files: give those that belong together a room"


def test_what_is_too_long_or_too_full_is_seen(tmp_path):
    room = tmp_path / "room"
    (room / "below").mkdir(parents=True)
    for name in ("__init__.py", *(f"{i}.py" for i in range(FILES)), "below/one.h"):
        (room / name).write_text("x = 1\n" * LINES)
    assert (too_long(tmp_path), too_full(tmp_path)) == ({}, {})
    (room / "0.py").write_text("x = 1\n" * (LINES + 1))
    (room / "kernel.cu").write_text("")
    assert too_long(tmp_path) == {"room/0.py": LINES + 1}
    assert too_full(tmp_path) == {"room": FILES + 1}


def test_no_two_test_files_have_one_name():
    """pytest imports each as a module by its name alone."""
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
