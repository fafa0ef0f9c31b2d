"""How a row of the tables in import_names.py reads.

A row is (layers of ours as a glob, their convolution or dense layer, their BatchNorm); the first that fits counts. In a
glob the layers of block `stage2_block1` are `block4/...`, where that is the fourth block of the network. In names `{s}`
and `{b}` are the numbers of stage and block, `{letter}` is the block as a letter, `{n}` the block within the network;
`{s0}`, `{b0}`, `{n0}` count from 0 and `{s1}` from 2. `{i}` is the position of a layer within its block, from 0, in the
order of `ORDER`, and `{j}` one more. `{last}` is the last part of our name.
"""
import fnmatch
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from effjax.errors import EffjaxError

BLOCK = re.compile(r'stage\d+_([a-z]+)\d+')
ORDER = ('expand', 'depthwise', 'squeeze_excite', 'project')


class Names(NamedTuple):
  """options: fields of our network. layers: rows. flattened: (layer, height x width of what it takes flattened)."""
  options: dict[str, Any]
  layers: tuple[tuple[str, ...], ...]
  flattened: tuple[str, int] = ('', 1)


def import_layers(layers: Iterable[str], names: Names) -> dict[str, tuple[str, str]]:
  """Of each layer of a network, what they call its convolution or dense layer, and its BatchNorm ('' for none).

  Args:
    layers: all of the network, as paths without the last names, `conv`, `bn` and what is below.
    names: of the source.

  Raises:
    EffjaxError: no row fits a layer.

  >>> rows = (('stem', 'conv1', 'bn1'), ('block*/depthwise', 'layer{n}.conv', 'layer{n}.bn'))
  >>> import_layers(['stem', 'stage1_block1/depthwise', 'stage2_block1/depthwise'], Names({}, rows))
  {'stem': ('conv1', 'bn1'), 'stage1_block1/depthwise': ('layer1.conv', 'layer1.bn'),
   'stage2_block1/depthwise': ('layer2.conv', 'layer2.bn')}
  """
  layers = sorted(layers, key=lambda layer: [int(n) for n in re.findall(r'\d+', layer.split('/')[0])])
  blocks = list(dict.fromkeys(found[0] for layer in layers if (found := BLOCK.match(layer))))
  return {layer: _their_layer(layer, blocks, layers, names) for layer in layers}


def _their_layer(layer, blocks, layers, names):
  block, _, inner = layer.partition('/')
  n = blocks.index(BLOCK.match(layer)[0]) + 1 if BLOCK.match(layer) else 0
  row = next((row for row in names.layers if fnmatch.fnmatchcase(BLOCK.sub(rf'\g<1>{n}', layer), row[0])), None)
  if row is None:
    raise EffjaxError(f'import_weights: no name is known for our layer {layer!r}: this source has no such network')
  s, b, *_ = [*map(int, re.findall(r'\d+', block)), 0, 0]
  first, last = inner.split('/')[0], inner.split('/')[-1]
  beside = [each for each in ORDER if any(other.split('/')[:2] == [block, each] for other in layers)]
  i = beside.index(first) if first in beside else 0
  known = dict(s=s, b=b, n=n, i=i, s0=s - 1, b0=b - 1, n0=n - 1, s1=s + 1, j=i + 1, letter=chr(96 + b), last=last)
  conv, norm = (name.format(**known) for name in (*row[1:], '')[:2])
  return conv, norm
