"""VGG16 cells: the 4096 values of the second dense layer for the picture at the cell.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition" (ICLR 2015), as in
torchvision. The paper takes the "last feedforward layer" of 4096 values (paper section 4.2): fc7 after its ReLU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from streamer.features.pictures import Pictures, PictureSpec
from streamer.networks.backends import TorchNetwork
from streamer.networks.vgg16 import SIZE, network_of
from streamer.networks.weights import WeightsStore


def factory(spec: Mapping[str, Any], weights: WeightsStore) -> Pictures:
    """The VGG16 modality of a bundle's spec, with its network.

    Raises:
        TypeError, ValueError: the spec has an unknown field or an invalid value.
        WeightsError: the weights are missing, not those of the spec, or not VGG16's.

    """
    wanted = PictureSpec(**spec)
    found = weights.find("vgg16", wanted.weights_sha256)
    network = TorchNetwork(network_of(found.tensors(), found.path))
    return Pictures("vgg16", SIZE, replace(wanted, weights_sha256=found.sha256), network)
