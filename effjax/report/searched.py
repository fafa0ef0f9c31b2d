"""The report of an architecture search: what was found, what each step on the way to it lost, and pictures of it.

space, data, seed, seconds, versions: of the run. architecture: {path of a choice: operator}.
accuracy: 'soft' of the supernet with its probabilities; 'inherited', of the architecture with the supernet's weights;
  'retrained', of the architecture trained from the start. random: the last of architectures drawn uniformly.
distance: mean of `search.distance_from_one_hot`. macs, params: of the architecture. budgets: {cost: limit}.
operators: as in `effjax.report.schema`, with 'path' of the leaf. edges: {path: [from, to]} of choices in cells.
history: 'step', 'probabilities' (a dict each), 'eigenvalue' at these; 'accuracy_step', 'accuracy'.
"""
import os
import pathlib
from typing import Any

import numpy as np
from rich.table import Table

from effjax.report import tables
from effjax.report.pictures import BLUE, GREY, RED, clean, operator_table, png
from effjax.report.schema import plain
from effjax.report.write import NO_PICTURES, as_json, replace

CAPTIONS = {'cells.png': 'The cells that were found', 'operators.png': 'Probability of each operator at the end of the '
            'search, and what was chosen', 'probabilities.png': 'Probabilities over the search',
            'trajectory.png': 'Held-out accuracy over the search, and the dominant eigenvalue'}
ACCURACIES = {'soft': 'supernet with its probabilities', 'inherited': "architecture with the supernet's weights",
              'retrained': 'architecture trained from the start'}


def write_search(run_dir: str | os.PathLike, results: dict[str, Any], history: dict[str, list]) -> None:
  """Writes report.md, the pictures and, last, report.json into the folder of a run.

  >>> import tempfile
  >>> folder = tempfile.mkdtemp()
  >>> operators = [{'block': 'a', 'path': 'a/choice', 'names': ['x'], 'probabilities': [1.], 'chosen': 0}]
  >>> results = {'space': 's', 'data': 'd', 'seed': 0, 'architecture': {'a/choice': 'x'}, 'operators': operators,
  ...            'accuracy': {'soft': .5, 'inherited': .4, 'retrained': .6}, 'random': [], 'distance': .1, 'macs': 10,
  ...            'params': 2, 'edges': {}, 'budgets': {}, 'seconds': 1., 'versions': {}}
  >>> write_search(folder, results, {'step': [1], 'probabilities': [{'a/choice': [1.]}], 'eigenvalue': [],
  ...                                'accuracy_step': [1], 'accuracy': [.5]})
  >>> 'report.json' in os.listdir(folder)
  True
  """
  folder, results = pathlib.Path(run_dir), plain(results)
  try:
    drawn = pictures(results, history)
  except ImportError:
    drawn = {}
  files = drawn | {'report.md': _text(results, drawn).encode(), 'report.json': as_json(results | {'history': history})}
  for name, content in files.items():
    replace(folder / name, content)


def accuracies(results: dict[str, Any]) -> tables.Rows:
  """One row for each accuracy that was measured.

  >>> accuracies({'accuracy': {'soft': .5, 'inherited': .4, 'retrained': .6}, 'random': [.5]})[-1]
  ['random architecture trained alike', '50.00']
  """
  rows = [['', 'test accuracy [%]']]
  rows += [[label, tables.number('accuracy', results['accuracy'][key])] for key, label in ACCURACIES.items()]
  return rows + [['random architecture trained alike', tables.number('accuracy', x)] for x in results['random']]


def terminal_search(results: dict[str, Any]) -> list[Table]:
  """The tables that the command line prints."""
  results = plain(results)
  return [tables.table(accuracies(results)), tables.table(_architecture(results))]


def pictures(results: dict[str, Any], history: dict[str, list]) -> dict[str, bytes]:
  """{file name: PNG}; cells only where the choices are edges.

  Raises:
    ImportError: matplotlib is not there.
  """
  from matplotlib.figure import Figure

  def figure(width, height):
    return Figure((width, height), dpi=120, layout='constrained')

  drawn = {'operators.png': operator_table(figure, results['operators']),
           'probabilities.png': _probabilities(figure, results['operators'], history),
           'trajectory.png': _trajectory(figure, history)}
  if results['edges']:
    drawn['cells.png'] = _cells(figure, results)
  return {name: png(drawn[name]) for name in sorted(drawn)}


