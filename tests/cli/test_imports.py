"""`--import`: modules of the user's own, which a run then remembers; and the code that nothing may execute."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image
from registries import forgotten
from two_processes import fork_server

from nestnet.cli.main import main
from nestnet.config.imports import import_modules
from nestnet.config.parsing import load, parse
from nestnet.tuning import run_processes

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
CONDITION = """
import nestnet
from nestnet.conditions.by_position import RandomBatches

@nestnet.register_condition("mine")
class Mine(RandomBatches):
    pass
"""
MARK = "open('executed', 'w').close()\n"
"""Of a module whose execution leaves a trace."""
OWN = ["my_package", "plain_net", "module", "evil", "breaks", "needs", "leaves", "neighbour", "run"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with modules in it. Whatever is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(EXAMPLES))])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    shutil.copy(EXAMPLES / "plain_net.py", "plain_net.py")
    Path("my_package").mkdir()
    Path("my_package/condition.py").write_text(CONDITION)
    yield tmp_path
    forget()


def forget():
    for name in list(sys.modules):
        if name.partition(".")[0] in OWN:
            del sys.modules[name]


def run(*arguments):
    """Run a command as a new process would, which knows nothing of the modules."""
    with forgotten():
        try:
            return main([str(argument) for argument in arguments])
        finally:
            forget()


SETTINGS = ["--model.base", "plain8", "--model.motivated", "plain16", "--motivation.name", "mine", "--epochs", "2"]
SETTINGS += ["--data.batch_size", "256", "--snapshot_steps", "2", "--seed", "1"]
IMPORTS = ["--import", "plain_net", "--import=my_package.condition"]


@pytest.mark.slow
def test_every_command_knows_the_modules_of_a_run(folder, capsys):
    assert run("train", *SETTINGS, *IMPORTS, "--run_dir", "runs/a") == 0
    with forgotten():
        assert load(Path("runs/a/config.yaml")).imports == ["plain_net", "my_package.condition"]
    Image.new("L", (8, 8)).save("image.png")
    for command in (
        "resume runs/a",
        "evaluate runs/a --mode base",
        "export runs/a --mode motivated --output shipped/m.safetensors",
        "report runs/a --output page",
        "table runs/a",
        "plot runs/a --output p.png",
        "dynamics runs/a --output figures",
        "predict image.png --model runs/a/base.safetensors --import plain_net",
        "predict image.png --model shipped/m.safetensors --import plain_net",
        "cost --config runs/a/config.yaml",
        "train --config runs/a/config.yaml --run_dir runs/b --dry_run",
        "check --config runs/a/config.yaml --steps 2",
    ):
        os.makedirs("shipped", exist_ok=True)
        capsys.readouterr()
        forget()
        assert run(*command.split()) == 0, (command, capsys.readouterr().err)
    forget()
    assert run("cost", *SETTINGS) == 2, "nothing has stayed"


@pytest.mark.slow
def test_the_processes_that_tune_k_starts_know_them_too(folder, capsys, monkeypatch):
    fork_server()
    monkeypatch.setattr(run_processes, "START_METHOD", "forkserver")
    Path("falls.py").write_text(CONDITION.replace("RandomBatches", "LossDecrease").replace("by_position", "by_loss"))
    tune = "tune-k --k 1 --folds 2 --jobs 2 --output study --import falls --motivation.name mine --epochs 1"
    tune += " --model.base resnet8 --model.motivated resnet8 --data.batch_size 64"
    assert run(*tune.split()) == 0, capsys.readouterr().err
    sys.modules.pop("falls", None)


def test_modules_of_a_file_and_of_options_are_imported_once_each(folder):
    Path("module.py").write_text("import plain_net\n")
    Path("a.yaml").write_text("imports: [plain_net]\n")
    with forgotten():
        config = parse(["--config", "a.yaml", "--import", "module", "--import", "plain_net"])
        assert config.imports == ["plain_net", "module"]
        assert parse(["--imports", "[module]"]).imports == ["module"]
        assert parse([]).imports == []
        assert sys.path[-1] == str(folder), "a module may import its neighbours later, but none of a library's name"
        assert sys.path[0] != str(folder)


FAULTS = [
    (
        "absent",
        "imports = 'absent': there is no such module in the current folder, {folder}, and none is installed; change",
    ),
    ("my_package.absent", "imports = 'my_package.absent': there is no such module in the current folder"),
    (
        "module.py",
        "imports = 'module.py': it must be the name of a Python module, such as my_module for the file my_module.py",
    ),
    ("./module", "imports = './module': it must be the name of a Python module"),
    (".module", "imports = '.module': it must be the name of a Python module"),
    ("a b", "imports = 'a b': it must be the name of a Python module"),
    ("", "imports = '': it must be the name of a Python module"),
    ("breaks", "imports = 'breaks': importing it fails: ZeroDivisionError: division by zero"),
    ("needs", "imports = 'needs': importing it fails: ModuleNotFoundError: No module named 'absent'"),
    ("leaves", "imports = 'leaves': importing it fails: SystemExit: 3"),
    ("needs.more", "imports = 'needs.more': importing it fails: ModuleNotFoundError: No module named 'absent'"),
]


@pytest.mark.parametrize(("name", "message"), FAULTS)
def test_a_module_that_cannot_be_imported_is_one_line(name, message, folder, capsys):
    Path("module.py").write_text(MARK)
    Path("breaks.py").write_text("1 / 0\n")
    Path("needs.py").write_text("import absent\n")
    Path("leaves.py").write_text("raise SystemExit(3)\n")
    for command in ("train", "cost"):
        assert run(command, f"--import={name}") == 2
        error = capsys.readouterr().err
        assert error.startswith(f"nestnet {command}: error: {message.format(folder=folder)}")
        assert error.count("\n") == 1
    assert not Path("executed").exists()


def test_an_option_without_a_module_is_one_line(folder, capsys):
    for arguments in (["--import"], ["--import", "--epochs", "3"]):
        assert run("cost", *arguments) == 2
        assert capsys.readouterr().err.startswith("nestnet cost: error: argument --import: expected one argument")


def bring(run_dir, imports):
    """A run directory, as it may come from anywhere, with code in it."""
    (run_dir / "inside").mkdir(parents=True)
    for name in ("evil.py", "__init__.py", "inside/__init__.py", "inside/evil.py", "torchvision.py"):
        (run_dir / name).write_text(MARK)
    (run_dir / "config.yaml").write_text(f"imports: {imports}\n")
    (run_dir / "steps.csv").touch()
    (run_dir / "base.safetensors").touch()


@pytest.mark.parametrize("imports", ["[run.evil]", "[run]", "[run.inside.evil]", "[link.evil]", "[link.inside]"])
@pytest.mark.parametrize(
    "command",
    ["evaluate run --mode base", "resume run", "report run", "cost --config run/config.yaml", "resume ./run/"],
)
def test_a_run_brings_no_code(imports, command, folder, capsys):
    bring(folder / "run", imports)
    Path("link").symlink_to("run")
    assert run(*command.split()) == 2
    error = capsys.readouterr().err
    assert "lies within the run directory" in error
    assert error.count("\n") == 1
    assert not list(folder.rglob("executed"))


@pytest.mark.parametrize("imports", ["[evil]", "[inside.evil]", "[torchvision, evil]"])
def test_a_run_that_is_the_current_folder_brings_no_code(imports, folder, capsys, monkeypatch):
    bring(folder / "run", imports)
    monkeypatch.chdir(folder / "run")
    for command in ("evaluate . --mode base", "table .", "evaluate ../run --mode base"):
        assert run(*command.split()) == 2
        error = capsys.readouterr().err
        assert "lies within the run directory" in error
        assert str(folder / "run") not in sys.path
    assert run("predict", "x.png", "--model", "base.safetensors") == 2
    assert not list(folder.rglob("executed"))


def test_a_module_beside_a_run_is_no_part_of_it(folder):
    (folder / "run").mkdir()
    (folder / "run.py").write_text("value = 3\n")
    (folder / "neighbour.py").write_text("import run\n")
    import_modules(["neighbour"], [folder / "run"])
    assert sys.modules["run"].value == 3
