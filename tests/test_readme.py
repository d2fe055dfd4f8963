"""What the README prints works as printed."""

import re
import shlex
from pathlib import Path

import torch

from nestnet.cli import VERBS, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_loop_works_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = {}
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(code, "README.md", "exec"), variables)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(variables["model"].eval()(images), variables["net"].eval()(images, "base"))
    assert variables["condition"].last < 2.3, "it learns"


def test_its_commands_are_the_program_s(monkeypatch, capsys):
    commands = [shlex.split(line) for line in re.findall(r"^    nestnet (.*)$", README, re.MULTILINE)]
    assert {command[0] for command in commands} == set(VERBS)
    for path in re.findall(r"(?:configs|docs|benchmarks)/[\w./]*\w", README):
        assert (ROOT / path).exists(), path
    monkeypatch.chdir(ROOT)
    for command in commands:
        if command[0] == "check":
            assert main([*command, "--steps", "3", "--data.batch_size", "8"]) == 0
