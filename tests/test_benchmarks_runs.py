"""The programs on epochs, decisions and limits run, and divide time as they say; what they time is not tested."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nestnet.cost.network import forward_cost

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
CPU, CUDA = torch.autograd.DeviceType.CPU, torch.autograd.DeviceType.CUDA


@pytest.fixture
def limits(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("limits")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a program in this process, where torch is imported already; gives its result file and what it printed."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    output = tmp_path / "x.json"

    def run(program, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{program}.py", "--output", str(output), *arguments])
        importlib.import_module(program).main()
        assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        return json.loads(output.read_text()), capsys.readouterr().out

    return run


@pytest.mark.slow
def test_epochs(run):
    case = ["--case", "resnet8:resnet14:32:2", "--images", "12", "--rounds", "2"]
    configurations = ["plain", "channels_last", "resident"]
    found, table = run("epochs", *case, "--configurations", *configurations)
    (result,) = found["results"]
    assert result["batches"] == 6
    assert result["motivated_fraction"] == 1 / 6
    assert list(result["samples"]) == list(result["summary"]) == configurations
    for name, by_training in result["samples"].items():
        for samples in by_training.values():
            assert [len(values) for values in samples.values()] == [2, 2]
        (base, motivated, nested) = (
            by_training[training]["seconds"] for training in ("timm base", "timm motivated", "nested")
        )
        ratios = [n / (m / 6 + 5 * b / 6) for n, m, b in zip(nested, motivated, base, strict=True)]
        assert result["summary"][name]["over_ideal"][0] == pytest.approx(sum(ratios) / 2)
    assert result["summary"]["plain"]["faster_than_first"] == [1, 1, 1]
    assert "| channels last " in table


@pytest.mark.slow
def test_decision(run, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)  # which the program sets, and the test puts back
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    case = ["--case", "resnet8:resnet14:32:2", "--rounds", "1", "--steps", "6"]
    found, table = run("decision", *case)
    fixed, losses, norms = found["results"]
    for result in (fixed, losses, norms):
        assert result["alike"]
        assert len(result["modes"]) == 12, "a round of warm-up and one that is measured"
    assert fixed["modes"] == (["base"] * 5 + ["motivated"]) * 2
    assert list(fixed["seconds"]) == ["unread", "overlap", "waiting"]
    for result in (losses, norms):
        first = [result["modes"][number] for number in (0, 1, 2, 6, 7, 8)]
        assert first == ["base"] * 6, "it takes three numbers for two falls, in each round anew"
    assert "nothing overlaps" in table


@pytest.mark.slow
def test_limits(run):
    case = ["--case", "resnet8:resnet14:32:4", "--steps", "1", "--ways", "eager", "--matrix", "128"]
    found, _ = run("limits", *case)
    assert [(result["mode"], result["way"]) for result in found["results"]] == [
        ("base", "eager"),
        ("motivated", "eager"),
    ]
    for result, name in zip(found["results"], ("resnet8", "resnet14"), strict=True):
        kinds, parts = result["seconds_by_kind"], result["seconds_by_limit"]
        assert result["operations"] == 6 * 4 * forward_cost(name, img_size=32, num_classes=10)
        assert {"products", "normalisation", "element-wise", "optimizer", "host"} <= set(kinds)
        assert "attention" not in kinds
        assert sum(kinds.values()) == pytest.approx(result["step_seconds"])
        assert sum(parts.values()) == pytest.approx(result["step_seconds"] + result["wait_seconds"])
        assert parts[result["limit"]] == max(parts.values())


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("aten::convolution_backward", "products"),
        ("aten::mkldnn_convolution", "products"),
        ("mkldnn::_convolution_pointwise", "products"),
        ("aten::addmm", "products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("aten::_efficient_attention_forward", "attention"),
        ("aten::native_batch_norm_backward", "normalisation"),
        ("aten::cudnn_batch_norm", "normalisation"),
        ("aten::native_layer_norm", "normalisation"),
        ("aten::threshold_backward", "element-wise"),
        ("aten::gelu", "element-wise"),
        ("aten::cat", "copies"),
        ("aten::copy_", "copies"),
        ("aten::_log_softmax_backward_data", "loss and rest"),
        ("aten::nll_loss_forward", "loss and rest"),
        ("triton_poi_fused_add_relu_0", "fused"),
        ("graph_0_cpp_fused__native_batch_norm_legit_functional_add_copy__relu_1", "fused"),
        ("autograd::engine::evaluate_function: ConvolutionBackward0", None),
        ("torch::autograd::AccumulateGrad", None),
        ("AddmmBackward0", None),
        ("aten::as_strided", None),
        ("aten::empty", None),
    ],
)
def test_kinds_of_operations(limits, operation, kind):
    assert limits.kind(operation) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (
            "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x64x64_warpgroupsize1x1x1",
            "products",
        ),
        (
            "void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816fprop_optimized_bf16_64x64_64x3_nhwc_align8>",
            "products",
        ),
        ("void cudnn::bn_fw_tr_1C11_kernel_NCHW<float, float, int, 512, true, 1>", "normalisation"),
        ("void at::native::batch_norm_backward_reduce_channels_last_kernel<4, float>", "normalisation"),
        (
            "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedSgdMathFunctor<float, 3>>",
            "optimizer",
        ),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>", "element-wise"),
        ("void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>", "copies"),
        ("void cudnn::ops::nchwToNhwcKernel<float, float, float, false, true>", "copies"),
        ("Memcpy DtoH (Device -> Pinned)", "copies"),
        ("triton_red_fused_add_1", "fused"),
        ("something else", "loss and rest"),
    ],
)
def test_kinds_of_kernels_that_a_graph_replays(limits, name, kind):
    assert limits.kind_of_kernel(name) == kind


def event(name, *, parent=None, own=0.0, kernels=(), device=CPU, elapsed=0.0, annotation=False):
    return SimpleNamespace(
        name=name,
        cpu_parent=parent,
        self_cpu_time_total=own,
        kernels=[SimpleNamespace(name=kernel, duration=duration) for kernel, duration in kernels],
        device_type=device,
        time_range=SimpleNamespace(elapsed_us=lambda: elapsed),
        is_user_annotation=annotation,
    )


def test_time_on_cuda_is_that_of_kernels(limits):
    optimizer = event("Optimizer.step#SGD.step", own=50.0)
    events = [
        optimizer,
        event("aten::_fused_sgd_", parent=optimizer, own=9.0, kernels=[("sgd", 3e6)]),
        event("aten::cudnn_convolution", own=20.0, kernels=[("implicit_gemm", 5e6)]),
        event("aten::view", own=1.0),
        event("sgd", device=CUDA, elapsed=3e6),
        event("implicit_gemm", device=CUDA, elapsed=5e6),
        event("triton_red_fused_add_1", device=CUDA, elapsed=2e6),  # launched by no operator
        event("Optimizer.step#SGD.step", device=CUDA, elapsed=4e6, annotation=True),
    ]
    found = limits.by_kind(events, torch.device("cuda"))
    assert {name: seconds for name, seconds in found.items() if seconds} == {"optimizer": 3, "products": 5, "fused": 2}
    assert limits.launches(events) == 3


def test_time_on_a_cpu_is_the_operators_own(limits):
    optimizer = event("Optimizer.step#SGD.step", own=1e6)
    events = [
        optimizer,
        event("aten::add_", parent=event("aten::add", parent=optimizer), own=2e6),
        event("aten::relu", own=3e6),
        event("aten::empty", own=7e6),
    ]
    assert limits.by_kind(events, torch.device("cpu")) == {"optimizer": 3, "element-wise": 3}


@pytest.mark.parametrize(
    ("arithmetic", "host", "wait", "limit"),
    [
        (6.0, 1.0, 1.0, "arithmetic"),
        (2.0, 1.0, 1.0, "memory traffic"),
        (2.0, 9.0, 1.0, "launches"),
        (2.0, 1.0, 9.0, "loader"),
    ],
)
def test_the_limit_is_the_largest_part(limits, arithmetic, host, wait, limit):
    kinds = {"products": 6.0, "attention": 1.0, "normalisation": 1.0, "host": host}
    parts = limits.limits(8.0 + host, kinds, arithmetic, wait)
    assert max(parts, key=parts.get) == limit
    assert sum(parts.values()) == pytest.approx(8.0 + host + wait)


def test_arithmetic_is_no_longer_than_its_products(limits):
    assert limits.limits(3.0, {"products": 2.0, "host": 1.0}, 2.5, 0.0)["arithmetic"] == 2.0
