"""The pages say what is so: their code runs, their commands are the program's, their links lead somewhere. The reference of
the API has every public name."""

import ast
import dataclasses
import html
import importlib
import inspect
import re
import shlex
import sys
import textwrap
import types
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
from PIL import Image
from registries import forgotten
from sources import write_hf_datasets, write_webdataset

from nestnet.cli.main import COMMANDS, main
from nestnet.cli.parser import Parser
from nestnet.config import schema
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.resumable import RESUMABLE_FIELDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = ROOT / "examples"

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)  # the README's own test goes further
def test_the_pages_code_works_as_printed(page, tmp_path, monkeypatch):
    """In one module a page, but for what is an example's, word for word, and is run as that."""
    shown = [path.read_text() for path in EXAMPLES.glob("*.py")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", ["run.py", "--version"])
    module = types.ModuleType("page")
    with forgotten():
        for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            if any(code in example for example in shown):
                continue
            with pytest.raises(SystemExit, match="0") if "SystemExit" in code else nullcontext():
                exec(compile(code, page.name, "exec"), vars(module))


SOURCES = {"SAVED": write_hf_datasets, "SHARDS": write_webdataset}
"""What makes the folders that stand for data sets of other kinds."""


class Understood(Exception):
    """The program has understood a command, and would do it now."""


@pytest.fixture
def understands(monkeypatch, tmp_path):
    """Hands a command to the program, up to where it has understood it."""

    def up_to(function):
        def understood(*arguments, **options):
            function(*arguments, **options)
            raise Understood

        return understood

    def resume(run_dir, changes):
        parse_with_recipe(list(changes))

    monkeypatch.setattr(Parser, "parse_args", up_to(Parser.parse_args))
    monkeypatch.setattr("nestnet.recipes.command_line.parse_with_recipe", up_to(parse_with_recipe))
    monkeypatch.setattr("nestnet.training.resume.resume", resume)
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(EXAMPLES)
    for name in ("cats", "dogs"):
        (tmp_path / "FOLDER" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (40, 40)).save(tmp_path / "FOLDER" / name / f"{number}.png")
    rows = [f"{name}/{number}.png,{name}\n" for name in ("cats", "dogs") for number in range(4)]
    (tmp_path / "FOLDER" / "labels.csv").write_text("path,label\n" + "".join(rows))
    places = {"FOLDER": tmp_path / "FOLDER", "SAVED": tmp_path / "saved", "SHARDS": tmp_path / "shards"}

    def fill_in(argument):
        for name, place in places.items():
            if name in argument and not place.exists():
                SOURCES[name](tmp_path)
            argument = argument.replace(name, str(place))
        return argument

    def understands(arguments):
        with forgotten():
            importlib.import_module("own_condition")
            importlib.import_module("plain_net")
            with pytest.raises(Understood):
                assert main(list(map(fill_in, arguments))) == 0

    return understands


def commands(page: Path) -> list[list[str]]:
    """The arguments of all command lines of a page, whatever starts the program."""
    text = page.read_text().replace("\\\n", " ")
    text = re.sub(r"```bash\n(.*?)```", lambda block: textwrap.indent(block[1], "    "), text, flags=re.DOTALL)
    start = r"(?:srun )?(?:torchrun .* -m nestnet|python run\.py|nestnet)"
    found = re.findall(rf"^ {{4,}}(?:\$ )?{start} +(\w.*)$", text, re.MULTILINE)
    found = [command.partition(" > ")[0] for command in found if not command.endswith("...")]
    return [shlex.split(command, comments=True) for command in found]


@each_page
def test_the_pages_commands_are_the_program_s(page, understands, monkeypatch):
    for arguments in commands(page):
        understands(arguments)


def test_every_verb_is_explained():
    assert {arguments[0] for page in PAGES for arguments in commands(page)} == set(COMMANDS)


def test_what_may_change_on_resuming_is_told():
    page = (ROOT / "docs" / "guide" / "resuming.md").read_text()
    told = re.search(r"^They are (.*?)\.\s", page, re.DOTALL | re.MULTILINE)[1]
    assert set(re.findall(r"`([\w.]+)`", told)) == RESUMABLE_FIELDS - {"run_dir"}


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "benchmarks" / "README.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_pages_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        other = page.parent / name if name else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, as GitHub makes it of their text."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def definitions(body: list[ast.stmt], parts: list[str]) -> bool:
    """Whether a dotted name is defined in the body of a module or class."""
    for node in body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        names = {getattr(node, "name", None), *(target.id for target in targets if isinstance(target, ast.Name))}
        if parts[0] in names:
            return len(parts) == 1 or definitions(node.body, parts[1:])
    return False


MENTIONS = re.findall(r"`([\w/]+\.py)`(?:\s+\(`([\w.]+)`\))?", (ROOT / "ARCHITECTURE.md").read_text())


@pytest.mark.parametrize(("path", "name"), sorted(set(MENTIONS)))
def test_the_map_names_files_and_functions_that_exist(path, name):
    module = ast.parse((ROOT / "nestnet" / path).read_text())
    assert not name or definitions(module.body, name.split(".")), f"{path} does not define {name}"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The pages of `make docs`, without their sources, by module."""
    import pdoc

    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    modules = re.search(r"^REFERENCE := (.*)$", makefile, re.MULTILINE)[1].split()
    folder = tmp_path_factory.mktemp("reference")
    pdoc.render.configure(docformat="google", template_directory=ROOT / "docs" / "reference", show_source=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Cannot determine where")  # of an attribute that torch declares
        pdoc.pdoc(*modules, output_directory=folder)
    pages = {".".join(path.relative_to(folder).with_suffix("").parts): path for path in folder.rglob("*.html")}
    del pages["index"]
    assert set(pages) >= {name for name in modules if not name.startswith("!")}
    return {name: path.read_text() for name, path in pages.items()}


def said(page: str) -> dict[str, str]:
    """What a page says of each name, as plain text."""
    parts = re.split(r'<(?:section|div) id="([^"]+)"', page)[1:]
    texts = (re.search(r'<div class="docstring">(.*?)</div>', part, re.DOTALL) for part in parts[1::2])
    plain = [html.unescape(re.sub(r"<[^>]*>", "", text[1])) if text else "" for text in texts]
    return dict(zip(parts[::2], map(squeezed, plain), strict=True))


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("`", "")).strip()


def test_the_reference_has_every_public_name(reference):
    for name, page in reference.items():
        module, shown = importlib.import_module(name), said(page)
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == name]
        own = [key for key in own if inspect.isclass(getattr(module, key)) or inspect.isfunction(getattr(module, key))]
        for key in getattr(module, "__all__", [key for key in own if not key.startswith("_")]):
            if inspect.ismodule(getattr(module, key)):  # it has a page of its own
                assert f"{name}.{key}" in reference
                continue
            assert key in shown, f"{name}.{key}"
            if inspect.isclass(getattr(module, key)) or inspect.isfunction(getattr(module, key)):
                text = inspect.getdoc(getattr(module, key))
                first = squeezed(text.partition("\n\n")[0].partition("\n>>>")[0])
                assert first in shown[key], f"{name}.{key}: {first!r}"


def test_the_reference_has_every_field_of_a_run(reference):
    shown = said(reference["nestnet.config.schema"])
    sections = [schema.Config, *schema.SECTIONS.values()]
    fields = [f"{section.__name__}.{field.name}" for section in sections for field in dataclasses.fields(section)]
    own = [
        name for name in fields if not name.startswith("Config.") or name.removeprefix("Config.") not in schema.SECTIONS
    ]
    assert len(own) > 80
    assert [name for name in own if not shown.get(name)] == []
