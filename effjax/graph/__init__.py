"""Structure read off a trace: channels, shrinking, profiles, taps."""
from effjax.graph.channels import Channels, channels, gate, mask
from effjax.graph.explain import Explanation, explain
from effjax.graph.pin import pin
from effjax.graph.profile import Profile, profile
from effjax.graph.saved import restore, save
from effjax.graph.shrink import shrink
from effjax.graph.taps import Tap, collect, insert, taps
from effjax.graph.trace import Program, flatten, trace

__all__ = ['Channels', 'Explanation', 'Profile', 'Program', 'Tap', 'channels', 'collect', 'explain', 'flatten', 'gate',
           'insert', 'mask', 'pin', 'profile', 'restore', 'save', 'shrink', 'taps', 'trace']
