"""Every reason for which two networks do not nest, in the words of the message; and refused networks stay as they are."""

import copy
import re

import pytest
import torch
from pairs import MLP, PAIRS, OwnCNN
from torch import nn

import nestnet
from nestnet import Placement
from nestnet.nesting.misfits import REPORTED_MISFITS, MisfitError


def refused(base, motivated, **options):
    """The reasons for which two networks are refused, and the check that neither is changed."""
    before = [state_of(network) for network in (base, motivated)]
    with pytest.raises(MisfitError) as caught:
        nestnet.nest(base, motivated, **options)
    for network, (modules, tensors, values) in zip((base, motivated), before, strict=True):
        assert [(path, type(module)) for path, module in network.named_modules()] == modules
        found = dict([*network.named_parameters(), *network.named_buffers()])
        assert all(found[name] is tensor for name, tensor in tensors.items())
        assert all(torch.equal(found[name], value) for name, value in values.items())
    names, _, reasons = str(caught.value).partition(" do not nest: ")
    assert names == f"{type(base).__name__} in {type(motivated).__name__}" or "_" in names
    assert "\n" not in reasons
    return reasons.split("; ")


def state_of(network):
    modules = [(path, type(module)) for path, module in network.named_modules()]
    tensors = {
        name: tensor
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]
        if not nn.parameter.is_lazy(tensor)
    }
    return modules, tensors, {name: tensor.detach().clone() for name, tensor in tensors.items()}


def sequential(*layers):
    return nn.Sequential(*layers)


def test_all_misfits_are_reported_at_once_with_names_and_both_shapes():
    assert refused(MLP(6), MLP(4)) == [
        "fc1.weight [6, 8] does not fit in fc1.weight [4, 8]: the base is bigger in a dimension",
        "fc1.bias [6] does not fit in fc1.bias [4]: the base is bigger in a dimension",
        "fc2.weight [5, 6] does not fit in fc2.weight [5, 4]: the base is bigger in a dimension",
    ]


def test_of_many_misfits_the_first_ones_are_reported_and_counted():
    layers = [[nn.Linear(3, width) for _ in range(30)] for width in (4, 3)]
    base, motivated = (sequential(*of_one) for of_one in layers)
    reasons = refused(base, motivated)
    assert len(reasons) == REPORTED_MISFITS + 1
    assert reasons[-1] == f"and {60 - REPORTED_MISFITS} more"
    with pytest.raises(MisfitError) as caught:
        nestnet.nest(base, motivated)
    assert len(caught.value.misfits) == 60


class Branch(nn.Module):
    def __init__(self, name, layer):
        super().__init__()
        self.add_module(name, layer)

    def forward(self, x):
        return next(self.children())(x)


class Scaled(nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        for name, shape in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.ones(shape)))

    def forward(self, x):
        return sum(parameter.sum() for parameter in self.parameters()) * x


