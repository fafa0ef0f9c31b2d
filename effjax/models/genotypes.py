"""Cells that were found by search, as data: NASNet [6], AmoebaNet [54], DARTS [68] and its kin.

Each is checked by the count of its network (`tests/models/darts_test.py`, `tests/models/nasnet_test.py`).
"""
from effjax.layers.cell import Genotype

NODES = (2, 3, 4, 5)  # all that a cell of DARTS computes

# Zoph et al. 2018, figure 4, with the outputs of the authors' code: also state 0, and in the reducing cell state 3
# (which an edge reads as well).
NASNET_A = Genotype(
    normal=(('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('sep_conv_5x5', 0), ('sep_conv_3x3', 0), ('avg_pool_3x3', 1),
            ('skip_connect', 0), ('avg_pool_3x3', 0), ('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('skip_connect', 1)),
    normal_concat=(0, 2, 3, 4, 5, 6),
    reduce=(('sep_conv_5x5', 1), ('sep_conv_7x7', 0), ('max_pool_3x3', 1), ('sep_conv_7x7', 0), ('avg_pool_3x3', 1),
            ('sep_conv_5x5', 0), ('skip_connect', 3), ('avg_pool_3x3', 2), ('sep_conv_3x3', 2), ('max_pool_3x3', 1)),
    reduce_concat=(3, 4, 5, 6))

# Real et al. 2019, from the authors' code (tensorflow/tpu, models/official/amoeba_net/model_specs.py) and figure 5 of
# arXiv:1802.01548v7. Figures before v7 had mistakes (tensorflow/tpu issue 312), which DARTS' genotype copies.
AMOEBANET_A = Genotype(
    normal=(('avg_pool_3x3', 1), ('max_pool_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('skip_connect', 1),
            ('avg_pool_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_5x5', 2), ('avg_pool_3x3', 5), ('sep_conv_3x3', 1)),
    normal_concat=(0, 3, 4, 6),
    reduce=(('sep_conv_3x3', 0), ('avg_pool_3x3', 1), ('max_pool_3x3', 1), ('sep_conv_7x7', 2), ('max_pool_3x3', 0),
            ('max_pool_3x3', 1), ('sep_conv_3x3', 4), ('bottleneck_7x1_1x7', 1), ('avg_pool_3x3', 0),
            ('sep_conv_7x7', 1)),
    reduce_concat=(2, 3, 4, 5, 6))

DARTS_V1 = Genotype(
    normal=(('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1), ('skip_connect', 0),
            ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)),
    normal_concat=NODES,
    reduce=(('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0),
            ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)),
    reduce_concat=NODES)

DARTS_V2 = Genotype(
    normal=(('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1),
            ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)),
    normal_concat=NODES,
    reduce=(('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0),
            ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)),
    reduce_concat=NODES)

# Chen, Xie, Wu, Tian, "P-DARTS", ICCV 2019, arXiv:1904.12760.
P_DARTS = Genotype(
    normal=(('skip_connect', 0), ('dil_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1),
            ('sep_conv_3x3', 3), ('sep_conv_3x3', 0), ('dil_conv_5x5', 4)),
    normal_concat=NODES,
    reduce=(('avg_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_3x3', 0), ('dil_conv_5x5', 2), ('max_pool_3x3', 0),
            ('dil_conv_3x3', 1), ('dil_conv_3x3', 1), ('dil_conv_5x5', 3)),
    reduce_concat=NODES)

# Xu et al., "PC-DARTS", ICLR 2020, arXiv:1907.05737: searched on CIFAR-10, and on ImageNet.
PC_DARTS_CIFAR = Genotype(
    normal=(('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 0), ('dil_conv_3x3', 1), ('sep_conv_5x5', 0),
            ('sep_conv_3x3', 1), ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)),
    normal_concat=NODES,
    reduce=(('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), ('sep_conv_5x5', 2), ('sep_conv_3x3', 0),
            ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('sep_conv_3x3', 2)),
    reduce_concat=NODES)
PC_DARTS_IMAGENET = Genotype(
    normal=(('skip_connect', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 0), ('skip_connect', 1), ('sep_conv_3x3', 1),
            ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), ('dil_conv_5x5', 4)),
    normal_concat=NODES,
    reduce=(('sep_conv_3x3', 0), ('skip_connect', 1), ('dil_conv_5x5', 2), ('max_pool_3x3', 1), ('sep_conv_3x3', 2),
            ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 3)),
    reduce_concat=NODES)

# Dong, Yang, "GDAS", CVPR 2019, arXiv:1910.04465.
GDAS_V1 = Genotype(
    normal=(('skip_connect', 0), ('skip_connect', 1), ('skip_connect', 0), ('sep_conv_5x5', 2), ('sep_conv_3x3', 3),
            ('skip_connect', 0), ('sep_conv_5x5', 4), ('sep_conv_3x3', 3)),
    normal_concat=NODES,
    reduce=(('sep_conv_5x5', 0), ('sep_conv_3x3', 1), ('sep_conv_5x5', 2), ('sep_conv_5x5', 1), ('dil_conv_5x5', 2),
            ('sep_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_5x5', 1)),
    reduce_concat=NODES)
