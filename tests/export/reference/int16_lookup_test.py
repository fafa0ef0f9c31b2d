"""Functions of 16-bit codes at all 65536 of them: against LiteRT, and against float64."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax.export import write
from effjax.export.network import Network, Node, Tensor
from effjax.export.reference.int16 import KERNELS16
from effjax.export.verify import run

CODES = np.arange(-2 ** 15, 2 ** 15, dtype=np.int16)[None]


def applied(op, scale, output, codes=CODES, **settings):
  """The codes of the reference, equal to LiteRT's but for `settings['differ']` of them by one."""
  differ = settings.pop('differ', 0)
  tensors = [Tensor(name, (1, *codes.shape[1:]), float(np.float32(s)), 0, 16) for name, s in (('x', scale), ('y', output))]
  node = Node(op, (0,), tensors[1], '', settings)
  content = write.model(Network((tensors[0],), (node,), (1,)))
  found = jax.jit(lambda x: KERNELS16[op](node, tensors[:1], [x], 'builtin'))(jnp.asarray(codes, jnp.int32))
  difference = np.abs(np.asarray(found) - run(content, [codes], xnnpack=False)[0])
  assert difference.max() <= (differ > 0) and (difference > 0).sum() <= differ
  return np.asarray(found) * np.float64(output)


@pytest.mark.parametrize('scale', [1e-5, 1e-3, 2. ** -11, 2. ** -12, 2. ** -12 * 1.0006,
                                   2. ** -12 * 1.0008, 2. ** -14, 1.])
def test_logistic_and_tanh(scale):
  x = CODES * scale
  assert np.abs(applied('logistic', scale, 2. ** -15) - 1 / (1 + np.exp(-np.maximum(x, -700)))).max() < 1e-3
  assert np.abs(applied('tanh', scale, 2. ** -15) - np.tanh(x)).max() < 1e-3


@pytest.mark.parametrize('scale', [3e-4, 1e-2])
@pytest.mark.parametrize('classes', [1, 10, 300])
def test_softmax(scale, classes):
  codes = np.random.default_rng(0).integers(-2 ** 15, 2 ** 15, (100, classes)).astype(np.int16)
  x = codes * scale
  wanted = np.exp(x - x.max(-1, keepdims=True))
  found = applied('softmax', scale, 2. ** -15, codes)
  # exp(-10) is the least: each class that is further away adds that much to the sum
  assert np.abs(found - wanted / wanted.sum(-1, keepdims=True)).max() < 1e-3 + classes * 6e-5


@pytest.mark.parametrize(('op', 'scale', 'output', 'function', 'settings'), [
    ('exp', 2e-4, 2.2e-2, np.exp, {}), ('log', 1e-3, 3e-4, np.log, {}), ('rsqrt', 1e-3, 1e-3, lambda x: x ** -.5, {}),
    # An entry of the table may differ by one, where the last bit of the C library's erfc or tanh does.
    ('gelu', 2e-4, 2e-4, None, {'approximate': True, 'differ': 256}),
    ('gelu', 2e-4, 2e-4, None, {'approximate': False, 'differ': 256})])
def test_tables_in_float32(op, scale, output, function, settings):
  codes = CODES if op != 'rsqrt' else np.maximum(CODES, 1)
  found = applied(op, scale, output, codes, **settings)
  far = codes > 2 ** 12  # away from poles
  x = codes.astype(np.float64) * scale
  wanted = function(x[far]) if function else np.asarray(jax.nn.gelu(x.astype(np.float32), settings['approximate']))[far]
  assert np.abs(found[far] - wanted).max() < 10 * output
