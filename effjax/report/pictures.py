"""The pictures of a report, as PNG bytes; matplotlib is needed (extra `plots`)."""
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike

from effjax.report.schema import METRICS, NETWORKS, Results

History = dict[str, ArrayLike | Sequence[float]]

# Okabe and Ito's colours, told apart with every kind of colour vision.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = '#0072B2', '#E69F00', '#009E73', '#D55E00', '#CC79A7', '#56B4E9'
GREY = '#D9D9D9'
MARKS = {'baseline': ('s', BLUE), 'int8_baseline': ('D', ORANGE), 'result': ('o', GREEN)}


def pictures(results: Results, history: History) -> dict[str, bytes]:
  """{file name: PNG} of what was found; a picture without data is left out.

  Args:
    results: as `effjax.report.schema` says.
    history: 'step', and measured at these steps (NaN: not then) 'accuracy' and each cost that has a budget.

  Raises:
    ImportError: matplotlib is not there.
  """
  from matplotlib.figure import Figure

  def figure(width, height):
    return Figure((width, height), dpi=120, layout='constrained')

  drawn = {'pareto.png': _pareto(figure, results)}
  if len(np.atleast_1d(history.get('step', ()))):
    drawn['trajectory.png'] = _trajectory(figure, results, history)
  if results['layers']:
    drawn['layers.png'] = _layers(figure, results['layers'])
  if results['operators']:
    drawn['operators.png'] = operator_table(figure, results['operators'])
  return {name: png(drawn[name]) for name in sorted(drawn)}


def operations(profile: dict[str, Any]) -> bytes:
  """PNG of multiply-accumulates, parameters and activation entries moved by each operation, as executed.

  Args:
    profile: `ops` with 'path', 'scope', 'kind', 'macs', 'parameters', 'read', 'written'.

  Raises:
    ImportError: matplotlib is not there.
  """
  from matplotlib.figure import Figure
  from matplotlib.ticker import EngFormatter
  ops = profile['ops']
  fig = Figure((10, 1.2 + .2 * len(ops)), dpi=120, layout='constrained')
  panels = fig.subplots(1, 3, sharey=True)
  rows = range(len(ops))
  for axes, keys, label, color in zip(panels, (('macs',), ('parameters',), ('read', 'written')), (
      'multiply-accumulates', 'parameters', 'activation entries read and written'), (BLUE, ORANGE, GREEN), strict=True):
    axes.barh(rows, [sum(op[key] for key in keys) for op in ops], color=color)
    axes.set_xlabel(label)
    axes.locator_params(axis='x', nbins=5)
    axes.xaxis.set_major_formatter(EngFormatter(sep=''))
  panels[0].set_yticks(rows, [f'{op["path"] or op["scope"]} {op["kind"]}'[-40:] for op in ops], fontsize=7)
  panels[0].set_ylim(len(ops) - .5, -.5)
  return png(clean(fig))


def _trajectory(figure, results, history):
  fig = figure(7, 5)
  accuracy, costs = fig.subplots(2, 1, sharex=True)
  _curve(accuracy, history, 'accuracy', 100, color=BLUE)
  accuracy.set_ylabel('accuracy [%]')
  budgets = {name: budget for name, budget in results['budgets'].items() if name in history}
  for name, style in zip(budgets, _styles(), strict=False):
    _curve(costs, history, name, 1 / budgets[name]['asked'], label=METRICS.get(name, name).split(' [')[0], **style)
  costs.axhline(1, color='black', linewidth=1, linestyle=':', label='budget')
  costs.set(xlabel='step', ylabel='cost / budget')
  costs.set_ylim(bottom=0)
  costs.legend(frameon=False)
  return clean(fig)


def _curve(axes, history, name, factor, **style):
  step, value = np.asarray(history['step']), np.asarray(history.get(name, ()), np.float64)
  there = np.isfinite(value)
  axes.plot(step[there], value[there] * factor, marker='.' if there.sum() < 40 else None, **style)


