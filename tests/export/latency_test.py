import jax
import jax.numpy as jnp
import pytest

from effjax import cost, graph
from effjax.cost import Op
from effjax.errors import EffjaxError
from effjax.export import flatbuffer, measure
from effjax.export.latency import content

OPS = {
    'conv': (Op('conv', (3, 3), 2, 1, 1, (2, 3), 4, 8), 'CONV_2D', (1, 4, 6, 4), (1, 2, 3, 8)),
    'dilated': (Op('conv', (3, 3), 1, 2, 1, (4, 5), 4, 8), 'CONV_2D', (1, 4, 5, 4), (1, 4, 5, 8)),
    'grouped': (Op('grouped', (1, 1), 1, 1, 2, (3, 3), 2, 8), 'CONV_2D', (1, 3, 3, 4), (1, 3, 3, 8)),
    'depthwise': (Op('depthwise', (3, 3), 1, 1, 1, (3, 3), 1, 8), 'DEPTHWISE_CONV_2D', (1, 3, 3, 8), (1, 3, 3, 8)),
    'dense': (Op('dense', (1, 1), 1, 1, 1, (1, 1), 4, 8), 'FULLY_CONNECTED', (1, 4), (1, 8))}


def net(p, x):
  conv = lambda x, w, s, g=1: jax.nn.relu(jax.lax.conv_general_dilated(
      x, w, (s, s), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=g))
  return conv(conv(x, p['a'], 2), p['b'], 1, 8).mean((1, 2)) @ p['c']


PARAMS = {'a': jnp.ones((3, 3, 2, 8)), 'b': jnp.ones((3, 3, 1, 8)), 'c': jnp.ones((8, 3))}


@pytest.mark.parametrize('name', OPS)
@pytest.mark.parametrize('kind', ['float32', 'int8', 'int4'])
def test_the_file_holds_the_operator(name, kind):
  op, operator, read, made = OPS[name]
  model = flatbuffer.read(content(kind, op))
  graph = model.subgraphs[0]
  assert [flatbuffer.operator_name(model, o) for o in graph.operators] == [operator]
  shapes = [tuple(graph.tensors[i].shape) for i in (*graph.inputs, *graph.outputs)]
  assert shapes == [read, made]


def test_a_profile_is_measured_at_fractions_of_what_can_shrink():
  found = measure([graph.profile(net, PARAMS, jnp.ones((1, 8, 8, 2)))], formats=['int8'], fractions=(.5, 1.), rounds=1)
  counts = sorted((e.op.kind, e.op.cin, e.op.cout) for e in found.entries)
  assert counts == [('conv', 2, 4), ('conv', 2, 8), ('dense', 4, 3), ('dense', 8, 3), ('depthwise', 1, 4),
                    ('depthwise', 1, 8)]
  assert all(e.ms >= 0 for e in found.entries) and found.overhead_ms > 0
  assert found.machine['threads'] == 1 and set(found.machine['packages']) >= {'jax', 'ai-edge-litert'}


def test_a_measured_table_is_a_file_and_predicts(tmp_path):
  found = graph.profile(net, PARAMS, jnp.ones((1, 8, 8, 2)))
  table = measure([found], formats=['int8'], fractions=(1.,), rounds=1)
  cost.save_latency_table(table, tmp_path / 'table.json')
  assert cost.load_latency_table(tmp_path / 'table.json') == table
  want = table.overhead_ms + sum(e.ms for e in table.entries)
  assert float(cost.latency(found, {}, table=table, bits=8)) == pytest.approx(want, rel=1e-5)


def test_errors_of_measure():
  with pytest.raises(EffjaxError, match=r"unknown formats \['int2'\]: wanted some of"):
    measure([OPS['conv'][0]], formats=['int2'])
  with pytest.raises(EffjaxError, match=r'fractions of the full width must be in \(0, 1\], got \(0, 1\)'):
    measure([OPS['conv'][0]], fractions=(0, 1))
  with pytest.raises(EffjaxError, match='no operator to measure'):
    measure([])
  with pytest.raises(EffjaxError, match='conv with kernel .3,. and output .9,. has no one-operator file'):
    measure([Op('conv', (3,), 1, 1, 1, (9,), 2, 2)], formats=['int8'])
