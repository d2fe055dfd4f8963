"""Importing the user's own modules, such as those that register a condition or a family.

The names are in the field `imports` of a configuration, which a run records: a run that was trained with these
modules is also read with them. Importing a module executes its code. Nothing else that a configuration, a run
or a command line names is executed. Modules within a run directory are refused, so that a run from somebody
else cannot bring code along.
"""

import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from nestnet.text.messages import in_one_line, message_of


def import_modules(names: Iterable[str], run_dirs: Iterable[Path] = ()) -> None:
    """Import modules by their names, from the current folder or from wherever Python finds modules.

    A module that is imported already is not imported again.

    Args:
        names: names of modules, such as `my_module` or `my_package.my_module`.
        run_dirs: run directories that are read. A module that lies within one is not imported.

    Raises:
        ValueError: If a name is malformed, a module is absent or lies within a run directory, or importing it
            fails. The message is one line that names the module.
    """
    names = list(names)
    # Without names, nothing is changed, including the module search path.
    if not names:
        return
    folders = list(run_dirs)
    for name in names:
        is_name = all(part.isidentifier() for part in name.split("."))
        if not is_name or name.endswith(".py"):
            raise ValueError(
                f"imports = {name!r}: it must be the name of a Python module, such as my_module for the file my_module.py"
            )
    with _current_folder_first(folders):
        for name in names:
            _import_module(name, folders)


@contextmanager
def _current_folder_first(run_dirs: list[Path]) -> Iterator[None]:
    """Search for modules in the current folder first within the block, as `python -m` does, and last after it.

    The folder stays in the path because the modules may import others of that folder later. It moves to the
    end because it could hide a module of a library. A current folder that is a run directory, or lies within
    one, is left out.
    """
    folder = os.getcwd()
    # With the run's folder in the path, a file in it could pass for any module that is not imported yet.
    if any(_is_within(folder, run_dir) for run_dir in run_dirs):
        yield
        return
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
        if folder not in sys.path and "" not in sys.path:
            sys.path.append(folder)


def _import_module(name: str, run_dirs: list[Path]) -> None:
    if name in sys.modules:
        return
    # Finding a module imports the packages that contain it, so each of these is checked before it is imported.
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        module = ".".join(parts[:count])
        if module in sys.modules:
            continue
        try:
            spec = find_spec(module)
        except (ImportError, ValueError) as error:
            raise _failed(name, error) from error
        _check_place(name, module, spec, run_dirs)
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            # A script that was meant to be run may call sys.exit.
            raise _failed(name, error) from error


def _check_place(name: str, module: str, spec: ModuleSpec | None, run_dirs: list[Path]) -> None:
    """Refuse a module that is absent, or lies within a run directory."""
    if spec is None and "." not in module and run_dirs:
        # The current folder was left out if it lies within a run directory. The message says so if it has the module.
        spec = PathFinder.find_spec(module, [os.getcwd()])
    if spec is None:
        raise ValueError(
            f"imports = {name!r}: there is no such module in the current folder, {os.getcwd()}, and none is installed; "
            "change to the folder that holds it, or put that folder into PYTHONPATH"
        )
    # A package may have several folders, and one without `__init__.py` has no file of its own.
    for place in [spec.origin, *(spec.submodule_search_locations or [])]:
        for run_dir in run_dirs:
            if place is not None and _is_within(place, run_dir):
                raise ValueError(
                    f"imports = {name!r}: {place} lies within the run directory {run_dir}, and a run must not bring code; "
                    "if you trust it, copy the module to another folder"
                )


def _is_within(path: str, folder: Path) -> bool:
    """Return whether a path lies within a folder, as it is written or once links are followed."""
    # A link within the folder that leads out of it, and one outside that leads into it, are both refused.
    written = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
    return written or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _failed(name: str, error: BaseException) -> ValueError:
    reason = in_one_line(message_of(error))
    return ValueError(f"imports = {name!r}: importing it fails: {type(error).__name__}: {reason}")
