"""What a run wrote, looked at again: its options, the file against its network, the cost of each layer."""
import json
import pathlib

from rich.console import Console
from rich.table import Column, Table

from effjax import data, export
from effjax.cli.joint import Options, test_images
from effjax.errors import EffjaxError


def options_of(folder: pathlib.Path) -> Options:
  """The options of a run.

  Raises:
    EffjaxError: the folder holds no run, or one of another version.
  """
  path = folder / 'options.json'
  try:
    return Options(**json.loads(path.read_text()))
  except (OSError, ValueError, TypeError) as error:
    raise EffjaxError(f'{str(folder)!r} holds no run that can be read ({error}): give the folder that effjax joint '
                      'wrote') from error


def verify(folder: pathlib.Path) -> int:
  """Prints how `model.tflite` compares with its network on the test part; 0 if it is the network, else 1."""
  options, network = options_of(folder), export.load(folder / 'model.npz')
  dataset = data.load(options.data, options.data_dir)
  found = export.verify(folder / 'model.tflite', network, test_images(dataset))
  table = Table(Column('tensor', overflow='fold'), 'kernel', 'bits', 'equal codes [%]', 'largest difference',
                'builtin kernels [%]', 'largest')
  for row in found.tensors:
    table.add_row(row.name, row.op, str(row.bits), f'{100 * row.xnnpack_equal:.2f}', str(row.xnnpack_max),
                  f'{100 * row.builtin_equal:.2f}', str(row.builtin_max))
  console = Console()
  console.print(table)
  console.print(f'{found.examples} examples: same class {100 * found.argmax_agreement:.2f} %, equal output codes '
                f'{100 * found.codes_equal:.2f} %, largest difference {found.max_code_difference}, float tensors '
                f'{found.float_tensors}, audit problems {len(found.audit_problems)}')
  for problem in found.audit_problems:
    console.print(problem, markup=False)
  good = found.argmax_agreement == 1. and found.max_code_difference <= 1 and not found.float_tensors
  return 0 if good and not found.audit_problems else 1


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
