"""Which operator runs: supernets made of `Choice`s, and rules on their leaves."""
from effjax.search.choice import Choice, Skip
from effjax.search.gumbel import gumbel
from effjax.search.mbconv import MBConvNet
from effjax.search.softmax import softmax

__all__ = ['Choice', 'MBConvNet', 'Skip', 'gumbel', 'softmax']
