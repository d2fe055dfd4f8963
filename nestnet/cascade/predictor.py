"""An exported cascade that classifies image files."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nestnet.cascade.loading import read_stored_cascade
from nestnet.deploy.loading import LoadedExport
from nestnet.deploy.predictor import Predictor
from nestnet.nn.mode import Mode


class CascadePredictor(Predictor):
    """Exported cascade that classifies image files. Its probabilities are calibrated.

    Args:
        path: safetensors file or folder of ONNX files that `nestnet cascade` exported.
        device: device on which the networks of a safetensors file run; ONNX files always run on the CPU.

    Attributes:
        cascade: the cascade.

    Raises:
        ValueError: If there is no cascade there, or it is damaged; nothing in it is executed.

    Example:
        ```python
        predictor = CascadePredictor("cascade.safetensors")
        for prediction in predictor.predict([Path("photo.jpg")], top=3):
            print(prediction.file, prediction.top[0].name, prediction.passed_on)
        ```
    """

    def __init__(self, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> None:
        stored = read_stored_cascade(Path(path))
        device = torch.device(device)
        if isinstance(stored.cascade.base, nn.Module):
            format_name = "safetensors"
        else:
            format_name = "onnx"
            device = torch.device("cpu")
        self.cascade = stored.cascade.to(device)
        self._use(LoadedExport(stored.metadata[Mode.BASE], self.cascade, device, format_name))

    @torch.inference_mode()
    def _run(self, images: list[Tensor]) -> tuple[Tensor, Sequence[bool | None]]:
        output = self.cascade.decide(torch.stack(images).to(self.device))
        return output.logits, output.passed_on.tolist()
