"""Which operator runs: supernets made of `Choice`s, rules on their leaves, gradients and remedies of a search."""
from effjax.search.architecture_gradient import finite_differences, first_order, implicit, unrolled
from effjax.search.choice import Choice, Skip
from effjax.search.derive import argmax, derive, derive_cell
from effjax.search.dominant_eigenvalue import dominant_eigenvalue, should_stop
from effjax.search.gumbel import gumbel
from effjax.search.mbconv import MBConvNet
from effjax.search.perturbation import perturbation
from effjax.search.regularizers import AuxiliarySkip, distance_from_one_hot, entropy, total_entropy
from effjax.search.softmax import softmax

__all__ = ['AuxiliarySkip', 'Choice', 'MBConvNet', 'Skip', 'argmax', 'derive', 'derive_cell', 'distance_from_one_hot',
           'dominant_eigenvalue', 'entropy', 'finite_differences', 'first_order', 'gumbel', 'implicit', 'perturbation',
           'should_stop', 'softmax', 'total_entropy', 'unrolled']