SHAPES = [
    (
        Branch("small", nn.Linear(3, 4)),
        Branch("big", nn.Linear(3, 6)),
        ["the base: small (Linear) has no counterpart in the motivated network"],
    ),
    (
        Branch("a", nn.Linear(3, 4, bias=True)),
        Branch("a", nn.Linear(3, 6, bias=False)),
        ["a.bias [4] has no counterpart in the motivated network"],
    ),
    (
        sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4)),
        sequential(nn.Linear(3, 6), nn.Linear(6, 4)),
        ["the base: *: 3 blocks in the base, and 2 in the motivated network"],
    ),
    (
        Branch("a", nn.Conv2d(3, 4, 3)),
        Branch("a", nn.Linear(3, 4)),
        ["a is a Conv2d, and a a Linear"],
    ),
    (
        Branch("a", nn.Conv2d(3, 4, 3)),
        Branch("a", nn.Conv2d(3, 6, 5)),
        ["a.weight [4, 3, 3, 3] does not fit in a.weight [6, 3, 5, 5]: the kernels have different sizes"],
    ),
    (
        Branch("a", nn.Conv2d(3, 4, 3, stride=2)),
        Branch("a", nn.Conv2d(3, 6, 3)),
        ["a.stride is (2, 2) in the base, and (1, 1) at a of the motivated network"],
    ),
    (
        Branch("a", nn.BatchNorm2d(4, track_running_stats=True)),
        Branch("a", nn.BatchNorm2d(6, track_running_stats=False)),
        ["a.track_running_stats is True in the base, and False at a of the motivated network"],
    ),
    (
        Branch("a", nn.Bilinear(2, 2, 3)),
        Branch("a", nn.Bilinear(4, 4, 3)),
        [
            "a.weight [3, 2, 2] does not fit in a.weight [3, 4, 4]: the sizes may differ in the first and in one further "
            "dimension"
        ],
    ),
    (
        Scaled(scale=(2, 2)),
        Scaled(scale=(2,)),
        ["scale [2, 2] does not fit in scale [2]: both need the same number of dimensions"],
    ),
    (
        Scaled(pos_embed=(1, 4, 6)),
        Scaled(pos_embed=(1, 9, 6)),
        [
            "pos_embed [1, 4, 6] does not fit in pos_embed [1, 9, 6]: they are for different numbers of positions",
            "build both networks for the same image size",
        ],
    ),
]


@pytest.mark.parametrize(("base", "motivated", "reasons"), SHAPES, ids=[case[2][0][:40] for case in SHAPES])
def test_shapes_and_settings_that_do_not_fit(base, motivated, reasons):
    found = refused(base, motivated)
    for reason in reasons:
        assert reason in found


def test_heads_of_other_widths():
    pair = PAIRS["deit3"]
    reasons = refused(pair.base(num_heads=4), pair.motivated())
    for base_block, block in ((0, 0), (1, 2)):
        reason = f"blocks.{base_block}.attn has heads of 4 entries, and blocks.{block}.attn of 8"
        assert f"{reason}: heads nest only if they have the same width" in reasons


def test_other_numbers_of_classes():
    base = PAIRS["deit3"].base()
    base.reset_classifier(4)
    assert refused(base, PAIRS["deit3"].motivated())[:2] == [
        "the base has 4 outputs, and the motivated network 5",
        "make both with the same num_classes",
    ]


# Networks that cannot be divided, whatever their shapes are


class Shared(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = self.first

    def forward(self, x):
        return self.second(self.first(x))


class Hidden(nn.Module):
    def __init__(self, kind, width=4):
        super().__init__()
        self.fc = nn.Linear(8, width)
        scale = nn.Parameter(torch.ones(width))
        if kind == "list":
            self.scales = [scale]
        elif kind == "dictionary":
            self.scales = {"a": scale}
        elif kind == "attribute":
            self.__dict__["scales"] = scale
        else:
            self.layers = (nn.Linear(width, width),)

    def forward(self, x):
        return self.fc(x)


class WithExtraState(nn.Linear):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state): ...


SHARED = "shared.second of the base is the same module as shared.first"


def test_shared_submodules_are_refused_by_name():
    reasons = refused(Branch("shared", Shared(4)), Branch("shared", Shared(6)))
    assert reasons == [
        SHARED,
        "make two, with tied weights if need be",
        SHARED.replace("the base", "the motivated network"),
        "make two, with tied weights if need be",
    ]


@pytest.mark.parametrize("kind", ["list", "dictionary", "attribute"])
def test_hidden_parameters_are_refused_by_name(kind):
    reasons = refused(Branch("part", Hidden(kind)), Branch("part", Hidden(kind, 6)))
    assert reasons == [
        "part of the base has a parameter in scales that torch does not know",
        "register it",
        "part of the motivated network has a parameter in scales that torch does not know",
        "register it",
    ]


