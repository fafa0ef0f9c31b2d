import io

import numpy as np
import pytest
from PIL import Image

from effjax.report.pictures import pictures

pytest.importorskip('matplotlib')


def ink(png):
  """Share of the pixels that are not white."""
  return (np.asarray(Image.open(io.BytesIO(png)).convert('L')) < 250).mean()


def test_all_four_are_drawn(results, history):
  drawn = pictures(results, history)
  assert list(drawn) == ['layers.png', 'operators.png', 'pareto.png', 'trajectory.png']
  assert all(ink(png) > .01 for png in drawn.values())


def test_the_same_results_give_the_same_bytes(results, history):
  assert pictures(results, history) == pictures(results, history)


def test_a_picture_without_data_is_left_out(results):
  assert list(pictures(results | {'layers': [], 'operators': []}, {})) == ['pareto.png']


def test_one_step_one_layer_one_operator(results):
  small = {'layers': results['layers'][:1], 'operators': results['operators'][:1]}
  drawn = pictures(results | small, {'step': [0], 'accuracy': [.1], 'flash_bytes': [9_000]})
  assert len(drawn) == 4


def test_the_budget_is_where_the_cost_is_one(results, history, monkeypatch):
  from matplotlib.figure import Figure
  kept = []
  monkeypatch.setattr(Figure, 'savefig', lambda self, *args, **kwargs: kept.append(self))
  pictures(results, history)
  costs = next(fig for fig in kept if len(fig.axes) == 2 and fig.axes[1].get_ylabel() == 'cost / budget').axes[1]
  np.testing.assert_allclose(costs.lines[0].get_ydata(), np.asarray(history['flash_bytes']) / 8_100)
  np.testing.assert_allclose(costs.lines[1].get_ydata(), np.asarray(history['macs']) / 1_000_000)
  assert set(costs.lines[2].get_ydata()) == {1}
