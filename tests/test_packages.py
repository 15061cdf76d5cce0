"""The rooms of the package: imports run one way, no two files import each other, and one file prints."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import dps_local

ROOT = Path(dps_local.__file__).parent
# each imports only what stands before it
ORDER = [
    *("errors", "system", "engine", "prompting", "importing", "steering", "maps", "scoring", "chat", "conversations"),
    *("privacy", "assistant", "logits_processor", "drawing", "server", "llm_plugin", "bench", "evaluation", "cli"),
]
FREE = {"", "__main__"}  # the package's own face, which imports when it is asked, and the program's start


def modules() -> dict[str, Path]:
    files = [file for file in ROOT.rglob("*.py") if "_vendor" not in file.parts]
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip("."): file
        for file in files
    }


def imports(file: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules of the package that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dps_local":
            base = (node.module or "").removeprefix("dps_local").lstrip(".")
            inner = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
            found |= {name for name in inner if name in known} or {base}
    return found


def test_packages_import_one_way() -> None:
    known = modules()
    assert {name.split(".")[0] for name in known} - FREE == set(ORDER)
    wrong = [
        f"{name} imports {other}"
        for name, file in known.items()
        if name not in FREE
        for other in imports(file, known)
        if other and ORDER.index(other.split(".")[0]) > ORDER.index(name.split(".")[0])
    ]
    assert wrong == []


def test_no_two_files_import_each_other() -> None:
    known = modules()
    TopologicalSorter({name: imports(file, known) for name, file in known.items() if name not in FREE}).prepare()


@pytest.mark.parametrize("package", [name for name in ORDER if (ROOT / name).is_dir()])
def test_every_package_says_what_its_files_share(package: str) -> None:
    assert ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))


def test_every_file_says_what_it_is() -> None:
    assert [name for name, file in modules().items() if not ast.get_docstring(ast.parse(file.read_text()))] == []


# what writes to a terminal by itself, past the one place that takes control characters out of what others wrote
PRINTING = {
    "print",
    "Console",
    "typer.echo",
    "typer.secho",
    "typer.confirm",
    "typer.prompt",
    "sys.stdout",
    "sys.stderr",
}
ALLOWED = {
    "cli.terminal": PRINTING,
    "cli.app": {"sys.stdout"},  # a pipe whose reader is gone
    "engine.self_test_child": {"print"},  # into a file, which its parent reads
}


def test_nothing_is_printed_past_the_terminal() -> None:
    found: dict[str, set[str]] = {}
    for name, file in modules().items():
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
        called |= {ast.unparse(base) for node in nodes if isinstance(node, ast.ClassDef) for base in node.bases}
        named = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
        found[name] = {*called, *named, *(call.rpartition(".")[2] for call in called)} & PRINTING
    assert {name: words for name, words in found.items() if words - ALLOWED.get(name, set())} == {}
    assert found["cli.terminal"] >= {"print", "Console", "typer.confirm", "sys.stderr"}