def test_hidden_modules_are_refused_by_name():
    reasons = refused(Hidden("module"), Hidden("module", 6))
    assert reasons[0] == "Hidden of the base has a module in layers that torch does not know"
    assert reasons[1] == "register it, as in an nn.ModuleList"


def test_references_to_registered_modules_are_not_hidden():
    networks = [MLP(4), MLP(6)]
    for network in networks:
        network.__dict__["parts"] = [network.fc1]
    assert nestnet.nest(*networks)


def test_lazy_modules_are_refused_by_name():
    reasons = refused(sequential(nn.LazyLinear(4)), sequential(nn.Linear(3, 6)))
    assert reasons[0] == "weight at 0 of the base has no shape yet"
    assert reasons[1] == "run one batch before nesting"


def test_the_same_object_or_parts_of_it_are_refused():
    network = MLP(4)
    assert refused(network, network) == ["base and motivated are the same object", "make two"]
    other = MLP(4)
    other.fc1 = network.fc1
    assert refused(network, other)[0] == "fc1 of the motivated network is the same module as the base's"
    other = MLP(4)
    other.fc2.weight = network.fc2.weight
    assert refused(network, other)[0] == "fc2 of the motivated network has a parameter of the base"


def test_networks_that_are_nested_already_are_refused():
    net = nestnet.nest(MLP(4), MLP(6))
    for base, motivated, which in (
        (MLP(4), net, "NestedPair of the motivated network"),
        (net, MLP(8), "NestedPair of the base"),
        (MLP(4), net.motivated, "fc1 of the motivated network"),
    ):
        with pytest.raises(MisfitError, match=f"{which} is part of a nested network already; nest new modules"):
            nestnet.nest(base, motivated)
    for base, motivated in ((net.base, MLP(8)), (MLP(3), net.base)):
        with pytest.raises(MisfitError, match="is the base of a nested network already; nest a copy of it"):
            nestnet.nest(base, motivated)
    assert nestnet.nest(copy.deepcopy(net.base), MLP(8)).base.fc1.weight is not net.base.fc1.weight
    elastic = nestnet.create_model("resnet8", "resnet14", num_classes=5)
    with pytest.raises(MisfitError, match="is part of a nested network already"):
        nestnet.nest(elastic, MLP(8))


class Tied(nn.Module):
    def __init__(self, width, *, tied):
        super().__init__()
        self.first = nn.Linear(width, width, bias=False)
        self.second = nn.Linear(width, width, bias=False)
        if tied:
            self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


def test_weights_that_are_tied_in_one_network_alone_are_refused():
    reasons = refused(Tied(4, tied=True), Tied(6, tied=False))
    assert reasons == ["second.weight is tied to first.weight in the base alone", "tie them in both networks"]
    reasons = refused(Tied(4, tied=False), Tied(6, tied=True))
    assert reasons[0] == "second.weight is tied to first.weight in the motivated network alone"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda width: sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, width))),
            "0 of the base computes weight by a parametrization",
        ),
        (
            lambda width: sequential(WithExtraState(3, width)),
            "0 of the base has extra state (get_extra_state)",
        ),
        (
            lambda width: sequential(nn.Embedding(3, width, max_norm=1.0)),
            "0 of the base writes to its weight (max_norm), which is joined from blocks",
        ),
        (
            lambda width: sequential(nn.Embedding(3, width, sparse=True)),
            "0 of the base has sparse gradients, which cannot be divided",
        ),
        (lambda width: sequential(nn.Flatten()), "the base has no parameters, so that there is nothing to share"),
    ],
)
def test_modules_whose_weights_cannot_be_divided_are_refused_by_name(make, reason):
    assert refused(make(4), make(6))[0] == reason


def test_networks_of_other_types_or_devices_are_refused():
    reasons = refused(MLP(4), MLP(6).double())
    assert reasons == [
        "the base is torch.float32 on cpu, and the motivated network torch.float64 on cpu",
        "convert one of them with to()",
    ]
    with pytest.raises(
        MisfitError, match=r"the base is torch\.float32 on cpu, and the motivated .* torch\.float32 on meta"
    ):
        nestnet.nest(MLP(4), MLP(6).to("meta"))


