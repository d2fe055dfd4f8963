"""Damaged and forged files for the commands that read them: each must be refused, with one line that names the file.

    python benchmarks/damage.py [--files 200] [--seed 0]

Trains a short run on the digits, and makes damaged files of these kinds from its checkpoints and exports: truncated at
a random place; one bit flipped; wrong shapes, wrong types or absent tensors with a matching hash; of another
architecture; a pickle that would run code; a header or a tensor that claims gigabytes. Checkpoints go to `nestnet
resume` and `nestnet evaluate`, exports to `nestnet predict` and, as initial weights, to `nestnet train`. Each command
must end with exit code 2 and one line that names the file; no code may have run, nothing may have changed on the disk,
and memory must not grow by more than the size of some of the files.

Prints a table, and writes benchmarks/results/damage-cpu.json. It takes a minute, and exits with 1 if any file was
not refused in this way.
"""

import argparse
import io
import os
import pickle
import random
import resource
import shutil
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from common import show, write
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from nestnet.cli.main import main as nestnet
from nestnet.runs.checkpoint_file import read_checkpoint, write_checkpoint
from nestnet.storage.hashed import serialize_hashed

TRAIN = ["train", "--epochs", "1", "--data.batch_size", "400", "--motivation.k", "1", "--checkpoint_steps", "1"]


