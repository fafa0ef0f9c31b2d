"""What a run wrote, looked at again: its options, the file against its network, the cost of each layer."""
import json
import pathlib
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from effjax import data, export
from effjax.cli import joint
from effjax.errors import EffjaxError


def options_of(folder: pathlib.Path, options: type = joint.Options) -> Any:
  """The options of a run of the command whose options these are.

  Raises:
    EffjaxError: the folder holds no run, or one of another version.
  """
  path = folder / 'options.json'
  try:
    return options(**json.loads(path.read_text()))
  except (OSError, ValueError, TypeError) as error:
    raise EffjaxError(f'{str(folder)!r} holds no run that can be read ({error}): give the folder that this '
                      'command wrote') from error


def verify(path: pathlib.Path, micro: bool = False) -> int:
  """Prints how a file compares with its network; 0 if it is the network, else 1.

  Args:
    path: the folder of a run, whose `model.tflite` runs on the test part; or a .tflite file with the network that
      `export.save` wrote beside it, with the ending .npz, which runs on random inputs.
    micro: run it in TFLite Micro, too.
  """
  if path.suffix == '.tflite' or path.is_file():
    network = export.load(path.with_suffix('.npz'))
    found = export.verify(path, network, _random(network), micro=micro)
  else:
    options, network = options_of(path), export.load(path / 'model.npz')
    images = joint.test_images(data.load(options.data, options.data_dir))
    found = export.verify(path / 'model.tflite', network, images, micro=micro)
  _show(found)
  return 0 if found.same else 1


def _random(network) -> tuple[np.ndarray, ...]:
  """256 examples that use each input's whole range."""
  random = np.random.default_rng(0)
  ends = lambda t: [(q - t.zero_point) * t.scale for q in (-2 ** (t.bits - 1), 2 ** (t.bits - 1) - 1)]
  return tuple(random.uniform(*ends(t), (256, *t.shape[1:])).astype(np.float32) for t in network.inputs)


def _show(found):
  columns = [f'{kernels}: {what}' for kernels in ('XNNPACK', 'builtin') for what in ('equal [%]', 'largest', 'worst')]
  table = Table(Column('tensor', overflow='fold'), 'kernel', 'bits', *columns)
  for row in found.tensors:
    cells = [_cells(cell) for cell in (row.xnnpack, row.builtin)]
    table.add_row(row.name, row.op, str(row.bits), *cells[0], *cells[1])
  console = Console()
  console.print(table)
  runs = [('XNNPACK', found.xnnpack), ('builtin kernels', found.builtin)]
  runs += [('TFLite Micro', found.micro.agreement)] if found.micro else []
  for name, run in runs:
    first = f', first difference in {run.first_difference}' if run.first_difference else ''
    console.print(f'{name}: {found.examples} examples, same class {100 * run.argmax_agreement:.2f} %, equal output '
                  f'codes {100 * run.codes_equal:.2f} %, largest difference {run.max_code_difference}{first}',
                  markup=False)
  if found.micro:
    console.print(f'TFLite Micro: arena {found.micro.arena_bytes:,} bytes, of which {found.micro.activation_bytes:,} '
                  'for activations')
  parts = ', '.join(f'{name} {size:,}' for name, size in found.sizes._asdict().items())
  console.print(f'{sum(found.sizes):,} bytes: {parts}')
  console.print(f'float tensors {found.float_tensors}, audit problems {len(found.audit_problems)}')
  for problem in found.audit_problems:
    console.print(problem, markup=False)


def _cells(cell):
  return f'{100 * cell.equal:.2f}', str(cell.largest), str(cell.worst_example) if cell.largest else ''


def profile(folder: pathlib.Path) -> int:
  """Prints operation, shape, bits, multiply-accumulates and bytes of each kernel with weights in `model.tflite`."""
  options_of(folder)
  network = export.load(folder / 'model.npz')
  table = Table(Column('layer', overflow='fold'), 'kernel', 'weight', 'bits', 'MACs', 'bytes', 'output')
  rows = [(node, export.macs(node), export.node_bytes(node)) for node in network.nodes if node.codes is not None]
  for node, macs, size in rows:
    table.add_row(node.output.name, node.op, 'x'.join(map(str, node.codes.shape)), str(node.bits), f'{macs:,}',
                  f'{size:,}', 'x'.join(map(str, node.output.shape)))
  table.add_row('all', '', '', '', f'{sum(r[1] for r in rows):,}', f'{sum(r[2] for r in rows):,}', '')
  Console().print(table)
  return 0
