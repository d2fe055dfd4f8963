"""Files of ours that are damaged: each is refused in one line that names it, whatever the damage and whoever reads it."""

import json
import os
import re
import shutil
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from interrupted import few
from made_up_runs import MIXED, write_run

from nestnet.cli.main import main
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.checkpoint_file import read_checkpoint, write_checkpoint
from nestnet.runs.checkpoints import Checkpoints
from nestnet.runs.contents import CHECKPOINT_FIELDS, COST_FIELDS
from nestnet.runs.history import read_histories, read_run_tables
from nestnet.runs.reading import read_cost, read_run, read_table
from nestnet.storage import safe_yaml
from nestnet.storage.read_back import read_json, read_yaml
from nestnet.storage.rules import any_number, number, optional, or_null, whole, word
from nestnet.storage.safe_yaml import dump_yaml, parse_yaml
from nestnet.storage.table_rows import read_rows
from nestnet.training.trainer import Trainer

COLUMNS = {"step": whole(1), "mode": word("base", "joint"), "loss": any_number(), "top1": optional(number(0, 100))}
HEAD = b"step,mode,loss,top1\n"
ROWS = b"1,base,0.5,10\n2,joint,nan,100\n"

TABLES = {
    "empty": (b"", "it is empty"),
    "cut in its head": (b"step,mo", "it ends within the names of its columns"),
    "without a column": (b"step,mode\n1,base\n", "it has no column loss"),
    "a strange column": (b"step,mode,loss,x\n1,base,1,2\n", "it has a column 'x', which nestnet does not write"),
    "a column twice": (b"step,mode,loss,loss\n", "it has the column loss twice"),
    "not UTF-8": (HEAD + b"1,b\xe9se,1,1\n", "it is not UTF-8"),
    "zeros": (HEAD + ROWS + bytes(40), "it has bytes of zeros"),
    "a row cut": (HEAD + b"1,base,0.5\n", "row 1 has 3 cells, and must have 4"),
    "a row too long": (HEAD + ROWS + b"3,base,1,1,1\n", "row 3 has 5 cells, and must have 4"),
    "an empty row": (HEAD + b"\n" + ROWS, "row 1 has 1 cells, and must have 4"),
    "no end": (HEAD + b"1" * 20_000, "it has a row of more than 10,000 bytes"),
    "a row missing": (HEAD + b"1,base,1,1\n3,base,1,1\n", "step is 3 in row 2: rows are missing or repeated"),
    "a row twice": (HEAD + b"1,base,1,1\n1,base,1,1\n", "step is 1 in row 2: rows are missing or repeated"),
    "rows in another order": (HEAD + b"2,base,1,1\n1,base,1,1\n", "step is 2 in row 1: rows are missing"),
    "the head twice": (HEAD + HEAD + ROWS, "step is 'step' in row 1, and must be a whole number of at least 1"),
    "no whole number": (HEAD + b"1.0,base,1,1\n", "step is '1.0' in row 1, and must be a whole number"),
    "digits of another script": (
        (HEAD.decode() + "\u0661,base,1,1\n").encode(),
        "must be a whole number of at least 1",
    ),
    "another word": (HEAD + b"1,Base,1,1\n", "mode is 'Base' in row 1, and must be one of base, joint"),
    "no number": (HEAD + b"1,base,low,1\n", "loss is 'low' in row 1, and must be a number"),
    "an empty cell": (HEAD + b"1,base,,1\n", "loss is '' in row 1, and must be a number"),
    "underscores": (HEAD + b"1,base,1_0,1\n", "loss is '1_0' in row 1, and must be a number"),
    "more than all": (HEAD + b"1,base,1,100.5\n", "top1 is '100.5' in row 1, and must be a number from 0 to 100"),
    "less than none": (HEAD + b"1,base,1,-5\n", "top1 is '-5' in row 1, and must be a number from 0 to 100"),
    "no finite number": (HEAD + b"1,base,1,nan\n", "top1 is 'nan' in row 1, and must be a number from 0 to 100"),
    "escape sequences": (HEAD + b"1,\x1b[31m,1,1\n", r"mode is '\x1b[31m' in row 1, and must be one of"),
}


def rows(path):
    return [row for row, _ in read_rows(path, COLUMNS, "help")]


@pytest.mark.parametrize("kind", TABLES)
def test_a_damaged_table_is_refused(kind, tmp_path):
    content, message = TABLES[kind]
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        rows(path)
    assert str(caught.value).startswith(f"{path} is damaged: ")
    assert str(caught.value).endswith("; help")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line_break", [b"\n", b"\r\n"])