def test_what_is_unsupported_and_what_does_not_fit_are_reported_together():
    base, motivated = Branch("part", Hidden("list", 6)), Branch("part", Hidden("list", 4))
    reasons = refused(base, motivated)
    assert "part of the base has a parameter in scales that torch does not know" in reasons
    assert "part.fc.weight [6, 8] does not fit in part.fc.weight [4, 8]: the base is bigger in a dimension" in reasons


def test_statistics_that_cannot_be_shared_are_refused():
    class Halves(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv = nn.Conv2d(3, 2 * width, 1)
            self.norm = nn.BatchNorm2d(2 * width)
            self.head = nn.Linear(width, 2)

        def forward(self, x):
            first, second = self.norm(self.conv(x)).chunk(2, 1)
            return self.head((first * second).mean((2, 3)))

    groups = {r"^(conv|norm)\.": (2, 1)}
    assert nestnet.nest(Halves(2), Halves(3), groups=groups)
    reasons = refused(Halves(2), Halves(3), groups=groups, batch_norm="shared")
    assert reasons == [
        f"norm.{name}: the base's channels are in groups, so that it cannot share statistics"
        for name in ("running_mean", "running_var", "num_batches_tracked")
    ]


def test_a_name_for_what_the_base_has_of_its_own_that_is_taken():
    class Named(nn.Linear):
        def __init__(self, width):
            super().__init__(3, width)
            self.register_buffer("shift", torch.zeros(1))
            self.register_buffer("base_shift", torch.zeros(1))

    reasons = refused(sequential(Named(4)), sequential(Named(6)))
    assert reasons == ["0.shift [1]: the motivated network has another 0.base_shift already", "rename one"]


# Wrong arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth_map": "middle"}, "depth_map = 'middle': it must be one of"),
        ({"batch_norm": "none"}, "batch_norm = 'none': it must be one of private, shared, separate"),
        ({"groups": {"(": (1, 1)}}, "groups: '(' is no regular expression"),
        ({"groups": {"fc1": 3}}, "groups: 'fc1' has 3; it must be the groups of rows and of columns, such as (3, 1)"),
        ({"groups": {"fc3": (2, 1)}}, "groups: 'fc3' matches no weight of the base"),
        (
            {"groups": {"fc1": (3, 1)}},
            "fc1.weight [4, 8] in fc1.weight [6, 8]: 3 equal parts of 4 in 6 entries; fc1.bias [4] in fc1.bias [6]: 3 equal",
        ),
        (
            {"groups": {"fc1": (((1, 2), (2, 4)), 1)}},
            "fc1.weight [4, 8] in fc1.weight [6, 8]: parts ((1, 2), (2, 4)) of 4 in 6 entries",
        ),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        nestnet.nest(MLP(4), MLP(6), **options)


def test_other_things_than_modules_are_refused():
    with pytest.raises(ValueError, match=re.escape("base = 'resnet20': it must be an nn.Module; nestnet.create_model")):
        nestnet.nest("resnet20", MLP(4))
    with pytest.raises(ValueError, match=r"motivated = None: it must be an nn\.Module"):
        nestnet.nest(MLP(4), None)


RIGHT = {
    "fc1.weight": Placement("fc1.weight", (6, 8), (4, 8)),
    "fc1.bias": Placement("fc1.bias", (6,), (4,)),
    "fc2.weight": Placement("fc2.weight", (5, 6), (5, 4)),
    "fc2.bias": Placement("fc2.bias", (5,), (5,)),
}


@pytest.mark.parametrize(
    ("name", "placement", "reason"),
    [
        ("fc1.bias", None, "fc1.bias [4]: it is not in weights_map"),
        ("fc1.bias", Placement("fc3.bias", (6,), (4,)), "fc1.bias [4]: the motivated network has no fc3.bias"),
        ("fc1.bias", Placement("fc1.bias", (7,), (4,)), "fc1.bias [4]: fc1.bias is [6], not [7]"),
        ("fc1.bias", Placement("fc1.bias", (6,), (3,)), "fc1.bias [4]: weights_map says [3]"),
        ("fc1.weight", Placement("fc1.bias", (6,), (4, 8)), "fc1.weight [4, 8]: it does not fit in fc1.bias [6]"),
        (
            "fc2.weight",
            Placement("fc1.weight", (6, 8), (5, 4), 2),
            "in fc1.weight [6, 8]: 2 equal parts of 5 in 6 entries",
        ),
        ("fc9.bias", Placement("fc1.bias", (6,), (4,)), "weights_map has fc9.bias, which the base does not have"),
    ],
)
def test_wrong_weights_maps_are_refused(name, placement, reason):
    weights_map = {**RIGHT, name: placement}
    if placement is None:
        del weights_map[name]
    assert any(reason in found for found in refused(MLP(4), MLP(6), weights_map=weights_map))


def test_a_weights_map_of_one_s_own_is_taken():
    net = nestnet.nest(MLP(4), MLP(6), weights_map=RIGHT)
    assert dict(net.weights_map) == RIGHT
    again = nestnet.nest(MLP(4), MLP(6), weights_map=net.weights_map)
    assert dict(again.weights_map) == RIGHT
    # The map of another pair has buffers too, and blocks that base mode skips.
    pair = nestnet.nest(OwnCNN(4, 2), OwnCNN(6, 3))
    again = nestnet.nest(OwnCNN(4, 2), OwnCNN(6, 3), weights_map=pair.weights_map)
    assert dict(again.weights_map) == dict(pair.weights_map)
    assert again.skipped == pair.skipped == ("blocks.1",)


# Pairs that fit and do not line up


class Spread(nn.Module):
    """A network that divides by the sum of all channels, with code of its own that the check does not know."""

    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(8, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = self.inner(x).exp()
        return self.head(x / x.sum(1, keepdim=True))


def test_a_pair_that_computes_something_else_is_refused_with_the_first_module_that_differs():
    (first, *_) = refused(Spread(4), Spread(6))
    assert first.startswith("head gets something else in the motivated network than in the base")
    net = nestnet.nest(Spread(4), Spread(6), check=False)
    with pytest.raises(ValueError, match="Spread in Spread: head gets something else in the motivated network"):
        nestnet.verify_nesting(net, torch.randn(2, 8))


class Halves(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(8, 2 * width)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        first, second = self.inner(x).chunk(2, 1)
        return self.head(first * second.sigmoid())


def test_halves_that_do_not_line_up_are_refused_with_the_groups_that_do():
    """Where the map is given. Without one, the halves are found."""
    first_rows = {
        "inner.weight": Placement("inner.weight", (12, 8), (8, 8)),
        "inner.bias": Placement("inner.bias", (12,), (8,)),
        "head.weight": Placement("head.weight", (3, 6), (3, 4)),
        "head.bias": Placement("head.bias", (3,), (3,)),
    }
    assert refused(Halves(4), Halves(6), weights_map=first_rows) == [
        "inner.weight [8, 8]: weights_map has it at inner.weight[:8, :8], and it belongs at inner.weight[:2 x 4, :8]",
        "inner.bias [8]: weights_map has it at inner.bias[:8], and it belongs at inner.bias[:2 x 4]",
    ]
    unchecked = nestnet.nest(Halves(4), Halves(6), weights_map=first_rows, check=False)
    with pytest.raises(ValueError, match=r"inner\.weight.*2 x 4"):
        nestnet.verify_nesting(unchecked)
    for options in ({}, {"groups": {r"inner\.": (2, 1)}}):
        net = nestnet.nest(Halves(4), Halves(6), **options)
        assert str(net.weights_map["inner.weight"]) == "inner.weight[:2 x 4, :8]"
