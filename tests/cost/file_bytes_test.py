import jax
import jax.numpy as jnp
import pytest

from effjax import cost, graph
from effjax.cost import Op
from effjax.export.latency import content
from effjax.reparam import CHANNELS, Fact

OPS = {  # (operator, its function, shape of its weight, input)
    'conv': (Op('conv', (3, 3), 1, 1, 1, (6, 6), 16, 48), (3, 3, 16, 48), (1, 6, 6, 16)),
    'depthwise': (Op('depthwise', (5, 5), 1, 1, 1, (6, 6), 1, 64), (5, 5, 1, 64), (1, 6, 6, 64)),
    'dense': (Op('dense', (1, 1), 1, 1, 1, (1, 1), 96, 40), (96, 40), (1, 96))}


def profile_of(shape, given):
  def fn(w, x):
    if len(shape) == 2:
      return x @ w
    return jax.lax.conv_general_dilated(x, w, (1, 1), 'SAME', feature_group_count=x.shape[-1] // shape[2],
                                        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  return graph.profile(fn, jnp.ones(shape), jnp.ones(given))


@pytest.mark.parametrize('bits', [8, 4])
@pytest.mark.parametrize('name', OPS)
def test_of_files_with_one_operator(name, bits):
  """The fit was made on other files, with 3 to 19 kernels."""
  op, shape, given = OPS[name]
  predicted = float(cost.file_bytes(profile_of(shape, given), {'': Fact(bits=jnp.float32(bits))}))
  assert predicted == pytest.approx(len(content(f'int{bits}', op)), rel=.1)


def test_the_terms():
  """A pair of products with gates: codes of 8 and 4 bits, 12 bytes per channel, 257 per kernel, 1024 for the file."""
  fn = lambda p, x: jax.nn.relu(x @ p['a']) @ p['b']
  profile = graph.profile(fn, {'a': jnp.ones((6, 4)), 'b': jnp.ones((4, 10))}, jnp.ones((1, 6)))
  facts = {'a': Fact(bits=jnp.float32(8)), 'b': Fact(bits=jnp.float32(4)),
           CHANNELS: Fact(keep=jnp.array([1., .5, 0., 1.]))}
  kept = 2.5
  assert float(cost.file_bytes(profile, facts)) == 6 * kept + kept * 10 / 2 + 12 * (kept + 10) + 2 * 257 + 1024
  slope = jax.grad(lambda keep: cost.file_bytes(profile, facts | {CHANNELS: Fact(keep=keep)}))(jnp.ones(4))
  assert slope.tolist() == [6 + 10 / 2 + 12] * 4
