"""Examples and pages register conditions, architectures, trackers and timm models; a test leaves none of them behind."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import timm.models._registry as timm_registry

from nestnet.conditions.registry import CONDITIONS
from nestnet.models.own_networks import OWN_NETWORKS
from nestnet.models.registry import ARCHITECTURES
from nestnet.trackers.registry import TRACKERS


@contextmanager
def forgotten() -> Iterator[None]:
    """Within, anything may be registered and imported from `examples/`; afterwards it is as if it had not been."""
    registries = (ARCHITECTURES, OWN_NETWORKS, CONDITIONS, TRACKERS, timm_registry._model_entrypoints)
    before, modules = [registry.copy() for registry in registries], set(sys.modules)
    try:
        yield
    finally:
        for registry, content in zip(registries, before, strict=True):
            registry.clear()
            registry.update(content)
        for name in ("own_cnn", "own_condition", "own_family", "plain_net"):
            if name not in modules:
                sys.modules.pop(name, None)
