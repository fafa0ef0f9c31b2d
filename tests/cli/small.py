"""The main job over a space that compiles in seconds; `python small.py joint ...` is `effjax joint ...`."""
import functools
import importlib
import sys
from collections.abc import Callable

from effjax import search
from effjax.cli import main

SPACE = dict(stem=8, blocks=((8, 1), (12, 2)), head=16)
CONSTANTS = {'OPERATORS': ('mb2_k3', 'sep_k3', 'skip'), 'BASELINE': ('mb2_k3',)}


def shrink(set_attribute: Callable) -> None:
  """Fewer operators, blocks and channels for `effjax joint`; nothing else is another one."""
  for name, value in CONSTANTS.items():
    set_attribute(importlib.import_module('effjax.cli.joint'), name, value)
  set_attribute(search, 'MBConvNet', functools.partial(search.MBConvNet, **SPACE))


if __name__ == '__main__':
  shrink(setattr)
  sys.exit(main(sys.argv[1:]))
