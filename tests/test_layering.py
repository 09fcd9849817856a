"""The house: which part of doppel may use which, and what no file may contain."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "doppel"

# From the ground up. Each part may use what is named behind it, which stands above it in this table.
FLOORS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "isa": (),
    "cache": ("errors",),
    "memory": ("errors",),
    "translate": ("isa", "memory", "cache", "errors"),
    "processor": ("translate", "isa", "memory", "errors"),
    "devices": ("memory", "errors"),
    "guests": ("cache", "errors"),
    "machine": ("devices", "guests", "processor", "translate", "isa", "memory", "errors"),
    "conformance": ("processor", "isa", "memory", "errors"),
    "cli": (
        *("machine", "conformance", "devices", "guests"),
        *("translate", "isa", "memory", "cache", "errors"),
    ),
}
# Packages of others, and who may use them. What is not here is not imported at all, so nothing under the GPL.
PACKAGES: dict[str, tuple[str, ...]] = {
    "llvmlite": ("translate", "cli"),
    "msgspec": ("translate", "devices", "guests"),
    "elftools": ("guests", "conformance"),
    "cyclopts": ("cli",),
    "rich": ("cli",),
}
# Of doppel itself, and of tests and benchmarks.
MAX_LINES, MAX_TEST_LINES = 600, 700
# Hosts that files may name: of documents, and those reserved for examples (RFC 2606). No mirror, no registry.
HOSTS = re.compile(
    r"www\.apache\.org|www\.w3\.org|127\.0\.0\.1|localhost|host|(?:[\w-]+\.)*(?:example|invalid)",
    re.IGNORECASE,
)
URL = re.compile(r"\b[a-z][a-z0-9+]*://([A-Za-z0-9.-]+)")
BARE_HOST = re.compile(r"(?<![\w.@-])((?:[a-z0-9-]+\.)+(?:org|com))\b(?![\w(.])")


@cache
def modules() -> dict[str, ast.Module]:
    """The syntax trees of doppel's modules by name."""
    trees = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text("utf-8"), str(path))
    return trees


def floor_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a tree imports, wherever it does so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports name the whole module"
            known = modules()
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def module_level(tree: ast.Module) -> Iterator[str]:
    """The modules that are imported when this one is: not those of functions and of type checkers."""
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imports(node)


def test_every_part_has_its_floor() -> None:
    parts = {
        path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert parts - {"__init__"} == set(FLOORS)


def test_the_table_goes_downwards() -> None:
    order = list(FLOORS)
    for floor, below in FLOORS.items():
        assert all(order.index(other) < order.index(floor) for other in below), floor


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_go_downwards(floor: str) -> None:
    wrong = [
        f"{name} imports {other}"
        for name, tree in modules().items()
        if floor_of(name) == floor
        for other in imports(tree)
        if other.split(".")[0] == "doppel" and floor_of(other) not in (floor, *FLOORS[floor])
    ]
    assert not wrong


def test_the_table_has_nothing_to_spare() -> None:
    used: dict[str, set[str]] = {floor: set() for floor in FLOORS}
    for name, tree in modules().items():
        if floor_of(name):
            used[floor_of(name)] |= {
                floor_of(other) for other in imports(tree) if other.startswith("doppel.")
            }
    assert {
        floor: set(below) - used[floor] for floor, below in FLOORS.items() if set(below) - used[floor]
    } == {}


def test_modules_import_in_no_circle() -> None:
    graph = {
        name: {other for other in module_level(tree) if other in modules() and other != name}
        for name, tree in modules().items()
    }
    while graph:
        leaves = [name for name, others in graph.items() if not others & graph.keys()]
        assert leaves, f"these import each other in a circle: {sorted(graph)}"
        for name in leaves:
            del graph[name]


def test_packages_of_others() -> None:
    wrong = []
    for name, tree in modules().items():
        for other in imports(tree):
            package = other.split(".")[0]
            if package == "doppel" or package in sys.stdlib_module_names:
                continue
            if floor_of(name) not in PACKAGES.get(package, ()):
                wrong.append(f"{name} imports {package}")
    assert not wrong


def tracked_files() -> list[Path]:
    """The project's own text files, as git knows them; all of them where there is no git."""
    try:
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
        names = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = [path for folder in ("src", "tests", "docs") for path in (ROOT / folder).rglob("*")]
    return [path for path in names if path.is_file() and path.suffix not in (".png", ".pyc")]


def test_no_file_is_a_heap() -> None:
    lengths = {
        path: len(path.read_text("utf-8").splitlines()) for path in tracked_files() if path.suffix == ".py"
    }
    assert len(lengths) > 100
    limits = {path: MAX_LINES if SOURCE in path.parents else MAX_TEST_LINES for path in lengths}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n >= limits[path]} == {}


def test_no_mirror_is_named() -> None:
    """Where things are downloaded from is the host's configuration or the user's choice."""
    wrong = []
    for path in tracked_files():
        if path.suffix == ".xz":
            continue
        text = path.read_text("utf-8")
        for host in [*URL.findall(text), *BARE_HOST.findall(text)]:
            if not HOSTS.fullmatch(host.rstrip(".")):
                wrong.append(f"{path.relative_to(ROOT)}: {host}")
    assert not wrong
