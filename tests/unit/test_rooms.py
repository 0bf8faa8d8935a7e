"""The house as drawn in README: imports run downward, and no two modules share a name."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import kube_nginx_agent

_HOUSE = Path(kube_nginx_agent.__file__).parent
_STOREYS = (
    {"errors", "model", "observation", "__init__"},
    {"node", "net", "config"},
    {"inbox", "notices"},
    {"desired"},
    {"nginx"},
    {"sessions", "intake"},
    {"health"},
    {"report"},
    {"loop"},
    {"cli"},
    {"__main__"},
)
_HEIGHT = {room: height for height, rooms in enumerate(_STOREYS) for room in rooms}


def _modules() -> dict[str, Path]:
    return {
        ".".join(file.relative_to(_HOUSE).with_suffix("").parts): file
        for file in _HOUSE.rglob("*.py")
    }


def _imports(file: Path, modules: dict[str, Path]) -> set[str]:
    """Return the modules of ours that a file imports, at whatever place in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kube_nginx_agent"):
            module = (node.module or "").partition(".")[2]
            for alias in node.names:
                name = f"{module}.{alias.name}" if module else alias.name
                found.add(name if name in modules else module or "__init__")
    return found


def _room(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_has_a_place_in_the_house() -> None:
    assert {_room(module) for module in _modules()} == set(_HEIGHT)


def test_no_import_runs_up() -> None:
    modules = _modules()
    up = [
        f"{module} -> {imported}"
        for module, file in modules.items()
        for imported in _imports(file, modules)
        if _room(imported) != _room(module) and _HEIGHT[_room(imported)] >= _HEIGHT[_room(module)]
    ]
    assert not up


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = _modules()
    left = {module: _imports(file, modules) - {module} for module, file in modules.items()}
    while True:
        bottom = {module for module, imported in left.items() if not imported & left.keys()}
        if not bottom:
            break
        left = {module: imported for module, imported in left.items() if module not in bottom}
    assert not left


def test_no_two_modules_share_a_name() -> None:
    stems = Counter(file.stem for file in _HOUSE.rglob("*.py") if file.stem != "__init__")
    assert [stem for stem, count in stems.items() if count > 1] == []
