"""Finding the inputs of the base's modules in those of the motivated network's, while that network runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from nestnet.nesting.channels import Layout, Location, locate_channels
from nestnet.nesting.plan import Plan, Trace
from nestnet.nesting.row_parts import group_parts
from nestnet.nn.placement import Placement


class Lost(Exception):
    """Stops a network at the first module that gets another input than in the base."""


class Recorder:
    """Finds the inputs of the base's modules in those of the motivated network's, and moves weights to where they read.

    Args:
        base_modules: modules of the base with parameters, by their paths.
        motivated: motivated network.
        plan: weights map.
        trace: what is found is added to it.
        records: inputs of each base module, one for each time that it ran.
        place: function that writes a base parameter to its place in the motivated network.
        stop_when_lost: whether to raise `Lost` at the first module that gets another input than in the base.

    Attributes:
        modules: module of the motivated network that holds each base module, by the base's path.
        is_finite: whether the first input that differs is finite, if there is one.
    """

    def __init__(
        self,
        base_modules: Mapping[str, nn.Module],
        motivated: nn.Module,
        plan: Plan,
        trace: Trace,
        records: Mapping[str, Sequence[Tensor | None]],
        place: Callable[[str, Placement], None],
        *,
        stop_when_lost: bool,
    ) -> None:
        self.base_modules = base_modules
        self.trace = trace
        self.records = records
        self.place = place
        self.stop_when_lost = stop_when_lost
        self.is_finite = True
        # The parameters that each base module owns, and the module that holds them in the motivated network.
        self.owned: dict[str, dict[str, Placement]] = {}
        self.modules: dict[str, nn.Module] = {}
        for base_name, placement in plan.placements.items():
            path, _, name = base_name.rpartition(".")
            if path in base_modules and not placement.private:
                self.owned.setdefault(path, {})[name] = placement
                self.modules[path] = motivated.get_submodule(placement.name.rpartition(".")[0])
        self.followers: dict[str, list[str]] = {}
        for path, followed in plan.followers.items():
            self.followers.setdefault(followed, []).append(path)
        # The layouts that were found, in order.
        self.layouts: dict[Layout, None] = {}
        # A module may run several times.
        self.calls = dict.fromkeys(self.owned, 0)

    def compare(self, path: str, x: Tensor | None) -> None:
        """Look for the base's input in that of the motivated network's module."""
        call = self.calls[path]
        self.calls[path] += 1
        records = self.records.get(path, ())
        if call >= len(records):
            return
        base_x = records[call]
        if x is None or base_x is None:
            self._find(path)
            return
        if self.trace.first_lost is not None:
            # The sizes tell what the modules after the first one read.
            if path not in self.trace.locations and base_x.ndim == x.ndim:
                self._note_sizes(path, base_x, x)
            return
        location = locate_channels(base_x, x, self._likely(path, base_x, x))
        if location is None:
            # Such as channels and tokens, both of which are more. The modules behind tell.
            return
        self.trace.locations.setdefault(path, location)
        if not location.is_found or not self._is_grouped_alike(path, location):
            self._lose(path, x)
            return
        self._find(path)
        if location.layout is not None:
            self.layouts.setdefault(location.layout)
            self._move_columns(path, location.dim, base_x.ndim, location.layout)
        self._move_followers(path, base_x, x, location)

    def _likely(self, path: str, base_x: Tensor, x: Tensor) -> Iterator[Layout]:
        """Yield where the base's channels are likely to be: where the module reads, at the start, and where others were."""
        module = self.modules[path]
        dim = _channel_dim(module, x.ndim)
        base_size, size = base_x.shape[dim], x.shape[dim]
        grouped = self._grouped_layout(path, base_size, size)
        if grouped is not None:
            yield grouped
        yield Layout(tuple(range(base_x.shape[dim])), size)
        yield from self.layouts

    def _find(self, path: str) -> None:
        if self.trace.first_lost is None:
            self.trace.found.add(path)

    def _lose(self, path: str, x: Tensor) -> None:
        self.trace.first_lost = path
        self.trace.found.discard(path)
        self.is_finite = bool(x.isfinite().all())
        if self.stop_when_lost:
            raise Lost

    def _note_sizes(self, path: str, base_x: Tensor, x: Tensor) -> None:
        differing = [dim for dim in range(x.ndim) if base_x.shape[dim] != x.shape[dim]]
        if len(differing) == 1:
            dim = differing[0]
            self.trace.locations[path] = Location(dim, base_x.shape[dim], x.shape[dim], None)

    def _is_grouped_alike(self, path: str, location: Location) -> bool:
        """Return whether the base's channels are the first of each group, if the module is a convolution in groups."""
        module = self.modules[path]
        layout = location.layout
        if not isinstance(module, nn.modules.conv._ConvNd) or module.groups == 1 or layout is None:
            return True
        if _is_depthwise(module) or location.dim != 1:
            return True
        return layout == self._grouped_layout(path, location.base_size, location.size)

    def _grouped_layout(self, path: str, base_size: int, size: int) -> Layout | None:
        """Return where a convolution in groups must find the base's channels; `None` if the module is none."""
        base_groups = getattr(self.base_modules[path], "groups", 1)
        groups = getattr(self.modules[path], "groups", 1)
        if not isinstance(base_groups, int) or not isinstance(groups, int) or groups == 1:
            return None
        parts = group_parts(base_groups, groups, base_size, size)
        return None if parts is None else Layout.of(parts, base_size, size)

    def _move_columns(self, path: str, dim: int, ndim: int, layout: Layout) -> None:
        """Move the base's weights of a module to the columns, or rows, that its input shows."""
        module = self.modules[path]
        for name, placement in self.owned[path].items():
            sizes = _channel_sizes(module, name, placement, dim, ndim)
            if sizes != (layout.base_size, layout.size):
                continue
            if _mixes_channels(module, placement):
                self._move(path, name, replace(placement, column_groups=layout.groups))
            else:
                self._move(path, name, replace(placement, groups=_times(layout, placement).groups))

    def _move_followers(self, path: str, base_x: Tensor, x: Tensor, location: Location) -> None:
        """Give the modules that follow this one the layout of its input."""
        layout = location.layout
        if layout is None:
            dim = _channel_dim(self.modules[path], x.ndim)
            layout = Layout(tuple(range(base_x.shape[dim])), x.shape[dim])
        for follower in self.followers.get(path, ()):
            for name, placement in self.owned[follower].items():
                rows = layout.extended(placement.base_shape[0], placement.shape[0])
                if rows is not None:
                    self._move(follower, name, replace(placement, groups=rows.groups))

    def _move(self, path: str, name: str, placement: Placement) -> None:
        """Move one weight of a module."""
        if placement.is_same_as(self.owned[path][name]):
            return
        self.owned[path][name] = placement
        self.trace.placements[f"{path}.{name}"] = placement
        self.place(f"{path}.{name}", placement)