def test_a_whole_table_is_read_as_it_was_written(line_break, tmp_path):
    (tmp_path / "table.csv").write_bytes((HEAD + ROWS).replace(b"\n", line_break))
    head, first, second = rows(tmp_path / "table.csv")
    assert list(head) == ["step", "mode", "loss", "top1"]
    assert list(first.values()) == ["1", "base", "0.5", "10"]
    assert list(second.values()) == ["2", "joint", "nan", "100"]


def test_ends_of_rows_are_where_they_are(tmp_path):
    (tmp_path / "table.csv").write_bytes(HEAD + ROWS)
    assert [end for _, end in read_rows(tmp_path / "table.csv", COLUMNS, "help")] == [20, 34, 50]


@pytest.mark.parametrize("length", range(len(HEAD), len(HEAD + ROWS)))
def test_a_row_without_its_end_is_never_taken_for_one(length, tmp_path, capsys):
    path = tmp_path / "table.csv"
    path.write_bytes((HEAD + ROWS)[:length])
    found = rows(path)
    complete = (HEAD + ROWS)[:length].count(b"\n")
    assert [row["step"] for row in found] == ["step", "1"][:complete]
    cut = not (HEAD + ROWS)[:length].endswith(b"\n")
    assert capsys.readouterr().err == cut * f"nestnet: {path}: its last row is incomplete, and is left out\n"


FIELDS = {"name": word("a", "b"), "count": whole(1), "share": or_null(number(0, 1))}
OBJECTS = {
    "empty": ("", "it is not JSON"),
    "cut": ('{"name": "a", "cou', "it is not JSON"),
    "a list": ("[]", "it holds [] in place of fields"),
    "null": ("null", "it holds None in place of fields"),
    "deep": ("[" * 100_000, "it is not JSON"),
    "a field missing": ('{"name": "a", "share": null}', "it has no count"),
    "a field too many": ('{"name": "a", "count": 1, "share": 0, "x": 1}', "it has a field 'x', which nestnet does not write"),
    "another word": ('{"name": "c", "count": 1, "share": 0}', "name is 'c', and must be one of a, b"),
    "a text": ('{"name": "a", "count": "1", "share": 0}', "count is '1', and must be a whole number of at least 1"),
    "true": ('{"name": "a", "count": true, "share": 0}', "count is True, and must be a whole number of at least 1"),
    "a part": ('{"name": "a", "count": 1.0, "share": 0}', "count is 1.0, and must be a whole number of at least 1"),
    "too much": ('{"name": "a", "count": 1, "share": 1.5}', "share is 1.5, and must be a number from 0 to 1, or null"),
    "not a number": ('{"name": "a", "count": 1, "share": NaN}', "share is nan, and must be a number from 0 to 1, or null"),
    "null in place": ('{"name": "a", "count": null, "share": 0}', "count is None, and must be a whole number"),
    "endless": ('{"name": "a", "count": ' + "9" * 5000 + ', "share": 0}', "it is not JSON"),
    "zeros": ("\0" * 64, "it has bytes of zeros"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OBJECTS)
def test_damaged_fields_are_refused(kind, tmp_path):
    content, message = OBJECTS[kind]
    path = tmp_path / "fields.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_json(path, FIELDS, "help")
    assert str(caught.value).startswith(f"{path} is damaged: ")
    assert str(caught.value).endswith("; help")
    assert "\n" not in str(caught.value)
    if kind not in ("empty", "null", "deep", "endless", "not a number"):  # which are something else in YAML
        with pytest.raises(ValueError, match=re.escape(message.replace("not JSON", "not YAML"))):
            read_yaml(path, FIELDS, "help")


@pytest.mark.parametrize("read", [rows, lambda path: read_json(path, FIELDS, "help")])
def test_what_is_no_file_or_too_large_is_refused_at_once(read, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match=r"fifo cannot be read: it is a FIFO, not a file; help"):
        read(tmp_path / "fifo")
    with pytest.raises(ValueError, match=r" cannot be read: it is a folder, not a file; help"):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"absent cannot be read: No such file or directory; help"):
        read(tmp_path / "absent")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(10 * 2**30)  # without any block on the disk
    with pytest.raises(ValueError, match=r"huge is damaged: it has 10,737,418,240 bytes, and nestnet writes at most"):
        read(tmp_path / "huge")


