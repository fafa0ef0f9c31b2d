"""The notebook runs from its first cell to its last, and its figures are what it promises."""
import pathlib

import nbclient
import nbformat
import pytest

NOTEBOOK = pathlib.Path(__file__).parent.parent / 'colabs' / 'compress_your_model.ipynb'


@pytest.fixture(scope='module')
def figures(tmp_path_factory):
  """The table that the last cell prints: name -> number."""
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  folder = tmp_path_factory.mktemp('notebook')
  nbclient.NotebookClient(notebook, timeout=600, kernel_name='python3',
                          resources={'metadata': {'path': str(folder)}}).execute()
  assert (folder / 'model.tflite').stat().st_size > 0
  lines = [line for out in notebook.cells[-1].outputs for line in out.text.splitlines()]
  return {name.strip(): float(value) for name, value in (line.rsplit(None, 1) for line in lines)}


def test_the_file_is_the_network(figures):
  assert figures['argmax agreement'] == 1.
  assert figures['largest code difference'] <= 1
  assert figures['audit problems'] == 0


def test_the_budget_is_met_and_accuracy_kept(figures):
  assert figures['flash bytes after'] <= figures['flash bytes budget'] < figures['flash bytes before'] / 10
  assert figures['int8 accuracy'] >= figures['float accuracy'] - .02
  assert figures['float accuracy'] >= .98


def test_the_notebook_is_kept_without_outputs():
  cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == 'code']
  assert not any(cell.outputs or cell.execution_count for cell in cells)
