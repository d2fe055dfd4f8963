"""What a command writes must not replace a file on which a run depends."""

import pytest

from nestnet.runs.contents import FILES
from nestnet.runs.outputs import check_output_beside_runs

EXPORTS = ("base.safetensors", "motivated.safetensors")


@pytest.mark.parametrize("name", [name for name in FILES if name not in EXPORTS])
def test_a_file_that_a_run_needs_is_not_replaced(tmp_path, name):
    check_output_beside_runs(tmp_path / name)  # no run is there
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ValueError, match=rf"^output = '.*{name}': the run in .* needs its {name}; name another file$"):
        check_output_beside_runs(tmp_path / name)


@pytest.mark.parametrize("name", [*EXPORTS, "losses.png", "table.csv", "base.onnx"])
def test_other_files_may_lie_beside_a_run(tmp_path, name):
    (tmp_path / "config.yaml").touch()
    check_output_beside_runs(tmp_path / name)
