"""Efficient building blocks as Flax Linen modules, called as `module(x, train)`, and fast convolutions as functions."""
from effjax.layers.batch_norm import BatchNorm
from effjax.layers.block import Block, round_channels
from effjax.layers.channel_shuffle import channel_shuffle
from effjax.layers.conv_bias import ConvBias
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.layers.depthwise_separable import DepthwiseSeparable
from effjax.layers.inverted_residual import InvertedResidual
from effjax.layers.squeeze_excite import SqueezeExcite

__all__ = ['BatchNorm', 'Block', 'ConvBN', 'ConvBias', 'Dense', 'DepthwiseSeparable', 'InvertedResidual',
           'SqueezeExcite', 'channel_shuffle', 'round_channels']
