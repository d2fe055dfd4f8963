"""Functions that are called as soon as a module of another library has been imported."""

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def call_after_import(module: str, function: Callable[[], object]) -> None:
    """Call a function right after a module's first import, or now where the module has been imported already.

    Args:
        module: name of a module without a dot, such as `"timm"`.
        function: function without arguments. Its errors are raised by the statement that imports the module.
    """
    if module in sys.modules:
        function()
    else:
        sys.meta_path.insert(0, _Finder(module, function))


class _Finder(importlib.abc.MetaPathFinder):
    """A finder that finds one module as the other finders do, and makes its loader call a function afterwards."""

    def __init__(self, module: str, function: Callable[[], object]) -> None:
        self.module = module
        self.function = function

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        # A module that is found need not be imported, so this finder stays until it is.
        # The other finders are tried in turn, as the import system does.
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is None:
                continue
            # A namespace package has no loader, and nothing to execute.
            if spec.loader is not None:
                spec.loader = _Loader(spec.loader, self)
            return spec
        return None


class _Loader(importlib.abc.Loader):
    """A loader that loads a module with the module's own loader, and calls the function of a finder afterwards."""

    def __init__(self, loader: importlib.abc.Loader, finder: _Finder) -> None:
        self.loader = loader
        self.finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Code that reads the module's source or data files through `__loader__` needs its own loader.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        # A failed import raises above, so that the finder stays for another try.
        if self.finder in sys.meta_path:
            sys.meta_path.remove(self.finder)
        self.finder.function()
