"""Train one nested image classifier, deploy two.

`create_model` nests a base network in a motivated one. `LossDecrease` and the other conditions choose the mode
of each batch, `TrainStep` trains one batch, and `export` writes either network as a file that timm loads.

Other modules for users: `nestnet.config.schema` documents every field of a configuration, `nestnet.cost`
computes the costs of networks and runs, `nestnet.verification.comparison` checks a nested network against two
models between which weights are copied, and `nestnet.distributed.process_group` is for several processes. You
build a family of your own from the layers in `nestnet.nn`, and register it with `register_architecture`.

Importing nestnet takes a few milliseconds: `__init__.pyi` lists the public names, and each of them is imported
when it is first used, with torch and timm if it needs them. The CIFAR ResNets are registered with timm as soon
as both nestnet and timm are imported.
"""

import importlib

import lazy_loader

from nestnet.runtime.after_import import call_after_import

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

call_after_import("timm", lambda: importlib.import_module("nestnet.models.cifar_resnet"))
