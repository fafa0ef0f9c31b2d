"""Which operator runs: supernets made of `Choice`s, rules on their leaves, gradients and remedies of a search."""
from effjax.search import encoding, hierarchical, nas_bench_201, nas_bench_macro
from effjax.search.architecture_gradient import finite_differences, first_order, implicit, unrolled
from effjax.search.auxiliary_skip import auxiliary_skip
from effjax.search.binary_gates import binary_gates
from effjax.search.choice import Choice, Skip
from effjax.search.darts_space import DARTSSpace, count_cells, edge_names, unstacked
from effjax.search.derive import argmax, derive, derive_architecture, derive_cell
from effjax.search.derived import Derived
from effjax.search.dirichlet import anchor_distance, dirichlet
from effjax.search.dominant_eigenvalue import dominant_eigenvalue, should_stop
from effjax.search.enas_macro import ENASMacro
from effjax.search.enas_micro import ENASMicro
from effjax.search.exponentiated_gradient import exponentiated_gradient
from effjax.search.fbnet_block import FBNetBlock
from effjax.search.gumbel import gumbel
from effjax.search.hierarchical_cell import HierarchicalCell
from effjax.search.low_rank import LowRank
from effjax.search.masked_width import MaskedWidth, expected_mask, kept_widths
from effjax.search.mbconv import FBNET, PROXYLESSNAS, MBConvNet, mnasnet_space
from effjax.search.merged import MergedConv
from effjax.search.mirror_softmax import mirror_softmax
from effjax.search.mixed import Decision, Decisions, Mixed
from effjax.search.nas_bench_201 import NASBench201
from effjax.search.nas_bench_macro import NASBenchMacro
from effjax.search.path_dropout import path_dropout
from effjax.search.perturbation import perturbation
from effjax.search.regularizers import distance_from_one_hot, entropy, total_entropy
from effjax.search.resolution import Resolution
from effjax.search.score_function import Baseline, baseline, log_probability, score_function
from effjax.search.sigmoid import sigmoid, zero_one_loss
from effjax.search.softmax import softmax
from effjax.search.straight_through_gumbel import straight_through_gumbel
from effjax.search.uniform_path import uniform_path

__all__ = ['Baseline', 'Choice', 'DARTSSpace', 'Decision', 'Decisions', 'Derived', 'ENASMacro', 'ENASMicro', 'FBNET',
           'FBNetBlock', 'HierarchicalCell', 'LowRank', 'MBConvNet', 'MaskedWidth', 'MergedConv', 'Mixed',
           'NASBench201', 'NASBenchMacro', 'PROXYLESSNAS', 'Resolution', 'Skip', 'anchor_distance', 'argmax',
           'auxiliary_skip', 'baseline', 'binary_gates', 'count_cells', 'derive', 'derive_architecture', 'derive_cell',
           'dirichlet', 'distance_from_one_hot', 'dominant_eigenvalue', 'edge_names', 'encoding', 'entropy',
           'expected_mask', 'exponentiated_gradient', 'finite_differences', 'first_order', 'gumbel', 'hierarchical',
           'implicit', 'kept_widths', 'log_probability', 'mirror_softmax', 'mnasnet_space', 'nas_bench_201',
           'nas_bench_macro', 'path_dropout', 'perturbation', 'score_function', 'should_stop', 'sigmoid', 'softmax',
           'straight_through_gumbel', 'total_entropy', 'uniform_path', 'unrolled', 'unstacked', 'zero_one_loss']
