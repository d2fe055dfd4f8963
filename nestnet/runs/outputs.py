"""A check that what a command writes does not replace a file on which a run depends."""

from pathlib import Path

from nestnet.runs.contents import FILES, is_run_directory
from nestnet.storage.outputs import check_new_folder, check_output
from nestnet.text.escape import quoted


def check_output_beside_runs(path: Path, field: str = "output", *, is_folder: bool = False) -> None:
    """Check that a file can be written under a path that a user gives, and that no run keeps its own data there.

    The exports of a run may be replaced: `nestnet resume` writes them again.

    Args:
        path: path of the file.
        field: name of the argument that gives the path, for the message.
        is_folder: whether a folder is written instead of a file; it must be absent or empty.

    Raises:
        ValueError: if nothing can be written there, or a run would lose its configuration, tables or records.
    """
    if is_folder:
        check_new_folder(path, field)
    else:
        check_output(path, field)
    is_own_name = path.name in FILES and path.suffix != ".safetensors"
    if is_own_name and is_run_directory(path.parent):
        raise ValueError(f"{field} = {quoted(path)}: the run in {path.parent} needs its {path.name}; name another file")
