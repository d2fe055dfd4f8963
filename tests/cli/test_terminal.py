"""What reaches standard output and standard error, whatever names are in it and whatever their encoding is."""

import io
import re
import shlex
import sys
from pathlib import Path

import pytest
from hostile import HOSTILE, NAMES, PATH
from rich.console import Console

from nestnet.analysis.report.evaluation import show_progress
from nestnet.cli import terminal
from nestnet.cli.main import main
from nestnet.config.parsing import dump, load
from nestnet.config.schema import Config
from nestnet.config.schema_sections import DataConfig, MotivationConfig
from nestnet.data.image_decoding import UnreadableImageError
from nestnet.recipes.folder_recipe import describe_choice
from nestnet.recipes.folder_summary import FolderSummary
from nestnet.runs.directory import RunDirectory
from nestnet.runtime.log import log_notice
from nestnet.text.escape import for_terminal
from nestnet.text.messages import message_of
from nestnet.training.progress import Progress

COMMANDS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
"""What a terminal, or a reader's eye, would obey."""


@pytest.fixture
def stream(monkeypatch):
    """Puts a standard output of some encoding in place; returns its bytes as they come."""

    def _stream(encoding, *, is_terminal=False, own=True):
        content = io.BytesIO()
        output = io.TextIOWrapper(content, encoding=encoding, write_through=True, newline="\n")
        monkeypatch.setattr(output, "isatty", lambda: is_terminal, raising=False)
        monkeypatch.setattr(sys, "stdout", output)
        if own:
            monkeypatch.setattr(sys, "__stdout__", output)
        terminal.accept_any_text()
        return content

    return _stream


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252", "koi8-r", "utf-16-le"])
def test_every_name_can_be_printed_in_every_encoding(encoding, stream):
    content = stream(encoding)
    for name in NAMES:
        terminal.print_text(name)
        terminal.print_result(name)
    assert content.getvalue().decode(encoding, "surrogateescape").endswith("\n")


def test_what_a_program_reads_is_as_it_is_and_visible_on_a_terminal(stream):
    content = stream("utf-8")
    for name in NAMES:
        terminal.print_result(name)
    assert content.getvalue() == "".join(f"{name}\n" for name in NAMES).encode("utf-8", "surrogateescape")
    content = stream("utf-8", is_terminal=True)
    for name in NAMES:
        terminal.print_result(name)
    assert not COMMANDS.search(content.getvalue().decode())


def test_what_replaces_standard_output_gets_text(stream):
    content = stream("ascii", own=False)
    terminal.print_result("é caf\udce9\x1b")
    assert content.getvalue() == b"\\xe9 caf\\xe9\x1b\n"


def test_lines_for_a_person_stay_lines(stream):
    content = stream("ascii")
    terminal.print_text("first \x1b[31m\nsecond é\udce9")
    assert content.getvalue() == b"first \\x1b[31m\nsecond \\xe9\\xe9\n"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_progress_of_a_run_shows_names_as_text(is_terminal):
    for name in (PATH, *NAMES):
        output = io.StringIO()
        console = Console(file=output, force_terminal=is_terminal, width=120, soft_wrap=True)
        progress = Progress(1, 1, console)
        progress._say(f"run directory {name}")
        printed = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", output.getvalue()) if is_terminal else output.getvalue()
        assert printed == f"run directory {for_terminal(name)}\n"


def test_the_progress_of_a_report_takes_any_name(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(
        "nestnet.analysis.report.evaluation.Console", lambda **_: Console(file=output, force_terminal=True, width=400)
    )
    for name in (PATH, *NAMES):
        assert list(show_progress([1, 2], run_name=name, total=2)) == [1, 2]
    assert "test images of [/close]" in output.getvalue()


@pytest.mark.parametrize("name", [PATH, *NAMES])
def test_an_error_is_one_line_that_a_terminal_does_not_obey(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (["report", f"./{name}"], [name], ["plot", "--", name], ["evaluate", f"./{name}", "--mode", name]):
        assert main(arguments) in (0, 2)
        error = capsys.readouterr().err
        assert error.count("\n") <= 1
        assert not COMMANDS.search(error)
    main(["report", f"./{name}"])
    error = capsys.readouterr().err
    assert error == f"nestnet report: error: {for_terminal(Path(name))} is not a run directory: it has no config.yaml\n"


def test_a_notice_and_a_recipe_show_names_in_one_line(capsys):
    sized = Config(data=DataConfig(img_size=8))
    for name in NAMES:
        log_notice(name)
        assert capsys.readouterr().err == f"nestnet: {for_terminal(name)}\n"
        told = describe_choice(FolderSummary(name, 8, 2, 2, False, 8, 8, 8, False), sized)
        assert told.startswith(f"{for_terminal(name)}: 8 training and 2 test images")
        assert len(told.splitlines()) == 2


def test_the_line_break_of_a_name_does_not_cut_a_message():
    assert message_of(ValueError("runs/a\nb has no checkpoint")) == "runs/a\nb has no checkpoint"
    worker = (
        "Caught UnreadableImageError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    )
    worker += '  File "x.py", line 1, in f\n    raise UnreadableImageError(path)\n'
    worker += "nestnet.data.image_decoding.UnreadableImageError: a\nb cannot be read\n"
    assert message_of(UnreadableImageError(worker)) == "a\nb cannot be read"
    assert message_of(ValueError()) == "ValueError"


@pytest.mark.parametrize("name", ["my run", "it's", "-x", "~root", "$(touch hacked)", "a;b"])
def test_a_printed_command_can_be_pasted(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    Path(name, "config.yaml").touch()
    with pytest.raises(ValueError, match="a run is there") as caught:
        RunDirectory.new(Config(run_dir=name))
    command = re.search("`(nestnet resume .*)` continues", str(caught.value))[1]
    program, name_of_command, path = shlex.split(command)
    assert (program, name_of_command, Path(path)) == ("nestnet", "resume", Path(name))
    assert not path.startswith(("-", "~"))


@pytest.mark.parametrize(
    "what", ["not UTF-8", "emoji", "line break", "block of Markdown", "number", "braces", "option", "tilde"]
)
def test_a_configuration_keeps_every_path(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = HOSTILE[what]
    Path(name).mkdir()
    data, motivation = DataConfig(name="imagenet", root=name), MotivationConfig("random_like", runs=NAMES)
    dump(Config(run_dir=name, data=data, motivation=motivation), Path(name, "config.yaml"))
    read = load(Path(name, "config.yaml"))
    assert (read.run_dir, read.data.root, read.motivation.runs) == (name, name, NAMES)