# Of runs, by the commands


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs of four batches."""
    settings = ["--model.base", "resnet8", "--model.motivated", "resnet8", "--data.batch_size", "16", "--epochs", "2"]
    path = tmp_path_factory.mktemp("runs") / "run"
    run = parse_with_recipe([*settings, "--run_dir", str(path)])
    return Trainer(run, images=few(run)).fit()


def cut(name, *, end):
    """The first bytes of a file, up to so many before its end."""

    def damage(path):
        (path / name).write_bytes((path / name).read_bytes()[:-end])

    return damage


def edited(name, pattern, text):
    def damage(path):
        content, count = re.subn(pattern, text, (path / name).read_text(), count=1)
        assert count == 1
        (path / name).write_text(content)

    return damage


def fifo(name):
    def damage(path):
        (path / name).unlink()
        os.mkfifo(path / name)

    return damage


COMMANDS = {
    "table": ["--output", "table.md"],
    "dynamics": ["--output", "figures"],
    "plot": ["--output", "run.png"],
    "report": ["--no_images", "--output", "page"],
}
ALL = set(COMMANDS)
ONE_ROW = r"metrics\.csv is damaged: it has 1 complete rows, and the run has a checkpoint of row 2"
RUNS = [
    (cut("metrics.csv", end=1), ALL, ONE_ROW),
    (cut("metrics.csv", end=40), ALL, ONE_ROW),
    (cut("metrics.csv", end=400), ALL, r"metrics\.csv is damaged: it "),
    (cut("steps.csv", end=5), ALL - {"table"}, r"steps\.csv is damaged: it has 7 complete rows, and the run has a che"),
    (edited("metrics.csv", r"\n1,[^\n]*", ""), ALL, r"metrics\.csv is damaged: epoch is 2 in row 1"),
    (edited("metrics.csv", r"(\n2,[\d.]+),[\d.]+", r"\1,501"), ALL, r"base_top1 is '501' in row 2, and must be a number from"),
    (edited("metrics.csv", r"\Z", "3,1,1,1,0,1,0,1,0,1\n"), ALL, r"metrics\.csv is damaged: it has 3 rows, and the run is"),
    (edited("steps.csv", "\n5,2,", "\n5,7,"), ALL - {"table"}, r"steps\.csv is damaged: epoch is 7 in row 5, which cannot be"),
    (fifo("metrics.csv"), ALL, r"metrics\.csv cannot be read: it is a FIFO, not a file"),
    (fifo("steps.csv"), ALL - {"table"}, r"steps\.csv cannot be read: it is a FIFO, not a file"),
    (fifo("config.yaml"), ALL, r"config\.yaml cannot be read: it is a FIFO, not a file"),
    (fifo("cost.json"), {"table"}, r"cost\.json cannot be read: it is a FIFO, not a file"),
    (edited("cost.json", r"(?s).*", ""), {"table"}, r"cost\.json is damaged: it is not JSON"),
    (edited("cost.json", '"macs"', '"km"'), {"table"}, r"cost\.json is damaged: convention is 'km', and must be one of macs"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(RUNS)))
def test_every_command_names_the_damaged_file_in_one_line(number, trained, tmp_path, monkeypatch, capsys):
    damage, commands, message = RUNS[number]
    shutil.copytree(trained, tmp_path / "run")
    damage(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    for command in sorted(commands):
        assert main([command, "run", *COMMANDS[command]]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        *notices, error = captured.err.splitlines()
        assert re.search(rf"nestnet {command}: error: run/.*{message}", error)
        assert all(
            re.fullmatch(r"nestnet: run/\S+: its last row is incomplete, and is left out", line) for line in notices
        )
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_report_does_not_wait_for_what_has_the_name_of_an_export(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run")
    fifo("base.safetensors")(tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), "--no_images"]) == 0
    assert (tmp_path / "run" / "report" / "report.html").is_file()
    assert capsys.readouterr().err == ""


def test_what_training_wrote_is_whole(trained):
    run, steps, epochs = read_run_tables(trained, ("motivated_fraction", "seconds"))
    assert steps.number.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert steps.epoch.tolist() == [1] * 4 + [2] * 4
    assert epochs["epoch"].tolist() == [1, 2]
    assert run.epochs == 2
    (history,) = read_histories([trained])
    assert [len(losses) for losses in history.losses] == [4, 4]
    assert history.losses[1].tolist() == steps.loss[4:].tolist()
    assert set(read_cost(trained)) == set(COST_FIELDS)
    assert len(read_table(trained / "metrics.csv", ("seconds",))) == 2


def test_a_run_is_read_while_it_trains(tmp_path, capsys):
    """Whatever part of its last row is on the disk: with two finished epochs and one batch of the third."""
    path = write_run(tmp_path / "run", MIXED, finished=2)
    steps = (path / "steps.csv").read_bytes()
    lines = steps.splitlines(keepends=True)
    begin = sum(map(len, lines[:10]))
    for end in range(begin, begin + len(lines[10]), 5):
        (path / "steps.csv").write_bytes(steps[:end])
        _, found, epochs = read_run_tables(path)
        assert (len(found), len(epochs["epoch"])) == (9, 2)
    assert capsys.readouterr().out == ""


def test_batches_of_a_finished_epoch_cannot_be_absent(tmp_path):
    path = write_run(tmp_path / "run", MIXED)
    lines = (path / "steps.csv").read_text().splitlines(keepends=True)
    (path / "steps.csv").write_text("".join(lines[:6]))
    with pytest.raises(ValueError, match=r"steps\.csv is damaged: it has no batches of epoch 3, which is finished"):
        read_run_tables(path)


def test_a_checkpoint_that_lacks_what_is_read_of_it_is_refused(trained, tmp_path):
    from nestnet.runs.checkpoint_file import read_checkpoint, write_checkpoint
    from nestnet.runs.reading import read_run

    path = shutil.copytree(trained, tmp_path / "run") / "checkpoints"
    files = Checkpoints(path).paths()
    whole_state = read_checkpoint(files[0])
    changes = {
        "best": (
            {"base": None},
            "best is {'base': None}, and must be the file of each mode's best checkpoint, or null",
        ),
        "steps_done": (-1, "steps_done is -1, and must be a whole number of at least 0"),
        "net": ([], "net is [], and must be tensors by name"),
        "class_names": (None, "class_names is None, and must be a list of names"),
    }
    for name, (value, message) in changes.items():
        for file in files:
            write_checkpoint(file, whole_state | {name: value})
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            read_run(path.parent)
        assert "\n" not in str(caught.value)


def test_json_that_a_rule_let_through_is_as_it_was(tmp_path):
    fields = {"name": "b", "count": 3, "share": None}
    (tmp_path / "fields.json").write_text(json.dumps(fields))
    assert read_json(tmp_path / "fields.json", FIELDS, "help") == fields
    assert (
        read_json(tmp_path / "fields.json", {n: replace(r, required=False) for n, r in FIELDS.items()}, "help")
        == fields
    )


def damage_checkpoint(run_dir, **fields):
    """Give the last checkpoint of a run other fields, or none of them where the value is `None`, with the right hash."""
    path = Checkpoints(run_dir / "checkpoints").paths()[0]
    state = read_checkpoint(path)
    for name, value in fields.items():
        del state[name]
        if value is not None:
            state[name] = value
    write_checkpoint(path, state)


@pytest.mark.parametrize("field", sorted(CHECKPOINT_FIELDS))
def test_a_checkpoint_without_what_is_read_of_it_is_refused(field, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    damage_checkpoint(tmp_path / "run", **{field: None})
    with pytest.raises(
        ValueError, match=f"is damaged: it has no {field}; another version of nestnet may have written it"
    ):
        read_run(tmp_path / "run")


@pytest.mark.parametrize("cost", [3, {}, {"batches": {"base": 1}}, {"batches": {"base": 1, "motivated": -1}}])
def test_a_checkpoint_that_does_not_count_its_batches_is_refused(cost, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    damage_checkpoint(tmp_path / "run", cost=cost)
    with pytest.raises(ValueError, match=r"cost is .*, and must be the number of batches that trained each mode"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [*a]", "its aliases stand for more than 16,777,216 characters"),
        ("a: &a {<<: *a}", "its aliases stand for more than 16,777,216 characters"),
        (f"a: &a {20_000 * 'x'}\nb: &b [{', '.join(1000 * ['*a'])}]", "its aliases stand for more than"),
        (5000 * "[", "it is nested too deeply"),
        (500 * "[", "it is nested too deeply"),  # not too deeply for the loader in C
        ("a: 2020-99-99", "month must be in 1..12"),
        (f"a: {5000 * '9'}", "Exceeds the limit"),
        ("a: !!bool x", "it has a value that cannot be read"),
        ("a: !!timestamp x", "it has a value that cannot be read"),
    ],
)
def test_yaml_that_stands_for_nothing_is_refused(text, reason):
    with pytest.raises(yaml.YAMLError, match=re.escape(reason)):
        parse_yaml(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=6,
)
"""What YAML files hold; the texts include names that are not UTF-8."""


@given(VALUES)
def test_what_is_written_as_yaml_is_read_again(value):
    assert parse_yaml(dump_yaml(value)) == value


@given(VALUES)
def test_both_loaders_read_the_same(value):
    text = yaml.safe_dump(value)
    fast, slow = safe_yaml.LOADERS
    try:
        found = parse_yaml(text, [fast])
    except yaml.YAMLError:
        assert "\\uD" in text, "only halves of surrogate pairs are left to the loader in Python"
    else:
        assert found == parse_yaml(text, [slow]) == value


def test_aliases_of_yaml_are_read():
    assert parse_yaml("a: &a {b: 1}\nc: [*a, *a]\nd: {<<: *a}") == {"a": {"b": 1}, "c": [{"b": 1}] * 2, "d": {"b": 1}}
