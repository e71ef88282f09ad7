"""The layout: two links, one namespace, and which part may import which."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgelstm

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("edgelstm", "converters", "profiles")


def _modules(folder: Path) -> list[Path]:
    # The links inside edgelstm/ lead to the other parts, which are looked at on their own.
    inside_links = {folder / "converters", folder / "profiles"}
    return [path for path in folder.rglob("*.py") if not inside_links & set(path.parents)]


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", ["converters", "profiles"])
def test_links_in_the_package_reach_the_top_level_folders(name: str) -> None:
    """The package holds relative links, so that a clone anywhere is whole."""
    link = ROOT / "edgelstm" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    assert link.resolve() == ROOT / name


@pytest.mark.parametrize("name", ["edgelstm.converters", "edgelstm.profiles", "edgelstm.runtime"])
def test_the_parts_import_as_one_namespace(name: str) -> None:
    """The parts stand beside each other in whatever package was imported."""
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).parent.parent == Path(edgelstm.__file__).parent


def test_the_top_level_holds_nothing_else() -> None:
    """Apart from dot-files and what tools leave, the top level is fixed."""
    fixed = {"pyproject.toml", "README.md", *PARTS, "tests"}
    left_by_tools = {"build", "dist"}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    found = {name for name in found if not name.endswith(".egg-info") and name != "__pycache__"}
    assert found - left_by_tools == fixed


FORBIDDEN = [
    (
        "edgelstm/runtime",
        r"edgelstm\.(converters|profiles|demo|cli)|tensorflow|keras|tf_keras|rich",
    ),
    ("converters", r"edgelstm\.(profiles|demo|cli)|converters|profiles"),
    ("profiles", r"edgelstm\.(converters|demo|cli)|converters|profiles|tensorflow|keras|tf_keras"),
    ("edgelstm", r"converters|profiles"),
]


@pytest.mark.parametrize(("folder", "pattern"), FORBIDDEN, ids=[f for f, _ in FORBIDDEN])
def test_arrows_between_the_parts_point_one_way(folder: str, pattern: str) -> None:
    """No module imports what stands above it, nor a part by its folder's own name."""
    forbidden = re.compile(rf"({pattern})(\..*)?")
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _modules(ROOT / folder)
        for name in _imports(path)
        if forbidden.fullmatch(name)
    ]
    assert found == []


def test_modules_stay_small() -> None:
    """No module of the package is longer than 500 lines, and the command line than 300."""
    limits = {ROOT / "edgelstm" / "cli.py": 300}
    too_long = [
        str(path.relative_to(ROOT))
        for part in PARTS
        for path in _modules(ROOT / part)
        if len(path.read_text(encoding="utf-8").splitlines()) > limits.get(path, 500)
    ]
    assert too_long == []
