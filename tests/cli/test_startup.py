"""What is imported before it is needed: nothing that takes time. `benchmarks/startup.py` measures what this saves."""

import sys
from functools import partial

import pytest
from fresh import imported

from nestnet.runtime.after_import import call_after_import

HEAVY = ("torch", "timm", "torchvision", "numpy", "matplotlib", "sklearn", "rich", "PIL", "safetensors")
PARSERS = ("jsonargparse", "yaml")
COMMANDS = (
    "train", "resume", "cost", "tune-k", "cross-validate", "evaluate", "export", "predict", "plot", "report", "table",
    "dynamics", "check",
)  # fmt: skip
MISTAKES = [
    "fly",
    "train --epoch 3",
    "train --lr 1 --config absent.yaml",
    "cost --data.rot x",
    "tune-k --k 2 --fold 3",
    "tune-k",
    "check --step 3",
    "check --steps 0",
    "resume run --epoch 3",
    "resume",
    "evaluate run --mode big",
    "export run --mod base",
    "predict x",
    "plot run --out x",
    "report run --no-images",
    "table run --form csv",
    "dynamics run --epoch 3",
]


@pytest.fixture(scope="module")
def fresh():
    """Starts processes that have imported the command line, and nothing else."""
    with imported("nestnet.cli.main") as starter:
        yield starter


@pytest.fixture(scope="module")
def fresh_but_for_others():
    """Starts processes that have imported the packages which timm imports, but neither timm nor nestnet."""
    with imported("torch", "torchvision", "huggingface_hub.hf_api", "safetensors.torch", "wandb") as starter:
        assert not starter.run("").modules & {"timm", "nestnet", "fvcore"}
        yield starter


@pytest.fixture
def run_command(fresh):
    """Runs `nestnet`, and gives what the process has imported, before it was forked and after."""
    program = "from nestnet.cli.main import main; code = main(); print('exit code', code)"
    return partial(fresh.run, program)


def test_importing_nestnet_imports_nothing_heavy():
    with imported() as starter:
        ended = starter.run("import nestnet, nestnet.cost; assert 'create_model' in dir(nestnet)")
    assert ended.error == ""
    assert "nestnet" in ended.modules
    assert not ended.modules & {*HEAVY, *PARSERS}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)])
def test_help_imports_nothing_heavy(arguments, run_command):
    ended = run_command(*arguments)
    assert ended.error == ""
    assert "nestnet" in ended.output
    assert ended.output.endswith("exit code 0\n")
    assert not ended.modules & set(HEAVY)
    if arguments not in (["train", "--help"], ["cost", "--help"]):  # these list the fields, which jsonargparse does
        assert not ended.modules & set(PARSERS)


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_misspelt_option_imports_nothing_heavy(arguments, run_command):
    ended = run_command(*arguments.split())
    assert ended.output == "exit code 2\n"
    assert ended.error.startswith("nestnet")
    assert ended.error.count("\n") == 1
    assert not ended.modules & {*HEAVY, *PARSERS}


ORDERS = [
    "import timm, nestnet; create_model = timm.create_model",
    "import nestnet, importlib.util; importlib.util.find_spec('timm'); from timm import create_model",
    "import nestnet, timm.models; create_model = timm.models.create_model",
    "import nestnet.nn.layers; from timm import create_model",
    "from nestnet import *; from timm import create_model",
]


WHAT_CAME_OF_IT = """
import sys, timm

print(type(create_model("resnet20")).__name__, type(timm.__spec__.loader).__name__)
print(any("nestnet" in type(finder).__module__ for finder in sys.meta_path))
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_the_cifar_resnets_are_registered_in_any_order(order, fresh_but_for_others):
    ended = fresh_but_for_others.run(f"{order}\n{WHAT_CAME_OF_IT}")
    assert (ended.output, ended.error) == ("CifarResNet SourceFileLoader\nFalse\n", "")


def test_the_costs_need_no_import_of_their_own(fresh_but_for_others):
    code = "import sys, nestnet; print(nestnet.cost.forward_cost.__name__); from nestnet import *; assert cost is nestnet.cost"
    ended = fresh_but_for_others.run(code)
    assert (ended.code, ended.output, ended.error) == (0, "forward_cost\n", "")


def test_fvcore_is_imported_late_and_quietly(fresh_but_for_others):
    """The figure is the one that `cifar_sizes` of tests/cost/test_cost.py comes to."""
    program = "import sys, nestnet.cost as c; assert 'fvcore' not in sys.modules; print(c.forward_cost('resnet20', img_size=8))"
    ended = fresh_but_for_others.run(program)
    assert (ended.output, ended.error) == ("2614784\n", "")
    assert "fvcore" in ended.modules


def test_a_function_is_called_after_the_first_import(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    calls = []
    (tmp_path / "fails_first.py").write_text("import os\nassert os.path.exists(__file__ + '.ready')\nvalue = 3\n")
    call_after_import("fails_first", lambda: calls.append(sys.modules["fails_first"].value))
    finders = len(sys.meta_path)
    with pytest.raises(AssertionError):
        import fails_first
    assert calls == []
    (tmp_path / "fails_first.py.ready").touch()
    import fails_first

    assert calls == [3]
    assert len(sys.meta_path) == finders - 1
    assert fails_first.__loader__.get_source("fails_first").startswith("import os")
    call_after_import("fails_first", lambda: calls.append("at once"))
    assert calls == [3, "at once"]
    del sys.modules["fails_first"]
