"""What every network has to pass: one training step, and the way to a file, for networks of any family."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from effjax import graph, models, quantize, tree
from effjax.export import finalize, tflite, verify


def drawn(shapes, seed=0):
  """Random variables of these shapes: kernels of unit gain, and statistics of BatchNorm that do something."""
  rng = np.random.default_rng(seed)

  def leaf(path, shape):
    name = path.split('/')[-1]
    if name in ('scale', 'var'):
      return rng.uniform(.5, 1.5, shape)
    return rng.normal(size=shape) * (np.prod(shape[:-1])**-.5 if name == 'kernel' else .1)

  flat = [jnp.asarray(leaf(path, spec.shape), jnp.float32) for path, spec in tree.leaves(shapes).items()]
  return jax.tree.unflatten(jax.tree.structure(shapes), flat)


@pytest.fixture
def variables_of():
  """Random variables of a network for images of a size, and a batch of such images."""
  def make(net, size, batch=2):
    shapes, images = models.shapes(net, size, batch)
    return drawn(shapes), jnp.asarray(np.random.default_rng(1).normal(size=images.shape), jnp.float32)
  return make


@pytest.fixture
def learns(variables_of):
  """One step of gradient descent in training mode, at a small rate, lowers `loss(outputs)`."""
  def check(net, size, loss=lambda out: jnp.mean(jnp.square(out - 1)), rate=1e-4, batch=8):
    variables, x = variables_of(net, size, batch)
    params, stats = variables['params'], {k: v for k, v in variables.items() if k != 'params'}
    mutable, key = list(stats), {'dropout': jax.random.key(3)}

    @jax.jit
    def value_and_gradient(params):
      def of(params):
        out, new = net.apply({'params': params, **stats}, x, True, mutable=mutable, rngs=key)
        return loss(out), new
      return jax.value_and_grad(of, has_aux=True)(params)

    (before, new), gradient = value_and_gradient(params)
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
    assert all(jnp.any(g != 0) for g in jax.tree.leaves(gradient)), 'a parameter without a gradient'
    (after, _), _ = value_and_gradient(jax.tree.map(lambda p, g: p - rate * g / norm, params, gradient))
    assert float(after) < float(before)
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), new, stats)
    assert all(jax.tree.leaves(changed)), 'statistics that training does not update'
  return check


@pytest.fixture
def to_file(variables_of, tmp_path):
  """Gates on channels, the shrunk network, the same network built by `widths`, bits, and the file of its integers."""
  def check(net, size, *, share=.3, bits=8, examples=8):
    variables, x = variables_of(net, size)
    fn = lambda variables, x: net.apply(variables, x, False)
    found = graph.channels(fn, variables, x)
    keep = _kept(found, share)
    small, less = graph.shrink(fn, variables, keep, x)
    masked = jax.jit(fn)(graph.mask(found, variables, keep), x)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(masked))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * scale)
    jax.tree.map(close, jax.jit(small)(less, x), masked)
    again = net.copy(widths=models.widths(less['params']))
    shapes, _ = models.shapes(again, size)
    assert tree.leaves(shapes).keys() == tree.leaves(less).keys()
    rebuilt = lambda variables, x: again.apply(variables, x, False)
    jax.tree.map(close, jax.jit(rebuilt)(less, x), masked)
    _same_codes(rebuilt, less, x, bits, examples, tmp_path / 'model.tflite')
  return check


def _kept(found, share):
  """All but a share of the channels of each group, at random; one stays."""
  rng = np.random.default_rng(2)
  keep = rng.uniform(size=found.size) > share
  for group in range(found.groups.max() + 1):
    keep[rng.choice(np.flatnonzero(found.groups == group))] = True
  assert not keep.all()
  return keep


def _same_codes(fn, params, x, bits, examples, path):
  aware = quantize.aware(fn, params, x, bits=bits)
  slots = jax.jit(aware.reparam.init)(jax.random.key(0), aware.params)
  network = finalize(aware.fn, *quantize.deployed(aware, slots), x[:1])
  tflite(network, path)
  images = np.random.default_rng(4).normal(size=(examples, *x.shape[1:])).astype(np.float32)
  report = verify(path, network, images)
  assert report.audit_problems == () and report.float_tensors == 0
  assert report.same, [row for row in report.tensors if min(row.xnnpack.equal, row.builtin.equal) < 1]
