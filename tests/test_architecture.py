"""Imports point one way, from the command line down to the network: ARCHITECTURE.md draws the rooms that are listed here."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent.parent / "nestnet"
ROOMS = """
version; text; runtime; storage; config.schema; nn; nesting; models conditions distributed optim trackers; config precision;
device; data step; cost weights; runs; training; planning recipes deploy verification analysis; tuning paper cascade; cli;
__main__
"""
"""From the lowest floor to the highest. A room may import rooms on the floors below its own, and nothing beside or above it."""

FLOORS = {room: floor for floor, rooms in enumerate(ROOMS.split(";")) for room in rooms.split()}
MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))
SCHEMA = [name for name in MODULES if name.startswith("config.schema")] + ["config.data_sets"]
OTHER_FLAGS = ("--help", "--nproc-per-node", "--shm-size")
"""Flags that messages outside the command line may name: those of other programs, and the one that every command has."""


class Contents(NamedTuple):
    """What the tests ask of a module."""

    imports: list[str]
    imports_at_run_time: list[str]
    """Without those in `if TYPE_CHECKING`."""
    texts: list[str]
    writes: bool


@cache
def read(module: str) -> Contents:
    """Parse a module once for all tests, and keep no tree, which has thousands of objects."""
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())
    nodes = list(ast.walk(tree))
    return Contents(
        imports=imports(module, nodes),
        imports_at_run_time=imports(module, nodes_at_run_time(tree)),
        texts=texts(nodes),
        writes=any(map(is_output, nodes)),
    )


def nodes_at_run_time(tree: ast.Module) -> list[ast.AST]:
    """The nodes of a tree without those that only a type checker reads."""
    found = []
    ahead: list[ast.AST] = [tree]
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        found.append(node)
        ahead += ast.iter_child_nodes(node)
    return found


def imports(module: str, nodes: list[ast.AST]) -> list[str]:
    """The modules of the package that nodes of a module import, also inside functions."""
    found = []
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            # A name may be a module of its own.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in names if name.removeprefix("nestnet.") in MODULES]
            found += modules or [node.module]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name.removeprefix("nestnet.") for name in found if name.startswith("nestnet.")]


def texts(nodes: list[ast.AST]) -> list[str]:
    """The string constants among the nodes of a module, without those that are statements of their own: docstrings."""
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
    constants = [node for node in nodes if isinstance(node, ast.Constant) and node not in docstrings]
    return [node.value for node in constants if isinstance(node.value, str)]


def is_output(node: ast.AST) -> bool:
    """Whether code prints, or takes one of the streams to write to."""
    if isinstance(node, ast.Name):
        return node.id == "print"
    return isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr", "__stdout__", "__stderr__")


def room(module: str) -> str:
    return "config.schema" if module in SCHEMA else module.partition(".")[0]


def test_imports_point_down():
    pairs = [(module, other) for module in MODULES if module != "__init__" for other in read(module).imports]
    upwards = [
        f"{module} imports {other}"
        for module, other in pairs
        if room(other) != room(module) and FLOORS[room(other)] >= FLOORS[room(module)]
    ]
    assert not upwards


def test_every_room_is_on_the_map():
    """A row of the map begins with the floor, or nothing on the same floor, and the name of the room."""
    table = (PACKAGE.parent / "ARCHITECTURE.md").read_text()
    rooms = {name for name in FLOORS if (PACKAGE / name).is_dir()}
    assert set(re.findall(r"^\| \d* ?\| `(\w+)/` \|", table, re.MULTILINE)) == rooms


def test_no_modules_import_each_other():
    """What only a type checker reads is no import: the parts of a trainer name the trainer's type."""
    graph = {module: set(read(module).imports_at_run_time) & set(MODULES) for module in MODULES}
    TopologicalSorter(graph).prepare()  # it raises CycleError, which names the modules of a circle


def test_the_schema_imports_nothing_but_itself():
    pairs = [(module, other) for module in SCHEMA for other in read(module).imports]
    assert not [f"{module} imports {other}" for module, other in pairs if other not in SCHEMA]


def test_only_the_command_line_names_its_flags():
    """Everywhere else a message names a field, or writes a command with `nestnet.text.commands.format_command`."""
    # The files that read the flags, and a style sheet, whose variables look like them.
    others = ("config.parsing", "config.parse_errors", "analysis.report.page_template")
    flags = [
        (module, flag)
        for module in MODULES
        if room(module) != "cli" and module not in others
        for text in read(module).texts
        for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", text)
    ]
    assert {flag for _, flag in flags} >= set(OTHER_FLAGS), "those that are let through are still there"
    assert not [(module, flag) for module, flag in flags if flag not in OTHER_FLAGS]


def test_reading_images_does_not_import_the_network():
    reached, ahead = set(), [name for name in MODULES if room(name) == "data"]
    while ahead:
        module = ahead.pop()
        reached.add(module)
        ahead += [name for name in read(module).imports if name in MODULES and name not in reached]
    assert {"data.image_files", "storage.opening"} <= reached
    assert not [name for name in reached if room(name) in ("nn", "models", "optim", "step", "training")]


def test_the_library_never_prints():
    """It returns, raises or logs. The command line prints, and so does the progress display, through rich."""
    writing = [module for module in MODULES if read(module).writes]
    assert writing, "the command line does"
    assert not [module for module in writing if room(module) != "cli"]
