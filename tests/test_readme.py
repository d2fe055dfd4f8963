"""What the README prints works as printed."""

import re
import shlex
from pathlib import Path

import torch

from nestnet.cli.main import VERBS, main
from nestnet.conditions.registry import CONDITIONS, create_condition

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_code_works_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nestnet.conditions.registry.CONDITIONS", CONDITIONS.copy())
    variables, images = {}, torch.randn(2, 1, 8, 8)
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(code, "README.md", "exec"), variables)
        if "nestnet.export(net" in code:
            net = variables["net"].eval()
            assert torch.equal(variables["model"].eval()(images), net(images, "base"))
            assert variables["condition"].last < 2.3, "it learns"
            net.train()
    assert variables["condition"].last < 2.0, "it goes on"
    assert (tmp_path / "averaged.safetensors").is_file()
    condition, again = create_condition("after_a_record"), create_condition("after_a_record")
    for loss, mode in ((2.0, "motivated"), (2.5, "base"), (1.9, "motivated"), (1.9, "base")):
        condition.update(loss)
        again.load_state_dict(condition.state_dict())
        assert condition.mode == again.mode == mode
    condition.reset()
    assert condition.mode == "base"


def test_its_commands_are_the_program_s(monkeypatch, capsys):
    commands = [shlex.split(line) for line in re.findall(r"^    nestnet (.*)$", README, re.MULTILINE)]
    assert {command[0] for command in commands} <= set(VERBS)  # all are in one page or another: see test_docs.py
    for path in re.findall(r"(?:configs|docs|benchmarks)/[\w./-]*\w", README):
        assert (ROOT / path).exists(), path
    monkeypatch.chdir(ROOT)
    for command in commands:
        if command[0] == "check":
            assert main([*command, "--steps", "3", "--data.batch_size", "8"]) == 0
        if command[0] == "cost":
            assert main(command) == 0
            assert "expected of LossDecrease(k=2): 16.54% motivated batches" in capsys.readouterr().out


def test_its_recipes_are_there():
    table = re.search(r"\| experiment \| recipes \|\n((?:\|.*\n)+)", README)[1]
    named = set(re.findall(r"`([a-z]\w+)`", table))
    assert len(named) > 12
    assert named <= {path.stem for path in (ROOT / "configs").glob("*.yaml")}
