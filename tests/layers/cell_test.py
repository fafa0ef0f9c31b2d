"""Cells: the graph of a genotype by hand, how inputs are fitted, drop path, and what is no genotype."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.layers import OPERATIONS, Cell, ConvBN, FactorizedReduce

KEY = jax.random.key(0)
EDGES = (('sep_conv_3x3', 1), ('skip_connect', 0), ('dil_conv_3x3', 2), ('max_pool_3x3', 0))


def inputs(size=8, before=8):
  return jax.random.normal(KEY, (2, before, before, 3)), jax.random.normal(jax.random.key(1), (2, size, size, 5))


def run(module, variables, name, *x):
  """A part of the cell by itself, with its own variables; operations without any have none."""
  return module.apply({kind: tree[name] for kind, tree in variables.items() if name in tree}, *x, False)


@pytest.mark.parametrize(('strides', 'fit', 'before'), [(1, 'project', 8), (2, 'project', 8), (1, 'reduce', 16)])
def test_states_by_hand(strides, fit, before):
  x0, x1 = inputs(before=before)
  cell = Cell(EDGES, (0, 2, 3) if strides == 1 else (2, 3), 4, strides, fit)
  y, variables = cell.init_with_output(KEY, x0, x1, False)
  project = ConvBN(4, 1, activation=None)
  s = [run(FactorizedReduce(4), variables, 'fit0', x0) if fit == 'reduce'
       else run(project, variables, 'fit0', jax.nn.relu(x0)), run(project, variables, 'fit1', jax.nn.relu(x1))]
  for k in (0, 2):
    a, b = (run(OPERATIONS[name](4, strides if i < 2 else 1), variables, f'edge{k + j}', s[i])
            for j, (name, i) in enumerate(EDGES[k:k + 2]))
    s.append(a + b)
  np.testing.assert_allclose(y, np.concatenate([s[i] for i in cell.concat], -1), rtol=1e-5, atol=1e-5)
  assert y.shape == (2, 8 // strides, 8 // strides, 4 * len(cell.concat))


def test_an_input_that_is_not_fitted_keeps_its_channels_until_an_edge_reads_it():
  edges = (('sep_conv_3x3', 0), ('skip_connect', 0), ('avg_pool_3x3', 0), ('skip_connect', 1))
  variables = jax.eval_shape(lambda: Cell(edges, (0, 2), 4, fit='none').init(KEY, *inputs(), False))
  kernels = {name: leaves['conv']['kernel'].shape for name, leaves in variables['params'].items() if 'conv' in leaves}
  assert kernels == {'fit1': (1, 1, 5, 4), 'edge1_fit': (1, 1, 3, 4), 'edge2_fit': (1, 1, 3, 4),
                     'output0_fit': (1, 1, 3, 4)}
  assert variables['params']['edge0']['depthwise1']['conv']['kernel'].shape == (3, 3, 1, 3)


def test_drop_path_spares_identities():
  """Each edge but the identity is dropped per example, in training alone; a traced rate compiles once."""
  x0, x1 = inputs()
  cell = Cell((('max_pool_3x3', 1), ('skip_connect', 0)), (2,), 4, drop_path=.999)
  variables = cell.init(KEY, x0, x1, False)
  train = lambda cell, seed: cell.apply(variables, x0, x1, True, mutable=['batch_stats'],
                                        rngs={'dropout': jax.random.key(seed)})[0]
  without = cell.copy(edges=(('none', 1), ('skip_connect', 0)))
  np.testing.assert_array_equal(train(cell, 0), train(without, 0))
  np.testing.assert_array_equal(cell.apply(variables, x0, x1, False), cell.copy(drop_path=0.).apply(variables, x0, x1, False))
  chex.clear_trace_counter()
  traced = jax.jit(chex.assert_max_traces(lambda rate: train(cell.copy(drop_path=rate), 0), n=1))
  np.testing.assert_allclose(traced(jnp.float32(0)), train(cell.copy(drop_path=0.), 0), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(traced(jnp.float32(.999)), train(cell, 0), rtol=1e-5, atol=1e-6)


ERRORS = {
    'Cell (top): 1 edges, wanted pairs: give each state two': dict(edges=EDGES[:1]),
    "Cell (top): edge 0 has the unknown operation 'sep': known are ['avg_pool_3x3', ": dict(edges=(('sep', 0), ('none', 1))),
    'Cell (top): edge 1 reads state 2, known there are 0 to 1: order the pairs': dict(edges=(('none', 0), ('none', 2))),
    'Cell (top): states [4] of concat are not there: there are 0 to 3': dict(concat=(3, 4)),
    "Cell (top): fit 'squeeze' is unknown: choose 'none', 'project' or 'reduce'": dict(fit='squeeze')}


@pytest.mark.parametrize('text', ERRORS)
def test_errors(text):
  with pytest.raises(EffjaxError) as error:
    Cell(**{'edges': EDGES, 'concat': (2, 3), 'features': 4} | ERRORS[text]).init(KEY, *inputs(), False)
  assert str(error.value).startswith(text)
