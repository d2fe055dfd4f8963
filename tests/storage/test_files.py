"""Files as the product opens, writes and removes them."""

import ast
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import nestnet
from nestnet.storage import atomic
from nestnet.storage.atomic import move_into_place, resolve_destination, staging_folder, write_atomically
from nestnet.storage.opening import open_regular
from nestnet.storage.outputs import check_output
from nestnet.storage.unfinished import remove_unfinished, unfinished_name
from nestnet.text.escape import for_terminal

NOBODY = 2**22 + 1
"""A number that no process has: the kernel's largest is 2**22."""


@pytest.fixture
def others(tmp_path):
    """Names that stand for something other than a file, and what they stand for."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link-to-fifo").symlink_to("fifo")
    (tmp_path / "link-to-folder").symlink_to("folder")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    kinds = {"folder": "a folder", "fifo": "a FIFO", "socket": "a socket"}
    kinds |= {"link-to-fifo": "a FIFO", "link-to-folder": "a folder", "/dev/null": "a device"}
    return {tmp_path / name: kind for name, kind in kinds.items()}


def test_only_regular_files_are_opened(tmp_path, others):
    (tmp_path / "file").write_bytes(b"some")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"some"
    for path, kind in others.items():
        # the system itself refuses to open a socket
        with pytest.raises(OSError, match="No such device" if kind == "a socket" else f"it is {kind}, not a file"):
            open_regular(path)


def test_nothing_but_a_file_is_replaced(others):
    for path, kind in others.items():
        with pytest.raises(ValueError, match=f"^output = '{path}': it is {kind}; name a file$"):
            check_output(path)
        with pytest.raises(OSError, match=f"it is {kind}: "):
            resolve_destination(path)
        if path != Path("/dev/null"):
            before = path.lstat()
            with pytest.raises(OSError, match=f"^{path} cannot be written: it is {kind}$"):
                write_atomically(path, b"some")
            assert path.lstat() == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent/file", "there is no folder .*absent; make it first"),
        ("dangling", "there is no folder .*absent; make it first"),
        ("loop", "Too many levels of symbolic links; name a file"),
        ("x" * 256, "File name too long; name a file"),
    ],
)
def test_names_that_cannot_be_written_to(name, message, tmp_path):
    (tmp_path / "dangling").symlink_to("absent/file")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match=rf"^output = '{tmp_path / name}': {message}$"):
        check_output(tmp_path / name)
    with pytest.raises(OSError, match=r"cannot be written: "):
        write_atomically(tmp_path / name, b"some")
    assert {path.name for path in tmp_path.iterdir()} == {"dangling", "loop"}


@pytest.mark.parametrize("absent", [False, True])
def test_a_link_stays_and_the_file_at_its_end_is_replaced(absent, tmp_path):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "file"
    if not absent:
        target.write_bytes(b"before")
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to("there/file")
    write_atomically(tmp_path / "first", b"after")
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert target.read_bytes() == b"after"
    assert not target.is_symlink()
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_modes_are_those_of_the_umask_or_of_the_file_before(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new", b"")
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
        for mode in (0o600, 0o644, 0o664, 0o755):
            (tmp_path / "new").chmod(mode)
            write_atomically(tmp_path / "new", b"again")
            assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode
    finally:
        os.umask(before)


@pytest.mark.parametrize("name", ["x" * 255, "\u732b" * 85, ".hidden", "-", "a b\n"])
def test_any_name_can_be_written(name, tmp_path):
    for content in (b"first", b"second"):
        write_atomically(tmp_path / name, content)
        with staging_folder(tmp_path / name) as folder:
            write_atomically(folder / name, content * 2)
            move_into_place(folder / name, tmp_path / name)
        assert (tmp_path / name).read_bytes() == content * 2
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_nothing(error, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise error

    (tmp_path / "file").write_bytes(b"before")
    monkeypatch.setattr(atomic.os, "fsync", interrupted)
    with pytest.raises(type(error)):
        write_atomically(tmp_path / "file", b"after")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_what_an_earlier_process_of_this_number_left_is_no_hindrance(tmp_path):
    unfinished = unfinished_name(tmp_path / "file")
    (tmp_path / "mine").write_bytes(b"mine")
    unfinished.symlink_to("mine")
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "mine").read_bytes() == b"mine"
    unfinished.mkdir()
    with staging_folder(tmp_path / "file") as folder:
        write_atomically(folder / "file", b"newer")
        move_into_place(folder / "file", tmp_path / "file")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"newer", "mine": b"mine"}


def test_only_what_dead_processes_were_writing_is_removed(tmp_path):
    left = [f".step-000004.safetensors.{number}.tmp" for number in (NOBODY, os.getpid(), 10**30)]
    kept = [f".run.png.{os.getppid()}.tmp", ".notes.tmp", f"notes.{NOBODY}.tmp", f".notes.{NOBODY}", "notes"]
    for name in (*left, *kept):
        (tmp_path / name).write_bytes(b"")
    folder = tmp_path / f".base.onnx.{NOBODY}.tmp"
    folder.mkdir()
    (folder / "base.onnx").write_bytes(b"")
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
    remove_unfinished(tmp_path / "absent")


# One place for all writing

WRITERS = {f"storage/{name}.py" for name in ("atomic", "folders", "growing_table", "lock", "opening", "unfinished")}
WRITERS |= {"deploy/openvino_format.py", "deploy/quantization.py", "deploy/native_output.py"}
"""Just these open files to write them, or remove some. TensorBoard's own writer is in another package; OpenVINO and
onnxruntime write into a temporary folder, and what libraries print into a temporary file."""
READERS = {f"storage/{name}.py" for name in ("growing_table", "unfinished")} | {"deploy/openvino_format.py"}
"""Just these read what `open_regular` did not open: a table that is open already, the system's list of processes, and what
OpenVINO has written."""
PATH_METHODS = {"write_text", "write_bytes", "unlink", "rmdir", "rename", "touch", "symlink_to", "hardlink_to"}
FUNCTIONS = {
    "os": {"replace", "rename", "renames", "remove", "unlink", "rmdir", "removedirs", "truncate", "ftruncate", "link"},
    "shutil": {"rmtree", "move", "copy", "copy2", "copyfile", "copytree"},
    "tempfile": {"NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile", "mkstemp", "mkdtemp"},
    "json": {"dump"},
    "pickle": {"dump"},
    "np": {"save", "savez", "savetxt"},
}
INTO_MEMORY = {"savefig", "save"}
"""Methods that write to what is given first, which must be a buffer in memory."""


def faults(tree: ast.Module) -> list[int]:
    """The lines of a module that write to a file, or remove one."""
    buffers = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and re.search(r"\b(Bytes|String)IO\(", ast.unparse(node)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            buffers |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and writes(node, buffers)]


def writes(call: ast.Call, buffers: set[str]) -> bool:
    if isinstance(call.func, ast.Name):
        return call.func.id == "open" and opens_to_write(call, 1)
    if not isinstance(call.func, ast.Attribute):
        return False
    method = call.func.attr
    owner = ast.unparse(call.func.value)
    if method in FUNCTIONS.get(owner, ()) or method in PATH_METHODS:
        return True
    if method == "open":
        return ("O_WRONLY" in ast.unparse(call) and "devnull" not in ast.unparse(call)) or opens_to_write(call, 0)
    # `checkpoints.save(state)` and the like are methods of ours, which come down to the functions that are looked for here
    foreign = method == "savefig" or owner in ("torch", "torch.export", "image", "safetensors.torch")
    if method in INTO_MEMORY and foreign:
        return not any(ast.unparse(argument) in buffers for argument in call.args)
    return False


def opens_to_write(call: ast.Call, position: int) -> bool:
    given = [word.value for word in call.keywords if word.arg == "mode"] + call.args[position : position + 1]
    modes = [mode.value for mode in given if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
    return any(set(mode) & set("wax+") for mode in modes)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("path.write_text(text)", True),
        ("open(path, 'w')", True),
        ("path.open(mode='r+b')", True),
        ("os.replace(a, b)", True),
        ("text.replace(a, b)", False),
        ("path.unlink()", True),
        ("figure.savefig(path)", True),
        ("content = BytesIO()\nfigure.savefig(content)", False),
        ("torch.save(state, path)", True),
        ("with open(path) as file: pass", False),
        ("with path.open('rb') as file: pass", False),
        ("os.open(path, os.O_WRONLY)", True),
    ],
)
def test_the_search_for_writes_finds_them(code, found):
    assert bool(faults(ast.parse(code))) == found


def modules():
    package = Path(nestnet.__file__).parent
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).as_posix(), ast.parse(path.read_text())


def test_one_place_opens_every_file_that_is_read():
    found = []
    for name, tree in modules():
        lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and opens_to_read(node.func)]
        assert lines or name not in READERS
        if name not in READERS:
            found += [f"{name}:{line}" for line in lines]
    assert found == [], "open with nestnet.storage.opening.open_regular: a FIFO would be waited for"


def opens_to_read(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        # Pillow and tarfile get a file that is open; a folder, and the device that takes all output, are opened by os; a
        # store of images opens a regular file
        others = ("os", "Image", "tarfile", "store", "self.store")
        opens = function.attr == "open" and ast.unparse(function.value) not in others
        return opens or function.attr in ("read_text", "read_bytes")
    return isinstance(function, ast.Name) and function.id == "open"


def test_one_place_writes_every_file():
    found = []
    for name, tree in modules():
        lines = faults(tree)
        assert lines or name not in WRITERS
        if name not in WRITERS:
            found += [f"{name}:{line}" for line in lines]
    assert found == [], (
        "write with nestnet.storage.atomic.write_atomically, and remove with nestnet.storage.folders.remove_file"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe 猫 👩\u200d🔬", "größe 猫 👩\u200d🔬"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\r\t", r"a\nb\r\t"),
        ("right\u202eleft\u2028", r"right\u202eleft\u2028"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
    ],
)
def test_a_terminal_gets_nothing_invisible(text, shown):
    assert for_terminal(text) == shown


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="only Linux tells which processes have ended")
def test_what_a_process_left_that_nobody_waited_for_is_removed(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is there still
    left = tmp_path / f".steps.csv.{child.pid}.tmp"
    left.touch()
    remove_unfinished(tmp_path)
    assert not left.exists()
    child.wait()
