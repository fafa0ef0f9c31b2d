"""Efficient building blocks as Flax Linen modules, called as `module(x, train)`, and fast convolutions as functions."""
from effjax.layers.asymmetric_conv import AsymmetricConv
from effjax.layers.auxiliary_head import AuxiliaryHead
from effjax.layers.basic_block import BasicBlock
from effjax.layers.batch_norm import BatchNorm
from effjax.layers.block import Block, round_channels
from effjax.layers.bottleneck import Bottleneck
from effjax.layers.boundary_refinement import BoundaryRefinement
from effjax.layers.cell import Cell, Genotype
from effjax.layers.channel_shuffle import channel_shuffle
from effjax.layers.context_module import ContextModule
from effjax.layers.conv import Conv
from effjax.layers.conv_bias import ConvBias
from effjax.layers.conv_bn import ConvBN
from effjax.layers.conv_transpose import ConvTranspose
from effjax.layers.dense import Dense
from effjax.layers.depthwise_separable import DepthwiseSeparable
from effjax.layers.dil_conv import DilConv
from effjax.layers.drop_path import drop_path
from effjax.layers.eesp import EESP
from effjax.layers.esp import ESP
from effjax.layers.factorized_reduce import FactorizedReduce
from effjax.layers.global_convolution import GlobalConvolution
from effjax.layers.igcv1 import IGCV1
from effjax.layers.igcv2 import IGCV2
from effjax.layers.igcv3 import IGCV3
from effjax.layers.inverted_residual import InvertedResidual
from effjax.layers.local_response_norm import local_response_norm
from effjax.layers.operations import OPERATIONS
from effjax.layers.prelu import PReLU
from effjax.layers.ps_roi_align import ps_roi_align
from effjax.layers.sep_conv import SepConv
from effjax.layers.separable_conv import SeparableConv
from effjax.layers.shuffle_unit import ShuffleUnit
from effjax.layers.shuffle_unit_v2 import ShuffleUnitV2
from effjax.layers.squeeze_excite import SqueezeExcite

__all__ = ['AsymmetricConv', 'AuxiliaryHead', 'BasicBlock', 'BatchNorm', 'Block', 'Bottleneck', 'BoundaryRefinement',
           'Cell', 'ContextModule', 'Conv', 'ConvBN', 'ConvBias', 'ConvTranspose', 'Dense', 'DepthwiseSeparable',
           'DilConv', 'EESP', 'ESP', 'FactorizedReduce', 'Genotype', 'GlobalConvolution', 'IGCV1', 'IGCV2', 'IGCV3',
           'InvertedResidual', 'OPERATIONS', 'PReLU', 'SepConv', 'SeparableConv', 'ShuffleUnit', 'ShuffleUnitV2',
           'SqueezeExcite', 'channel_shuffle', 'drop_path', 'local_response_norm', 'ps_roi_align', 'round_channels']
