"""Efficient building blocks as Flax Linen modules, called as `module(x, train)`."""
from effjax.layers.conv_bn import ConvBN
from effjax.layers.depthwise_separable import DepthwiseSeparable
from effjax.layers.inverted_residual import InvertedResidual

__all__ = ['ConvBN', 'DepthwiseSeparable', 'InvertedResidual']