def _is_depthwise(module: nn.modules.conv._ConvNd) -> bool:
    """Return whether each channel is convolved by itself; each may have several outputs."""
    return module.groups == module.in_channels


def _times(layout: Layout, placement: Placement) -> Layout:
    """Return the layout of rows of which each channel has several, one after the other."""
    count = placement.shape[0] // layout.size
    if count == 1:
        return layout
    positions: list[int] = []
    for position in layout.positions:
        positions += range(count * position, count * (position + 1))
    return Layout(tuple(positions), placement.shape[0])


def _mixes_channels(module: nn.Module, placement: Placement) -> bool:
    """Return whether the columns of a weight are those of the input. Otherwise its rows are, as in a norm."""
    return len(placement.shape) > 1 and getattr(module, "groups", 1) == 1


def _channel_dim(module: nn.Module, ndim: int) -> int:
    """Return the dimension of the channels in an input with `ndim` dimensions."""
    is_last = isinstance(module, (nn.Linear, nn.LayerNorm, nn.RMSNorm)) or ndim <= 2
    return ndim - 1 if is_last else 1


def _channel_sizes(module: nn.Module, name: str, placement: Placement, dim: int, ndim: int) -> tuple[int, int] | None:
    """Return how many channels the weight of a module reads.

    Args:
        module: module of the motivated network that owns the weight.
        name: name of the weight in it.
        placement: placement of the base's weight.
        dim: dimension of the input in which the networks differ.
        ndim: number of dimensions of the input.

    Returns:
        The base's number and that of the motivated network; `None` if the weight does not read the channels one by one.
    """
    # The rows of a transposed convolution are its inputs; the others would not be moved with them.
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return None
    if _mixes_channels(module, placement):
        is_matrix = isinstance(module, (nn.modules.conv._ConvNd, nn.Linear))
        is_read_here = is_matrix and dim == _channel_dim(module, ndim)
        if name != "weight" or not is_read_here:
            return None
        return placement.base_shape[1], placement.shape[1]
    if isinstance(module, nn.modules.conv._ConvNd):
        if not _is_depthwise(module) or dim != 1:
            return None
        count = module.out_channels // module.in_channels
        return placement.base_shape[0] // count, placement.shape[0] // count
    is_norm = len(placement.shape) == 1 and not isinstance(module, nn.Linear)
    return (placement.base_shape[0], placement.shape[0]) if is_norm else None