def _styles():
  return [{'color': color, 'linestyle': line} for color, line in
          zip((RED, GREEN, PURPLE, SKY, ORANGE), ('-', '--', '-.', (0, (1, 1)), (0, (5, 1))), strict=True)]


def _layers(figure, layers):
  fig = figure(8, 1.2 + .27 * len(layers))
  bits, kept = fig.subplots(1, 2, sharey=True)
  rows = range(len(layers))
  bars = bits.barh(rows, [layer['bits'] for layer in layers], color=BLUE)
  bits.bar_label(bars, [f'{layer["bits"]:g}' for layer in layers], padding=2, fontsize=8)
  bits.set(yticks=rows, yticklabels=[layer['name'] for layer in layers], xlabel='bits per weight')
  bits.set_xlim(0, max(8, *(layer['bits'] for layer in layers)) * 1.08)
  kept.barh(rows, [100] * len(layers), color=GREY)
  bars = kept.barh(rows, [100 * layer['kept'] / layer['channels'] for layer in layers], color=ORANGE)
  for row, layer in zip(rows, layers, strict=True):
    kept.text(102, row, f'{layer["kept"]} / {layer["channels"]}', va='center', fontsize=8)
  kept.set(xlabel='kept output channels [%]', xlim=(0, 120), xticks=range(0, 101, 25))
  bits.invert_yaxis()
  return clean(fig)


def operator_table(figure: Callable, blocks: list[dict[str, Any]]) -> Any:
  """Probabilities as a table, the chosen operators framed; `figure(width, height)` makes one."""
  names = list(dict.fromkeys(name for block in blocks for name in block['names']))
  table = np.full((len(blocks), len(names)), np.nan)
  for row, block in enumerate(blocks):
    table[row, [names.index(name) for name in block['names']]] = block['probabilities']
  fig = figure(2.5 + .8 * len(names), 1.4 + .4 * len(blocks))
  axes = fig.subplots()
  shown = axes.imshow(table, cmap='Blues', vmin=0, vmax=1, aspect='auto')
  for (row, column), p in np.ndenumerate(table):
    if np.isfinite(p):
      axes.text(column, row, f'{p:.2f}', ha='center', va='center', fontsize=8, color='white' if p > .6 else 'black')
  for row, block in enumerate(blocks):
    _frame(axes, row, names.index(block['names'][block['chosen']]))
  axes.set(xticks=range(len(names)), yticks=range(len(blocks)), yticklabels=[block['block'] for block in blocks],
           title='chosen operators are framed')
  axes.set_xticklabels(names, rotation=35, ha='right', rotation_mode='anchor')
  axes.title.set_fontsize(9)
  fig.colorbar(shown, label='probability')
  return fig


def _frame(axes, row, column):
  from matplotlib.patches import Rectangle
  axes.add_patch(Rectangle((column - .46, row - .46), .92, .92, fill=False, edgecolor=RED, linewidth=2.5))


def _pareto(figure, results):
  fig = figure(6, 4)
  axes = fig.subplots()
  for network, (mark, color) in MARKS.items():
    found = results[network]
    axes.plot(found['flash_bytes'], 100 * found['accuracy'], mark, color=color, markersize=9, label=NETWORKS[network])
  if 'flash_bytes' in results['budgets']:
    axes.axvline(results['budgets']['flash_bytes']['asked'], color='black', linewidth=1, linestyle=':', label='budget')
  axes.set(xscale='log', xlabel='weights in flash [bytes]', ylabel='test accuracy [%]')
  axes.margins(.15)
  axes.legend(frameon=False)
  return clean(fig)


def clean(fig: Any) -> Any:
  """The figure, with a light grid and no frame."""
  for axes in fig.axes:
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(axis='x' if axes.yaxis_inverted() else 'both', color='#EEEEEE')
    axes.set_axisbelow(True)
  return fig


def png(fig: Any) -> bytes:
  """The figure as a file."""
  file = io.BytesIO()
  fig.savefig(file, format='png')
  return file.getvalue()
