"""What is imported before it is needed: nothing that takes time. `benchmarks/startup.py` measures what this saves."""

import subprocess
import sys

import pytest

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


def run(code, *arguments):
    """Run a program, and return its exit code, its output, and the first names of all modules that it has imported."""
    code += "\nimport sys; sys.stderr.write('\\nMODULES ' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    error, _, modules = ended.stderr.rpartition("\nMODULES ")
    return ended.stdout, error, set(modules.split())


def run_command(*arguments):
    return run("from nestnet.cli.main import main; code = main(); print('exit code', code)", *arguments)


def test_importing_nestnet_imports_nothing_heavy():
    _, error, modules = run("import nestnet, nestnet.cost; assert 'create_model' in dir(nestnet)")
    assert error == ""
    assert "nestnet" in modules
    assert not modules & {*HEAVY, *PARSERS}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)])
def test_help_imports_nothing_heavy(arguments):
    output, error, modules = run_command(*arguments)
    assert error == ""
    assert "nestnet" in output
    assert output.endswith("exit code 0\n")
    assert not modules & set(HEAVY)
    if arguments not in (["train", "--help"], ["cost", "--help"]):  # these list the fields, which jsonargparse does
        assert not modules & set(PARSERS)


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_misspelt_option_imports_nothing_heavy(arguments):
    output, error, modules = run_command(*arguments.split())
    assert output == "exit code 2\n"
    assert error.startswith("nestnet")
    assert error.count("\n") == 1
    assert not modules & {*HEAVY, *PARSERS}


ORDERS = [
    "import timm, nestnet; create_model = timm.create_model",
    "import nestnet, importlib.util; importlib.util.find_spec('timm'); from timm import create_model",
    "import nestnet, timm.models; create_model = timm.models.create_model",
    "import nestnet.nn.layers; from timm import create_model",
    "from nestnet import *; from timm import create_model",
]

IN_ANY_ORDER = """
import os, sys, torch, torchvision  # once for all orders

for order in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        exec(order)
        import timm

        print(type(create_model("resnet20")).__name__, type(timm.__spec__.loader).__name__)
        print(any("nestnet" in type(finder).__module__ for finder in sys.meta_path), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_the_cifar_resnets_are_registered_in_any_order():
    output, error, _ = run(IN_ANY_ORDER, *ORDERS)
    assert (output, error) == (len(ORDERS) * "CifarResNet SourceFileLoader\nFalse\n", "")


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
