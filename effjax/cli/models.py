"""Every network of effjax.models with what it costs: `effjax models`."""
import difflib
import fnmatch
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from effjax import cost, graph, models
from effjax.errors import EffjaxError
from effjax.graph.profile import counts
from effjax.reparam import Fact
from effjax.report.tables import markdown, table
from effjax.tree import PyTree

COLUMNS = {'name': 'network', 'source': 'paper [survey]', 'input': 'input', 'parameters': 'parameters',
           'macs': 'multiply-accumulates', 'stated': 'the paper counts', 'float32_bytes': 'float32 bytes',
           'int8_bytes': 'int8 bytes'}
WIDE = 160  # columns of a table that is not printed on a terminal
PAGE = '''# The networks

`effjax.models.create(name)` makes each of these; `effjax profile NAME` shows its operations. This page is what
`effjax models --format markdown` prints: nothing in it is typed by hand but the column of the papers' own counts.

- Parameters are weights, biases and the scales and biases of BatchNorm. Its running statistics are not counted.
- Multiply-accumulates are those of convolutions and matrix products, for one image of the given height and width.
- Bytes are what `effjax.cost.file_bytes` predicts for the .tflite file, with weights of 32 and of 8 bits: no file was
  written for this table. Files of `mobilenet_v2`, `resnet20_cifar` and `squeezenet1_1` that were written have 0.5 to
  1.0 % fewer bytes as float32 (`export.float_tflite`) and 0.7 to 1.2 % more as int8 (`export.tflite`). Additions,
  poolings and concatenations, which the prediction leaves out, take about 110 bytes each.

{table}'''


def show(patterns: Sequence[str] = (), format: str = 'table') -> int:
  """Prints the networks whose names match a pattern (`*` and `?` as in file names), or all.

  Raises:
    EffjaxError: a pattern that matches none.
  """
  found = [describe(name) for name in matching(patterns)]
  if format == 'json':
    print(json.dumps(found, indent=1))
  elif format == 'markdown':
    print(PAGE.format(table=markdown(_cells(found))))
  else:
    Console(width=None if sys.stdout.isatty() else WIDE).print(table(_cells(found)))
  return 0


def matching(patterns: Sequence[str]) -> list[str]:
  """Names of networks that match one of the patterns, in the order of the families; of none, all."""
  for pattern in patterns:
    if not fnmatch.filter(models.NETWORKS, pattern):
      near = difflib.get_close_matches(pattern, models.NETWORKS, n=3, cutoff=0.)
      raise EffjaxError(f'models: no network is called {pattern!r}: nearest are {near}; `effjax models` lists all')
  return [name for name in models.NETWORKS if not patterns or any(fnmatch.fnmatch(name, p) for p in patterns)]


def describe(name: str) -> dict[str, Any]:
  """A network as plain data, from one trace: nothing is computed. Counts as in `models.count`."""
  variant, net = models.NETWORKS[name], models.create(name)
  fn, params, images = traced(net, variant.size)
  profile = graph.profile(fn, params, images)
  eight = {row.path: Fact(bits=jnp.float32(8)) for row in profile.rows if row.path is not None}
  sizes = jax.jit(lambda: [cost.file_bytes(profile, facts) for facts in ({}, eight)])()  # quicker than row by row
  return {'name': name, 'source': _source(net), 'input': images.shape[1:],
          'parameters': sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
          'macs': sum(counts(row).macs for row in profile.rows), 'stated': variant.paper,
          'float32_bytes': int(sizes[0]), 'int8_bytes': int(sizes[1])}


def traced(net: models.Network, size: int | tuple[int, int]) -> tuple[Callable, PyTree, jax.ShapeDtypeStruct]:
  """`fn(params, images)` in inference mode, with the shapes of both; statistics of BatchNorm are constants in it."""
  variables, images = models.shapes(net, size)
  others = {kind: jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), part)
            for kind, part in variables.items() if kind != 'params'}
  return lambda params, x: net.apply({'params': params, **others}, x, False), variables['params'], images


def _source(net) -> str:
  """Where the head of the family's module says that it is from."""
  text = sys.modules[type(net).__module__].__doc__ or ''
  links = [re.findall(pattern, text)[:1] for pattern in (r'arXiv:\d+\.\d+', r'survey (\[\d+\])')]
  return ' '.join([re.split('[:,]', text)[0], *sum(links, [])])


def _cells(found):
  number = lambda value: f'{value:,}' if isinstance(value, int) else str(value)
  shown = [row | {'input': 'x'.join(map(str, row['input']))} for row in found]
  return [list(COLUMNS.values()), *([number(row[key]) for key in COLUMNS] for row in shown)]
