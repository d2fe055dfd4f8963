"""The nested network of two plain modules, each of which keeps its own forward pass."""

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from nestnet.nesting.joined_module import JoinedModule, separate_weights, synchronise
from nestnet.nesting.state_loading import BASE, MOTIVATED, Loading
from nestnet.nn.batch_norm import counterpart_name
from nestnet.nn.checkpointing import keep_statistics_when_recomputing
from nestnet.nn.layer_groups import group_weights
from nestnet.nn.mode import Mode, PerMode
from nestnet.nn.model import NestedModel, tensors_of
from nestnet.nn.parameter import NestedParameter, Weight, state_dict_name
from nestnet.nn.placement import Placement, WeightsMap
from nestnet.nn.subnet import is_exempt


class NestedPair(NestedModel):
    """Two plain modules over the same memory, as `nestnet.nest` returns them.

    The base is the author's module, and its parameters are the base blocks. The motivated network is the author's
    module too. Each of its weights that is bigger than the base's is joined from the base block and the blocks around
    it when the module uses it. What the base has of its own, such as BatchNorm statistics, is in state dicts under the
    name of its counterpart with `base_` before its last part.

    Writing to `layer.weight.data` of the motivated network writes to a joined copy, which is then lost. Write to a
    state dict (`net.state_dict()`) or to a subnet's instead. Load a state with `assign=True` into the pair itself: one of
    the two modules alone would get parameters of its own.

    Args:
        base: base network, with parameters of its own.
        motivated: motivated network, whose bigger weights are joined already.
        weights_map: placement of each base tensor.
        skipped: paths of the motivated blocks that base mode skips.
        names: names of the networks, as messages show them.
        num_classes: number of outputs of both networks, if it is known.
        in_chans: number of channels of the images, if it is known.
        timm_options: keyword arguments with which timm builds each network.

    Attributes:
        base: base network.
        motivated: motivated network.
        skipped: paths of the motivated blocks that base mode skips.
    """

    has_family_layers = False

    def __init__(
        self,
        base: nn.Module,
        motivated: nn.Module,
        weights_map: WeightsMap,
        *,
        skipped: Iterable[str] = (),
        names: PerMode[str],
        num_classes: int,
        in_chans: int,
        timm_options: PerMode[dict[str, Any]] | None = None,
    ) -> None:
        options = timm_options or PerMode({}, {})
        super().__init__(names, num_classes=num_classes, in_chans=in_chans, timm_options=options)
        # The motivated network comes first, so that parameters of both are named as its own.
        self.motivated = motivated
        self.base = base
        self.skipped = tuple(skipped)
        self._weights_map = weights_map
        self._loading: Loading | None = None
        # A new module is in training mode, whichever mode its children are in.
        self.training = motivated.training
        self._tie()
        self.register_load_state_dict_post_hook(_after_loading)

    # The interface of a nested model.

    def forward(self, x: Any, mode: Mode | str, *args: Any, **options: Any) -> Any:
        """Return what the network of `mode` returns.

        Args:
            x: input of the network, such as images `[B, in_chans, H, W]`.
            mode: network that runs, `"base"` or `"motivated"`.
            args: further arguments of the network.
            options: further keyword arguments of the network.

        Returns:
            The output of the network, such as logits `[B, K]`.

        Raises:
            ValueError: If `mode` is neither `"base"` nor `"motivated"`.
        """
        if Mode(mode) is Mode.BASE:
            return self.base(x, *args, **options)
        return self.motivated(x, *args, **options)

    def network(self, mode: Mode | str) -> nn.Module:
        """Return the author's module of a mode, over the memory of the nested network.

        Args:
            mode: `"base"` or `"motivated"`.
        """
        return self.base if Mode(mode) is Mode.BASE else self.motivated

    def forward_features(self, x: Any, mode: Mode | str, *args: Any, **options: Any) -> Any:
        return self._method(mode, "forward_features")(x, *args, **options)

    def forward_head(self, x: Any, mode: Mode | str, *args: Any, **options: Any) -> Any:
        return self._method(mode, "forward_head")(x, *args, **options)

    def _method(self, mode: Mode | str, name: str) -> Any:
        network = self.network(mode)
        if not hasattr(network, name):
            raise ValueError(f"{type(network).__name__} has no method {name}; call the network itself")
        return getattr(network, name)

    @property
    def weights_map(self) -> WeightsMap:
        """Placement of each base tensor in the state dict of the network."""
        return self._weights_map

    def stored_tensors(self) -> Iterator[tuple[str, Weight | Tensor]]:
        yield from tensors_of(self.motivated)
        base = dict(tensors_of(self.base))
        for base_name, placement in self._weights_map.items():
            if placement.private:
                yield placement.name, base[base_name]

    def skipped_blocks(self) -> Iterator[str]:
        yield from self.skipped

    def synchronise_batch_norm(self) -> None:
        for module in list(self.modules()):
            if isinstance(module, _BatchNorm):
                synchronise(module)

    def standalone(self, mode: Mode | str) -> nn.Module:
        """Return the network of `mode` as a plain module of the author's class, with its own copy of the weights.

        Args:
            mode: `"base"` or `"motivated"`.

        Returns:
            The module, in training or evaluation mode as the nested network is, with the same parameters frozen.
        """
        # A copy of shared statistics would share the memory of the motivated network's, which is copied with them.
        network = copy.deepcopy(self.network(mode))
        for module in list(network.modules()):
            if isinstance(module, JoinedModule):
                separate_weights(module)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.clone()
        _tie_names(network, self.network(mode))
        return network

    def skeleton(self, mode: Mode | str) -> Any:
        """Return the author's module of `mode`, of which names, shapes and methods may be used, but not its memory.

        Args:
            mode: `"base"` or `"motivated"`.
        """
        return self.network(mode)

    # What timm's optimizer factory asks for, by the names of `named_parameters`.

    def no_weight_decay(self) -> set[str]:
        exempt: set[str] = set()
        if hasattr(self.motivated, "no_weight_decay"):
            # A network that looks through its parameters names blocks.
            exempt = {state_dict_name(name) for name in self._method(Mode.MOTIVATED, "no_weight_decay")()}
        return {name for name, whole_name in self._whole_names().items() if is_exempt(whole_name, exempt)}

    def group_matcher(self, coarse: bool = False) -> Any:
        """Return the number of timm's layer of each parameter, as a function of its name.

        Args:
            coarse: whether a layer is a whole stage instead of a block.

        Returns:
            A function, which timm takes in place of patterns.
        """
        whole_names = self._whole_names()
        layers = group_weights(self.motivated, coarse=coarse)
        return lambda name: layers[whole_names[name]]

    def _whole_names(self) -> dict[str, str]:
        """Return the name of each parameter in the plain motivated network, by its name in `named_parameters`."""
        names = {}
        for name, _ in self.named_parameters():
            if name.startswith(BASE):
                # The base has it for itself alone, beside its counterpart.
                names[name] = counterpart_name(self._weights_map[name.removeprefix(BASE)].name)
            else:
                names[name] = state_dict_name(name).removeprefix(MOTIVATED)
        return names

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Set whether the backward pass computes activations again instead of keeping them, as the networks' authors do it.

        Args:
            enable: whether to do so.

        Raises:
            ValueError: If one of the networks has no method `set_grad_checkpointing`, or refuses it.
        """
        for mode in Mode:
            network = self.network(mode)
            method = getattr(network, "set_grad_checkpointing", None)
            # Networks of timm that cannot do it have the method too, with an assertion.
            try:
                if method is not None:
                    method(enable)
            except AssertionError:
                method = None
            if method is None:
                raise ValueError(
                    f"{self.architectures.of(mode)} cannot compute activations again: it needs a method "
                    "set_grad_checkpointing(), as most of timm's networks have it"
                )
            keep_statistics_when_recomputing(network)

    # One memory: the base's parameters are the base blocks.

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the buffers, as `nn.Module.named_buffers` does, without the base's views of shared statistics."""
        start = f"{prefix}.{BASE}" if prefix else BASE
        views = {start + base_name for base_name, placement in self._weights_map.items() if not placement.private}
        for name, buffer in super().named_buffers(prefix, recurse, remove_duplicate):
            if name not in views:
                yield name, buffer

    def _tie(self) -> None:
        """Make the base's parameters those of the motivated network's blocks, and its shared buffers views of its buffers."""
        motivated = dict(tensors_of(self.motivated))
        for base_name, placement in self._weights_map.items():
            if placement.private:
                continue
            stored = motivated[placement.name]
            path, _, name = base_name.rpartition(".")
            owner = self.base.get_submodule(path)
            if isinstance(stored, NestedParameter):
                # As an attribute: an `nn.LSTM` keeps a list of its parameters, which this brings up to date.
                setattr(owner, name, stored.base)
            elif isinstance(stored, nn.Parameter):
                setattr(owner, name, stored)
            else:
                owner._buffers[name] = stored if placement.is_whole else stored[placement.index]

    def _apply(self, fn: Any, recurse: bool = True) -> "NestedPair":
        # Some conversions, such as to the meta device, make new parameters, module by module.
        super()._apply(fn, recurse)
        self._tie()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A copy of a view is no view.
        self._tie()

    # State dicts: the motivated network's names, and what the base has of its own.

    def state_dict(  # type: ignore[override]  # torch declares it by overloads that no override can repeat
        self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """Return the state with the keys and shapes of the motivated network, and with what the base has of its own.

        Args:
            destination: dictionary to which the entries are added, by default a new one.
            prefix: start of the keys.
            keep_vars: whether the entries stay connected to autograd.

        Returns:
            The dictionary. Joined weights are written through to their blocks: see `nestnet.nn.whole_tensor`.
        """
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()  # where torch keeps versions
        self.motivated.state_dict(destination=destination, prefix=prefix, keep_vars=keep_vars)
        # torch looks up the version of a module by its path.
        if hasattr(destination, "_metadata"):
            for path, module in self.named_modules():
                destination._metadata[(prefix + path).removesuffix(".")] = {"version": module._version}
        base = dict(tensors_of(self.base))
        for base_name, placement in self._weights_map.items():
            if placement.private:
                tensor = base[base_name]
                assert isinstance(tensor, Tensor)
                destination[prefix + placement.name] = tensor if keep_vars else tensor.detach()
        return destination

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Rename the entries of a state to those of the two modules, which torch loads next."""
        *_, error_messages = args
        self._loading = Loading(prefix, error_messages)
        state = {name.removeprefix(prefix): state_dict.pop(name) for name in _names_below(state_dict, prefix)}
        private_names = self._weights_map.private_names()
        for name, tensor in state.items():
            if name not in private_names:
                state_dict[f"{prefix}{MOTIVATED}{name}"] = tensor
        # What both networks have is loaded into the motivated one, and what the base has of its own into the base.
        has_private = any(name in private_names for name in state)
        for name, base_name in private_names.items():
            own = state.get(name) if has_private else self._start_of_own(base_name, state)
            if own is not None:
                state_dict[f"{prefix}{BASE}{base_name}"] = own
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _start_of_own(self, base_name: str, state: Mapping[str, Tensor]) -> Tensor | None:
        """Return what a tensor of the base's own gets from a state that has none of them, such as that of a plain network.

        Args:
            base_name: name of the tensor in the base.
            state: state with the names of the motivated network.

        Returns:
            The first entries of the motivated network's counterpart; the present value where there is none; `None` if
            the state lacks it.
        """
        counterpart = self._counterpart(self._weights_map[base_name])
        if counterpart is None:
            return dict(tensors_of(self.base))[base_name]  # type: ignore[return-value]  # it is no nested parameter
        whole = state.get(counterpart.name)
        # A tensor of another shape is reported by the motivated network.
        if whole is None or tuple(whole.shape) != counterpart.shape:
            return None
        # With `assign=True` the base's tensors become these, which must not share memory.
        return whole[counterpart.index].clone()

    def _counterpart(self, private: Placement) -> Placement | None:
        """Return where the motivated network has what the base has of its own, with its first entries; `None` if nowhere."""
        name = counterpart_name(private.name)
        path, _, local_name = name.rpartition(".")
        owner = dict(self.motivated.named_modules()).get(path)
        if owner is None:
            return None
        whole = dict(tensors_of(owner)).get(local_name)
        if not isinstance(whole, Tensor) or whole.ndim != len(private.shape):
            return None
        shape = tuple(whole.shape)
        # The entries of any other table, such as an index of positions, are not by channels.
        if shape != private.shape and not isinstance(owner, _NormBase):
            return None
        groups = self._channel_groups.get(path, 1)
        return Placement(name, shape, private.shape, groups if private.shape else 1)

    @property
    def _channel_groups(self) -> Mapping[str, Any]:
        """Groups of the rows of the weight or scale of each motivated module, by its path."""
        groups = {}
        for placement in self._weights_map.values():
            path, _, name = placement.name.rpartition(".")
            if name == "weight" and not placement.private:
                groups[path] = placement.groups
        return groups

    def __repr__(self) -> str:
        return f"{self.motivated!r}\n{self._describe_sizes()}\n{self._describe_weights_map()}"


def _names_below(state_dict: Mapping[str, Any], prefix: str) -> list[str]:
    return [name for name in state_dict if name.startswith(prefix)]


def _after_loading(net: nn.Module, keys: Any) -> None:
    """Tie the two modules again, and give what torch reports the names that the caller knows."""
    assert isinstance(net, NestedPair)
    assert net._loading is not None
    # With `assign=True` the modules have new parameters.
    net._tie()
    net._loading.rename_reports(keys, net.weights_map)
    net._loading = None


def _tie_names(network: nn.Module, original: nn.Module) -> None:
    """Give a copied network one parameter for all the names that stand for one weight in the original."""
    first_names: dict[int, str] = {}
    for name, stored in tensors_of(original):
        first_name = first_names.setdefault(id(stored), name)
        if first_name != name and not isinstance(stored, Tensor):
            path, _, attribute = name.rpartition(".")
            first_path, _, first_attribute = first_name.rpartition(".")
            shared = getattr(network.get_submodule(first_path), first_attribute)
            setattr(network.get_submodule(path), attribute, shared)