class Code:
    """Object that creates a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def truncate(path: Path, draw: random.Random, marker: Path) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size))


def flip_bit(path: Path, draw: random.Random, marker: Path) -> None:
    content = bytearray(path.read_bytes())
    # Half of the bits are in the header, which is small.
    end = len(content) if draw.random() < 0.5 else 8 + int.from_bytes(content[:8], "little")
    content[draw.randrange(end)] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def store_code(path: Path, draw: random.Random, marker: Path) -> None:
    if draw.random() < 0.5:
        path.write_bytes(pickle.dumps(Code(marker)))
    else:
        torch.save({"net": Code(marker)}, path)


def claim_gigabytes(path: Path, draw: random.Random, marker: Path) -> None:
    claimed = draw.randrange(2**30, 2**40)
    if draw.random() < 0.5:
        path.write_bytes(struct.pack("<Q", claimed) + b'{"x":{"dtype":"F32"' + draw.randbytes(1000))
    else:
        header = f'{{"x":{{"data_offsets":[0,{4 * claimed}],"dtype":"F32","shape":[{claimed}]}}}}'.encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + draw.randbytes(1000))


def forge_tensors(
    change: Callable[[dict[str, torch.Tensor], random.Random], None],
) -> Callable[[Path, random.Random, Path], None]:
    """Return a function that changes the tensors of a checkpoint or export and stores a matching hash."""

    def forge(path: Path, draw: random.Random, marker: Path) -> None:
        if path.parent.name == "checkpoints":
            state = read_checkpoint(path)
            change(state["net"], draw)
            change(state["average"] or state["net"], draw)
            write_checkpoint(path, state)
            return
        with safe_open(path, framework="pt") as file:
            metadata = {name: value for name, value in file.metadata().items() if name != "sha256"}
        tensors = load_file(path)
        change(tensors, draw)
        path.write_bytes(b"".join(serialize_hashed(tensors, metadata)))

    return forge


def _choose_tensor(tensors: dict[str, torch.Tensor], draw: random.Random) -> str:
    return draw.choice(sorted(name for name, tensor in tensors.items() if tensor.ndim))


def change_shape(tensors: dict[str, torch.Tensor], draw: random.Random) -> None:
    name = _choose_tensor(tensors, draw)
    tensors[name] = torch.zeros([size + 1 for size in tensors[name].shape])


def change_type(tensors: dict[str, torch.Tensor], draw: random.Random) -> None:
    name = _choose_tensor(tensors, draw)
    tensors[name] = tensors[name].to(torch.int32)


def remove_tensor(tensors: dict[str, torch.Tensor], draw: random.Random) -> None:
    del tensors[_choose_tensor(tensors, draw)]


def change_architecture(tensors: dict[str, torch.Tensor], draw: random.Random) -> None:
    for name in [name for name in tensors if name.startswith("layer3")]:
        tensors[name.replace("layer3", "layer4")] = tensors.pop(name)


KINDS = {
    "cut short": truncate,
    "one bit turned": flip_bit,
    "wrong shape": forge_tensors(change_shape),
    "wrong type": forge_tensors(change_type),
    "a tensor absent": forge_tensors(remove_tensor),
    "other architecture": forge_tensors(change_architecture),
    "pickle that runs code": store_code,
    "claims gigabytes": claim_gigabytes,
}


def run_command(arguments: list[str]) -> tuple[int, str]:
    """Run a command, and return its exit code and its standard error."""
    error = io.StringIO()
    with redirect_stderr(error), redirect_stdout(io.StringIO()):
        code = nestnet(arguments)
    return code, error.getvalue()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def peak_memory() -> int:
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def try_file(run: Path, folder: Path, kind: str, which: str, draw: random.Random) -> dict[str, Any]:
    """Damage a file in a copy of the run, and run the command that reads it."""
    copy, marker = folder / "copy", folder / "executed"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    if which == "checkpoint":
        targets = sorted((copy / "checkpoints").iterdir())
        name = draw.choice(["resume", "evaluate"])
        command = {"resume": ["resume", str(copy)], "evaluate": ["evaluate", str(copy), "--mode", "base"]}[name]
    else:
        targets = [copy / "base.safetensors"]
        name = draw.choice(["predict", "train"])
        image = str(folder / "image.png")
        predict = ["predict", image, "--model", str(targets[0])]
        train = [*TRAIN, "--model.base_weights", str(targets[0]), "--run_dir", str(folder / "new")]
        command = {"predict": predict, "train": train}[name]
    for target in targets:
        KINDS[kind](target, draw, marker)
    before, memory, size = contents(folder), peak_memory(), sum(target.stat().st_size for target in targets)
    code, said = run_command(command)
    named = any(str(target) in said for target in targets) or (
        which == "checkpoint" and str(copy / "checkpoints") in said
    )
    wrong = {
        "exit code": code != 2,
        "lines": said.count("\n") != 1,
        "file not named": not named,
        "code ran": marker.exists(),
        "disk changed": contents(folder) != before or (folder / "new").exists(),
    }
    return {
        "kind": kind,
        "file": which,
        "command": name,
        "said": said.replace(str(folder), "").strip(),
        "wrong": [name for name, is_so in wrong.items() if is_so],
        "bytes": size,
        "memory_growth": peak_memory() - memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="the result file")
    options = parser.parse_args()
    draw, results = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = folder / "run"
        code, said = run_command([*TRAIN, "--run_dir", str(run)])
        assert code == 0, said
        Image.new("L", (8, 8)).save(folder / "image.png")
        for which, name in (("checkpoint", "resume"), ("export", "predict")):  # undamaged files are accepted
            good = (
                ["resume", str(run)]
                if name == "resume"
                else ["predict", str(folder / "image.png"), "--model", str(run / "base.safetensors")]
            )
            assert run_command(good)[0] == 0, which
        kinds = [(kind, which) for kind in KINDS for which in ("checkpoint", "export")]
        for index in range(options.files):
            results.append(try_file(run, folder, *kinds[index % len(kinds)], draw))
            if results[-1]["wrong"]:
                print(results[-1], flush=True)
    rows, refused = [], Counter((r["kind"], r["file"]) for r in results if not r["wrong"])
    for (kind, which), count in Counter((result["kind"], result["file"]) for result in results).items():
        growth = max(r["memory_growth"] for r in results if (r["kind"], r["file"]) == (kind, which))
        rows.append([kind, which, str(count), str(refused[kind, which]), f"{growth / 2**20:.0f}"])
    show("damaged files", ["kind", "file", "tried", "refused in one line", "memory grew by at most, MiB"], rows)
    print(write("damage", {"results": results}, options.output, torch.device("cpu")))
    if any(result["wrong"] for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
