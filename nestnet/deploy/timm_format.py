"""timm's own format: a folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` loads.

Pushed to the Hugging Face Hub as it is, the same folder loads as `hf-hub:OWNER/NAME`. `config.json` says everything about
the network and its images, so that neither nestnet nor any argument is needed.
"""

import json
from pathlib import Path
from typing import Any

import timm
from torch import nn

from nestnet.data.class_names import imagenet_class_names
from nestnet.data.preprocessing import timm_eval_config
from nestnet.deploy.export_format import ExportFormat, LoadedModel, UsageCode
from nestnet.models.registry import find_architecture
from nestnet.nn.model import NestedModel
from nestnet.storage.atomic import write_atomically
from nestnet.text.escape import for_python, is_utf8, quoted
from nestnet.text.messages import first_line
from nestnet.weights.export_file import read_export
from nestnet.weights.exporting import write_export
from nestnet.weights.metadata import Metadata
from nestnet.weights.timm_folder import CONFIG_NAME, WEIGHTS_NAME


class TimmFormat(ExportFormat):
    """Format of a folder with `config.json`, and the weights as `nestnet.export` writes them."""

    name = "timm"
    suffix = ""
    weights_name = WEIGHTS_NAME
    holds_program = False

    @property
    def runtime(self) -> str:
        return f"timm {timm.__version__}"

    def check_target(self, architecture: str, path: Path) -> None:
        registered_by = find_architecture("architecture", architecture).registered_by
        if registered_by is not None:
            raise ValueError(
                f"format = {self.name!r}: timm itself has no {architecture}, which only `import {registered_by}` makes "
                "known to it; choose another format, such as safetensors or onnx"
            )
        if not is_utf8(str(path)):
            raise ValueError(
                f"output = {quoted(path)}: timm cannot load a folder whose name is not UTF-8; choose another"
            )

    def write(self, net: NestedModel, metadata: Metadata, path: Path) -> None:
        path.mkdir()
        write_export(net, metadata, path / WEIGHTS_NAME)
        write_atomically(path / CONFIG_NAME, json.dumps(create_config(metadata), indent=2) + "\n")

    def load(self, path: Path, metadata: Metadata) -> LoadedModel:
        assert read_export(path / WEIGHTS_NAME) == metadata
        try:
            model: nn.Module = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
        except (RuntimeError, OSError, ValueError, TypeError, KeyError, AssertionError) as error:  # timm's
            reason = f"{self.runtime} cannot load {metadata.architecture} from a folder: {first_line(error)}"
            raise ValueError(f"format = {self.name!r}: {reason}") from error
        # Whoever asks timm for the preparation of images must get that of the run.
        prepared = timm.data.resolve_model_data_config(model)
        expected = _describe_images(metadata)
        for name, value in prepared.items():
            if _as_list(value) != expected[name]:
                reason = f"{self.runtime} would prepare images with {name} = {value}, and not {expected[name]}"
                raise ValueError(f"format = {self.name!r}: {reason}")
        return model

    def usage(self, path: str, metadata: Metadata) -> UsageCode:
        load = f"timm.create_model({for_python(f'local-dir:{path}')}, pretrained=True)"
        prepare = "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"
        return UsageCode(["import timm"], "model", load, "model.eval()(images)", [prepare])


def create_config(metadata: Metadata) -> dict[str, Any]:
    """Return the content of `config.json` for a network, as `timm.models.save_for_hf` writes it.

    Args:
        metadata: metadata of the network.

    Returns:
        The fields of the file, for JSON.
    """
    network = metadata.skeleton()
    config: dict[str, Any] = {
        "architecture": metadata.architecture,
        "num_classes": metadata.num_classes,
        "num_features": network.num_features,
    }
    # timm states the pooling if the network itself names it.
    pooling = getattr(network, "global_pool", None)
    if isinstance(pooling, str):
        config["global_pool"] = pooling
    config |= _describe_classes(metadata)
    config["model_args"] = metadata.timm_arguments
    config["pretrained_cfg"] = _describe_weights(metadata, network)
    return config


def _describe_classes(metadata: Metadata) -> dict[str, Any]:
    """Return the names of the classes; for ImageNet-1k the WordNet ids, with the names as descriptions, as timm does."""
    names = metadata.class_names
    if not names:
        return {}
    imagenet = imagenet_class_names()
    if names == list(imagenet.values()):
        return {"label_names": list(imagenet), "label_descriptions": imagenet}
    return {"label_names": names}


def _describe_weights(metadata: Metadata, network: Any) -> dict[str, Any]:
    """Return the `pretrained_cfg` of a network with these weights.

    Args:
        metadata: metadata of the network.
        network: the network as timm builds it, without values.
    """
    # What timm says about its own weights does not hold for these: their tag, licence, origin and sizes for testing.
    timms = network.pretrained_cfg
    has_same_size = list(timms["input_size"][1:]) == list(metadata.size)
    return {
        **_describe_images(metadata),
        "fixed_input_size": timms.get("fixed_input_size", False),
        "pool_size": timms.get("pool_size") if has_same_size else None,
        "num_classes": metadata.num_classes,
        "first_conv": timms.get("first_conv"),
        "classifier": timms.get("classifier"),
        "custom_load": False,
    }


def _describe_images(metadata: Metadata) -> dict[str, Any]:
    """Return the entries of `pretrained_cfg` from which timm prepares images as the run's own evaluation does."""
    return {
        "input_size": list(metadata.input_size),
        "mean": metadata.mean,
        "std": metadata.std,
        **timm_eval_config(metadata.crop_pct),
    }


def _as_list(value: Any) -> Any:
    """Return a tuple as a list, as JSON stores it."""
    if isinstance(value, tuple):
        return list(value)
    return value
