"""Loading of the state of a pair: what torch reports about the two modules, by the names of the state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nestnet.nn.placement import Placement

MOTIVATED = "motivated."
"""Start of the names in the motivated module of a pair."""

BASE = "base."
"""Start of the names in the base module of a pair."""


@dataclass(frozen=True)
class Loading:
    """What a pair remembers of a state while torch loads it into the two modules.

    Attributes:
        prefix: start of the pair's names, where it is a part of another module.
        error_messages: torch's list of errors, which is changed in place.
    """

    prefix: str
    error_messages: list[str]

    def rename_reports(self, keys: Any, weights_map: Mapping[str, Placement]) -> None:
        """Give missing and unexpected keys, and errors, the names that the caller knows, in place.

        Args:
            keys: missing and unexpected keys, as torch's hook after loading gets them.
            weights_map: placement of each base tensor.
        """
        missing = []
        for name in keys.missing_keys:
            base_name = name.removeprefix(self.prefix + BASE)
            if base_name == name:
                missing.append(self._known_name(name))
            elif weights_map[base_name].private:
                missing.append(self.prefix + weights_map[base_name].name)
            # All others are loaded into the motivated network.
        keys.missing_keys[:] = missing
        keys.unexpected_keys[:] = [self._known_name(name) for name in keys.unexpected_keys]
        for index, message in enumerate(self.error_messages):
            self.error_messages[index] = self._renamed(message, weights_map)

    def _known_name(self, name: str) -> str:
        """Return a name as the caller knows it: without that of the module in the pair."""
        if name.startswith(self.prefix + MOTIVATED):
            return self.prefix + name.removeprefix(self.prefix + MOTIVATED)
        return name

    def _renamed(self, message: str, weights_map: Mapping[str, Placement]) -> str:
        """Return an error of torch about a tensor of one of the two modules, with the tensor's name in the state."""
        for base_name, placement in weights_map.items():
            message = message.replace(f" {self.prefix}{BASE}{base_name}:", f" {self.prefix}{placement.name}:")
        return message.replace(f" {self.prefix}{MOTIVATED}", f" {self.prefix}")
