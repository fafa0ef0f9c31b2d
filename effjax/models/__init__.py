"""The survey's networks, and today's, as Flax Linen modules, called as `net.apply(variables, x, train)`."""
from effjax.models.import_weights import import_weights
from effjax.models.network import Network, widths
from effjax.models.registry import NETWORKS, count, create, shapes
from effjax.models.variant import Variant

__all__ = ['NETWORKS', 'Network', 'Variant', 'count', 'create', 'import_weights', 'shapes', 'widths']
