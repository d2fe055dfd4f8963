"""The families. Importing this package registers their architectures, and the CIFAR ResNets with timm."""

from nestnet.models import cifar_resnet, efficientnet, resnet, vit
from nestnet.models.registry import create_model, list_models

__all__ = ["cifar_resnet", "create_model", "efficientnet", "list_models", "resnet", "vit"]
