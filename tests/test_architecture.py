"""Imports point one way, from the command line down to the network: ARCHITECTURE.md draws the rooms that are listed here."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "nestnet"
ROOMS = """
version; text; runtime; storage; config.schema; nn; models conditions distributed optim; config; device; data; cost weights;
runs; training; recipes deploy verification analysis; tuning paper; cli; __main__
"""
"""From the lowest floor to the highest. A room may import rooms on the floors below its own, and nothing beside or above it."""

FLOORS = {room: floor for floor, rooms in enumerate(ROOMS.split(";")) for room in rooms.split()}
MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))


def imports(module: str) -> list[str]:
    """The modules of the package that a module imports anywhere in it, also inside functions."""
    found = []
    for node in ast.walk(ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "nestnet":
            found += [f"nestnet.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name.removeprefix("nestnet.") for name in found if name.startswith("nestnet.")]


def room(module: str) -> str:
    return "config.schema" if module.startswith("config.schema") else module.partition(".")[0]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__init__"])
def test_imports_point_down(module):
    for other in imports(module):
        is_at_home = room(other) == room(module)
        assert is_at_home or FLOORS[room(other)] < FLOORS[room(module)], f"{module} imports {other}"


def test_reading_images_does_not_import_the_network():
    reached, ahead = set(), [name for name in MODULES if room(name) == "data"]
    while ahead:
        module = ahead.pop()
        reached.add(module)
        ahead += [name for name in imports(module) if name in MODULES and name not in reached]
    assert {"data.image_files", "storage.files"} <= reached
    assert not [name for name in reached if room(name) in ("nn", "models", "optim", "training")]
