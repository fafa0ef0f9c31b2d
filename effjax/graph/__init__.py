"""Structure read off a trace: channels, shrinking, profiles, taps."""
from effjax.graph.channels import Channels, channels, gate, mask
from effjax.graph.profile import Profile, profile
from effjax.graph.shrink import shrink
from effjax.graph.taps import collect, insert
from effjax.graph.trace import Program, flatten, trace

__all__ = ['Channels', 'Profile', 'Program', 'channels', 'collect', 'flatten', 'gate', 'insert', 'mask', 'profile',
           'shrink', 'trace']
