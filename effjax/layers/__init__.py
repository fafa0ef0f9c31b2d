"""Efficient building blocks as Flax Linen modules, called as `module(x, train)`, and fast convolutions as functions."""
from effjax.layers.asymmetric_conv import AsymmetricConv
from effjax.layers.auxiliary_head import AuxiliaryHead
from effjax.layers.avg_pool import avg_pool
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
from effjax.layers.convolution import conv_general_dilated
from effjax.layers.dense import Dense
from effjax.layers.depthwise_conv import depthwise_conv
from effjax.layers.depthwise_separable import DepthwiseSeparable
from effjax.layers.dil_conv import DilConv
from effjax.layers.drop_path import drop_path
from effjax.layers.eesp import EESP
from effjax.layers.esp import ESP
from effjax.layers.factorized_reduce import FactorizedReduce
from effjax.layers.fast import fast
from effjax.layers.ghost_module import GhostModule
from effjax.layers.global_convolution import GlobalConvolution
from effjax.layers.grouped_conv import grouped_conv
from effjax.layers.igcv1 import IGCV1
from effjax.layers.igcv2 import IGCV2
from effjax.layers.igcv3 import IGCV3
from effjax.layers.inverted_residual import InvertedResidual
from effjax.layers.layer_norm import LayerNorm
from effjax.layers.layer_scale import LayerScale
from effjax.layers.local_response_norm import local_response_norm
from effjax.layers.materialize import materialize
from effjax.layers.max_pool import max_pool
from effjax.layers.operations import OPERATIONS
from effjax.layers.pointwise_conv import pointwise_conv
from effjax.layers.prelu import PReLU
from effjax.layers.ps_roi_align import ps_roi_align
from effjax.layers.rep_vgg_block import RepVGGBlock, merge_branches
from effjax.layers.sep_conv import SepConv
from effjax.layers.separable_conv import SeparableConv
from effjax.layers.shuffle_unit import ShuffleUnit
from effjax.layers.shuffle_unit_v2 import ShuffleUnitV2
from effjax.layers.squeeze_excite import SqueezeExcite
from effjax.layers.universal_inverted_bottleneck import UniversalInvertedBottleneck
from effjax.layers.windows import ceil_mode

__all__ = ['AsymmetricConv', 'AuxiliaryHead', 'BasicBlock', 'BatchNorm', 'Block', 'Bottleneck', 'BoundaryRefinement',
           'Cell', 'ContextModule', 'Conv', 'ConvBN', 'ConvBias', 'ConvTranspose', 'Dense', 'DepthwiseSeparable',
           'DilConv', 'EESP', 'ESP', 'FactorizedReduce', 'Genotype', 'GhostModule', 'GlobalConvolution', 'IGCV1',
           'IGCV2', 'IGCV3', 'InvertedResidual', 'LayerNorm', 'LayerScale', 'OPERATIONS', 'PReLU', 'RepVGGBlock',
           'SepConv', 'SeparableConv', 'ShuffleUnit', 'ShuffleUnitV2', 'SqueezeExcite', 'UniversalInvertedBottleneck',
           'avg_pool', 'ceil_mode', 'channel_shuffle', 'conv_general_dilated', 'depthwise_conv', 'drop_path', 'fast',
           'grouped_conv', 'local_response_norm', 'max_pool', 'merge_branches', 'pointwise_conv', 'ps_roi_align',
           'round_channels']
