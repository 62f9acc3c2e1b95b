"""EfficientNet-Lite0 cells: 1280 pooled values of the picture at the cell, from a network lighter than VGG16.

Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks" (ICML 2019), in the "lite"
form of tensorflow/tpu, models/official/efficientnet/lite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from streamer.features.pictures import Pictures, PictureSpec
from streamer.networks.backends import TorchNetwork
from streamer.networks.efficientnet_lite0 import SIZE, network_of
from streamer.networks.weights import WeightsStore


def factory(spec: Mapping[str, Any], weights: WeightsStore) -> Pictures:
    """The EfficientNet-Lite0 modality of a bundle's spec, with its network.

    Raises:
        TypeError, ValueError: the spec has an unknown field or an invalid value.
        WeightsError: the weights are missing, not those of the spec, or not EfficientNet-Lite0's.

    """
    wanted = PictureSpec(**spec)
    found = weights.find("efficientnet_lite0", wanted.weights_sha256)
    network = TorchNetwork(network_of(found.tensors(), found.path))
    return Pictures("efficientnet_lite0", SIZE, replace(wanted, weights_sha256=found.sha256), network)
