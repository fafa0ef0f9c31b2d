"""The notebooks run from the first cell to the last, and their figures are what they promise."""
import pathlib

import nbclient
import nbformat
import pytest

COLABS = pathlib.Path(__file__).parent.parent / 'colabs'


def run(name, tmp_path_factory, file='model.tflite'):
  """The table that the last cell prints: name -> number. It leaves `file`."""
  notebook = nbformat.read(COLABS / name, as_version=4)
  folder = tmp_path_factory.mktemp('notebook')
  nbclient.NotebookClient(notebook, timeout=600, kernel_name='python3',
                          resources={'metadata': {'path': str(folder)}}).execute()
  assert not file or (folder / file).stat().st_size > 0
  lines = [line for out in notebook.cells[-1].outputs for line in out.text.splitlines()]
  return {name.strip(): float(value) for name, value in (line.rsplit(None, 1) for line in lines)}


@pytest.fixture(scope='module')
def figures(tmp_path_factory):
  return run('compress_your_model.ipynb', tmp_path_factory)


def test_an_exported_model_is_its_simulation(tmp_path_factory):
  found = run('export_any_flax_model.ipynb', tmp_path_factory)
  assert (found['same'], found['audit problems']) == (1., 0.)
  assert found['float accuracy'] >= .97 and found['integer accuracy'] >= found['float accuracy'] - .02
  assert found['dynamic bytes'] <= found['weight_only bytes'] < found['float16 bytes'] < found['float32 bytes']


def test_any_tree_of_weights_trains_with_a_rule(tmp_path_factory):
  found = run('quantize_any_tree.ipynb', tmp_path_factory, file=None)
  assert len(found) == 3 * 5
  for name in ('plain', 'Linen', 'NNX', 'Haiku', 'Equinox'):
    assert found[f'{name} ternary'] >= max(found[f'{name} rounded'], found[f'{name} float'] - .03)


def test_the_file_is_the_network(figures):
  assert figures['argmax agreement'] == 1.
  assert figures['largest code difference'] <= 1
  assert figures['audit problems'] == 0


def test_the_budget_is_met_and_accuracy_kept(figures):
  assert figures['flash bytes after'] <= figures['flash bytes budget'] < figures['flash bytes before'] / 10
  assert figures['int8 accuracy'] >= figures['float accuracy'] - .02
  assert figures['float accuracy'] >= .98


@pytest.mark.parametrize('path', sorted(COLABS.glob('*.ipynb')), ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
  cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == 'code']
  assert not any(cell.outputs or cell.execution_count for cell in cells)
