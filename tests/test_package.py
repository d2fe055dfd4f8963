"""The package as a user gets it: built, installed into a folder of its own, and at work where the repository is not."""

import ast
import email
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import nestnet

ROOT = Path(__file__).parent.parent
GENERATED = (".*", "__pycache__", "*.egg-info", "build", "dist", "site")


def test_no_name_hides_a_module():
    """`import nestnet.x` must give the module x, whatever the package offers under its own name."""
    for found in pkgutil.walk_packages(nestnet.__path__, "nestnet."):
        if found.name != "nestnet.__main__":
            module = importlib.import_module(found.name)
            package, _, name = found.name.rpartition(".")
            assert getattr(importlib.import_module(package), name) is module, found.name


def not_source(folder, names):
    """What is not copied of a folder. The runs of a checkout lie at its root; the package has a `runs` of its own."""
    generated = shutil.ignore_patterns(*GENERATED)(folder, names)
    return generated | {"runs"} if Path(folder) == ROOT else generated


@pytest.mark.parametrize("package", ["nestnet", "nestnet.cost"])
def test_type_checkers_see_the_names_that_there_are(package):
    module = importlib.import_module(package)
    stub = ast.parse(Path(module.__file__).with_suffix(".pyi").read_text())
    (exported,) = [ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign)]
    assert len(set(exported)) == len(exported)
    assert set(exported) == set(module.__all__)
    for name in exported:
        assert getattr(module, name) is not None, name


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the source distribution, and the wheel that is made of it."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT, folder / "source", ignore=not_source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "source"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built):
    return built / f"nestnet-{nestnet.__version__}-py3-none-any.whl"


@pytest.mark.slow
def test_the_wheel_has_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    about = f"nestnet-{nestnet.__version__}.dist-info"
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "nestnet").rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith(about)} == {
        name for name in package if "__pycache__" not in name
    }
    assert {
        "nestnet/py.typed",
        "nestnet/models/vit.py",
        f"{about}/licenses/LICENSE",
        f"{about}/entry_points.txt",
    } <= names


@pytest.mark.slow
def test_what_an_index_shows_needs_no_repository(wheel):
    with zipfile.ZipFile(wheel) as file:
        about = email.message_from_bytes(file.read(f"nestnet-{nestnet.__version__}.dist-info/METADATA"))
    assert about["Name"] == "nestnet"
    assert about["Version"] == nestnet.__version__
    assert about["License-Expression"] == "Apache-2.0"
    text = about.get_payload()
    assert text.startswith("# nestnet")
    assert text.count("](") == text.count("](https://"), "a link into the repository leads nowhere"


@pytest.mark.slow
def test_the_source_distribution_has_all_that_make_needs(built):
    with tarfile.open(built / f"nestnet-{nestnet.__version__}.tar.gz") as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    wanted = {
        "Makefile",
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE",
        "pyproject.toml",
        "docs/weight.svg",
    }
    for folder in ("benchmarks", "configs", "docs", "examples", "tests"):
        wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.[pym]*") if path.is_file()}
    assert {name for name in wanted if "__pycache__" not in name} <= names


@pytest.mark.slow
def test_the_installed_wheel_trains(wheel, tmp_path):
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(install, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    # python runs this file as it starts: the repository, where an editable installation points, is not importable any more
    (site / "sitecustomize.py").write_text(
        f"import sys\nsys.path = [path for path in sys.path if path != {str(ROOT)!r}]\n"
        "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in repr(finder)]\n"
    )

    def run(*command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    where = "import importlib.util; print(importlib.util.find_spec('nestnet').origin)"
    assert run(sys.executable, "-c", where).startswith(str(site))
    assert run(sys.executable, "-m", "nestnet", "--version") == f"nestnet {nestnet.__version__}\n"
    options = ["--epochs=1", "--run_dir=run", "--data.batch_size=256"]
    assert "exported run/base.safetensors" in run(str(site / "bin" / "nestnet"), "train", *options)
    assert {"config.yaml", "base.safetensors", "motivated.safetensors"} <= {
        path.name for path in (work / "run").iterdir()
    }


def test_the_oldest_releases_are_those_that_the_package_admits(wheel):
    with zipfile.ZipFile(wheel) as file:
        about = email.message_from_bytes(file.read(f"nestnet-{nestnet.__version__}.dist-info/METADATA"))
    lines = about.get_all("Requires-Dist")
    # These two need an older pillow, and newer numpy and scikit-learn, than the rest.
    elsewhere = re.compile('extra == "(trackio|executorch)"')
    required = {line.partition(";")[0].strip() for line in lines if not elsewhere.search(line)}
    program = [sys.executable, ROOT / "tests" / "oldest.py"]
    pinned = subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()
    assert set(pinned) == {line.replace(">=", "==") for line in required if not line.startswith("nestnet")}
    assert len(set(pinned)) == len(pinned) > 20
    assert {"torch==2.10", "torchvision==0.25", "onnx==1.21"} <= set(pinned)
