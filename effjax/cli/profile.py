"""What a network or function costs, operation by operation: `effjax profile mobilenet_v2`, `... module:function`."""
import difflib
import importlib
import inspect
import json
import os
import pathlib
import sys
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from effjax import cost, graph, models
from effjax.cli.models import traced
from effjax.errors import EffjaxError
from effjax.graph.profile import Row, counts, groups, intensity, size
from effjax.report.pictures import operations

WANTED = ('give module:function, called without arguments, that returns (fn, params, *args): fn(params, *args) is '
          'profiled, and params and args may be jax.ShapeDtypeStruct')
COLUMNS = ('operation', 'kind', 'runs', 'MACs', 'parameters', 'read', 'written', 'MACs/byte', 'groups')
WIDE = 200  # columns of a table that is not printed on a terminal


def show(name: str, *, format: str = 'table', bits: int = 32, plot: str | None = None) -> int:
  """Prints the profile of a network of `effjax.models`, or of `module:function`; draws it into the PNG file `plot`."""
  file = None if plot is None else _free(plot)
  found = describe(_profiled(name), bits)
  if file is not None:
    _write(file, _drawn(found))
  if format == 'json':
    print(json.dumps(found, indent=1))
    return 0
  console = Console(width=None if sys.stdout.isatty() else WIDE)
  console.print(_table(found))
  print(_summary(found))
  return 0


def describe(profile: graph.Profile, bits: int) -> dict[str, Any]:
  """A profile as plain numbers; bytes are those of weights and activations of `bits` bits."""
  paths = {row.path for row in profile.ops}
  leaves = {path: size(axes) for path, axes in profile.leaves.items()}
  ops = [_operation(profile, row, bits) for row in profile.ops]
  total = {'macs': sum(op['macs'] for op in ops), 'parameters': sum(leaves.values()),
           'read': sum(op['read'] for op in ops), 'written': sum(op['written'] for op in ops),
           'weight_bytes': sum(leaves.values()) * bits / 8,
           'peak_ram_bytes': float(cost.peak_ram(profile, {}, bytes_per_entry=bits / 8))}
  return {'bits': bits, 'ops': ops, 'total': total, 'group_sizes': np.bincount(profile.groups).tolist(),
          'other_parameters': sum(n for path, n in leaves.items() if path not in paths),
          'not_seen': [op['scope'] or op['kind'] for op in ops if op['kind'] in ('while', 'cond')]}


def _operation(profile, row: Row, bits):
  axes = {'weight': row.weight_axes if row.path is not None else (), 'read': row.in_axes, 'written': row.out_axes}
  return {'path': row.path, 'scope': row.scope, 'kind': row.kind, 'count': row.count, **counts(row)._asdict(),
          'macs_per_byte': intensity(row, bytes_per_entry=bits / 8, weight_bytes=bits / 8),
          'groups': {name: [list(g) for g in groups(of, profile.groups)] for name, of in axes.items()},
          'guards': [list(guard) for guard in row.guards]}


def _profiled(name) -> graph.Profile:
  fn, *arguments = _made(name)
  try:
    return graph.profile(fn, *arguments)
  except (TypeError, ValueError, LookupError, AttributeError) as error:  # arguments that do not fit fn
    reason = (str(error).strip().splitlines() or [''])[0]
    raise EffjaxError(f'profile: fn of {name!r} cannot be traced ({type(error).__name__}: {reason}): '
                      f'{WANTED}') from error


def _made(name):
  if name in models.NETWORKS:
    return traced(models.create(name), models.NETWORKS[name].size)
  if ':' not in name:
    near = difflib.get_close_matches(name, models.NETWORKS, n=3, cutoff=0.)
    raise EffjaxError(f'profile: {name!r} is neither the folder of a run nor a network: nearest are {near}; `effjax '
                      f'models` lists all; for a function {WANTED}')
  module, _, attribute = name.partition(':')
  try:
    make = getattr(importlib.import_module(module), attribute)
  except (ImportError, AttributeError, ValueError) as error:
    raise EffjaxError(f'profile: {name!r} cannot be imported ({error}): {WANTED}; modules of the current folder are '
                      'found by python -m effjax') from error
  try:
    inspect.signature(make).bind()
  except (TypeError, ValueError) as error:
    raise EffjaxError(f'profile: {name!r} cannot be called without arguments ({error}): {WANTED}') from error
  made = make()
  if not isinstance(made, tuple) or len(made) < 2 or not callable(made[0]):
    shown = tuple(type(part).__name__ for part in made) if isinstance(made, tuple) else type(made).__name__
    raise EffjaxError(f'profile: {name!r} returns {shown}: {WANTED}')
  return made


def _free(plot):
  file = pathlib.Path(plot)
  if file.exists():
    raise EffjaxError(f'profile: --plot {plot!r} exists: choose another file')
  if file.suffix != '.png' or not file.parent.is_dir():
    raise EffjaxError(f'profile: --plot {plot!r}: wanted a file name that ends in .png, in a folder that exists')
  return file


def _drawn(found) -> bytes:
  try:
    return operations(found)
  except ImportError as error:
    raise EffjaxError('profile: --plot needs matplotlib, which is not installed: '
                      "pip install 'effjax[plots]'") from error


def _write(file, content):
  beside = file.with_name(f'.{file.name}.part')  # then renamed: all of it or nothing
  try:
    beside.write_bytes(content)
    os.replace(beside, file)
  except OSError as error:
    raise EffjaxError(f'profile: --plot {str(file)!r} cannot be written ({error}): choose another file') from error


def _table(found):
  table = Table()
  for name in COLUMNS:
    table.add_column(name, justify='left' if name in ('operation', 'kind', 'groups') else 'right', overflow='fold')
  for op in found['ops']:
    shown = sorted({g for axes in op['groups'].values() for axis in axes for g in axis})
    chosen = ''.join(f' if {path}[{entry}]' for path, entry in op['guards'])
    table.add_row(Text(_name(op) + chosen), op['kind'], f'{op["count"]:,}', *_numbers(op), f'{op["macs_per_byte"]:.3g}',
                  ' '.join(map(str, shown)))
  if found['other_parameters']:
    table.add_row(Text('parameters that no operation above reads'), '', '', '', f'{found["other_parameters"]:,}')
  table.add_section()
  table.add_row('all', '', '', *_numbers(found['total']))
  return table


def _name(op):
  return op['scope'] if op['path'] is None else op['path'] or '(parameters)'


def _numbers(op):
  return [f'{op[key]:,}' for key in ('macs', 'parameters', 'read', 'written')]


def _summary(found):
  total, sizes = found['total'], found['group_sizes']
  lines = [f'{found["bits"]} bits: weights {total["weight_bytes"]:,.0f} bytes, peak of the activations '
           f'{total["peak_ram_bytes"]:,.0f} bytes; prunable channels of each group: '
           f'{" ".join(f"{g}: {n}" for g, n in enumerate(sizes)) or "none"}']
  lines += [f'not counted: what the loop or branch in {scope} computes' for scope in found['not_seen']]
  return '\n'.join(lines)