def _probabilities(figure, blocks, history):
  """A small panel for each choice, a line for each operator."""
  columns = min(len(blocks), 4)
  rows = -(-len(blocks) // columns)
  fig = figure(2.4 * columns + 1.5, 1.2 + 1.6 * rows)
  panels = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
  names = list(dict.fromkeys(name for block in blocks for name in block['names']))
  for axes, block in zip(panels, blocks):
    values = np.array([p[block['path']] for p in history['probabilities']])
    for i, name in enumerate(block['names']):
      axes.plot(history['step'], values[:, i], color=f'C{names.index(name)}', label=name, marker='.')
    axes.set_title(block['block'], fontsize=8)
    axes.set_ylim(0, 1)
  for axes in panels[len(blocks):]:
    axes.set_visible(False)
  lines = {line.get_label(): line for axes in panels for line in axes.get_lines()}
  fig.legend(lines.values(), lines.keys(), loc='outside lower center', ncols=4, frameon=False, fontsize=8)
  return clean(fig)


def _trajectory(figure, history):
  fig = figure(7, 4)
  axes = fig.subplots()
  axes.plot(history['accuracy_step'], 100 * np.array(history['accuracy']), color=BLUE)
  axes.set(xlabel='step', ylabel='accuracy [%]')
  if history['eigenvalue']:
    other = axes.twinx()
    other.plot(history['step'], history['eigenvalue'], color=RED, marker='.')
    other.set_ylabel('dominant eigenvalue', color=RED)
  return clean(fig)


def _cells(figure, results):
  """States on a line, an arc for each edge that does something, its operator on it."""
  kinds = list(dict.fromkeys(path.split('/')[0] for path in results['edges']))
  kinds = [kind for kind in kinds if any(path.startswith(kind + '/') for path in results['architecture'])]
  fig = figure(9, .4 + 3.2 * len(kinds))
  for axes, kind in zip(fig.subplots(len(kinds), squeeze=False).ravel(), kinds):
    edges = {path: edge for path, edge in results['edges'].items() if path.startswith(kind + '/')}
    states = sorted({state for edge in edges.values() for state in edge})
    for (i, j), operator in sorted((tuple(edge), results['architecture'][path]) for path, edge in edges.items()):
      if operator != 'none':
        _arc(axes, i, j, operator)
    axes.plot(states, np.zeros(len(states)), 'o', color=BLUE, markersize=16)
    for state in states:
      axes.text(state, 0, str(state), color='white', ha='center', va='center')
    axes.set(title=kind, xlim=(-.5, max(states) + .5), ylim=(-1.4, 1.4))
    axes.axis('off')
  return fig


def _arc(axes, i, j, operator):
  """Edges of even length above, of odd length below, so that fewer of them meet."""
  height = (1 if (j - i) % 2 else -1) * .42 * (j - i)
  t = np.linspace(0, np.pi, 40)
  axes.plot(i + (j - i) * (1 - np.cos(t)) / 2, height * np.sin(t), color=GREY if 'skip' in operator else 'black')
  axes.text((i + j) / 2, height, operator, ha='center', va='center', fontsize=8,
            bbox={'color': 'white', 'pad': 1})


def _architecture(results):
  return [['choice', 'operator']] + [[path, operator] for path, operator in results['architecture'].items()]


def _text(results, drawn):
  costs = [['multiply-accumulates', 'parameters', 'distance from one-hot'],
           [tables.number('macs', results['macs']), tables.number('params', results['params']),
            f'{results["distance"]:.3f}']]
  parts = [f'# {results["space"]} on {results["data"]}, seed {results["seed"]}', tables.markdown(accuracies(results)),
           tables.markdown(costs)]
  parts += [f'![{CAPTIONS[name]}]({name})\n\n{CAPTIONS[name]}.' for name in CAPTIONS if name in drawn]
  parts += [] if drawn else [NO_PICTURES]
  versions = ', '.join(f'{name} {version}' for name, version in results['versions'].items())
  parts += [tables.markdown(_architecture(results)), f'{results["seconds"]:.0f} s in all; {versions}.']
  return '\n\n'.join(parts) + '\n'
