"""Flax NNX: functions of the state that `nnx.split` gives."""
import jax.numpy as jnp
from flax import nnx

from zoo import images, model, sequence


class Residual(nnx.Module):
  """BatchNorm, a bottleneck, a strided shortcut."""
  def __init__(self, rngs):
    conv = lambda cin, cout, k, s=1: nnx.Conv(cin, cout, (k, k), s, use_bias=False, rngs=rngs)
    norm = lambda n: nnx.BatchNorm(n, use_running_average=True, rngs=rngs)
    self.stem, self.less, self.wide, self.more = conv(3, 6, 3), conv(6, 4, 1), conv(4, 5, 3, 2), conv(5, 9, 1)
    self.shortcut, self.norms = conv(6, 9, 1, 2), nnx.List([norm(n) for n in (6, 4, 5, 9, 9)])
    self.head = nnx.Linear(9, 10, rngs=rngs)

  def __call__(self, x):
    norms = list(self.norms)
    x = nnx.relu(norms[0](self.stem(x)))
    y = nnx.relu(norms[1](self.less(x)))
    y = nnx.relu(norms[2](self.wide(y)))
    x = nnx.relu(norms[3](self.more(y)) + norms[4](self.shortcut(x)))
    return self.head(x.mean((1, 2)))


class Encoder(nnx.Module):
  """A post-norm block, then a pre-norm one."""
  def __init__(self, rngs):
    self.norm1, self.norm2 = nnx.LayerNorm(7, rngs=rngs), nnx.RMSNorm(7, rngs=rngs)
    self.attention = nnx.List([nnx.MultiHeadAttention(3, 7, 12, 7, decode=False, rngs=rngs) for _ in range(2)])
    self.embed, self.head = nnx.Linear(3, 7, rngs=rngs), nnx.Linear(7, 4, rngs=rngs)
    self.up, self.down = nnx.Linear(7, 10, rngs=rngs), nnx.Linear(10, 7, rngs=rngs)

  def __call__(self, x):
    x = self.embed(x)
    x = self.norm1(x + self.attention[0](x))
    x = x + self.attention[1](self.norm2(x))
    return self.head((x + self.down(nnx.silu(self.up(x)))).mean(1))


class Shared(nnx.Module):
  """One module in two places, and a list of branches that are averaged."""
  def __init__(self, rngs):
    self.embed, self.core = nnx.Linear(3, 6, rngs=rngs), nnx.Linear(6, 6, rngs=rngs)
    self.again = self.core
    self.branches = nnx.List([nnx.Linear(6, 8, rngs=rngs) for _ in range(2)])
    self.head = nnx.Linear(8, 2, rngs=rngs)

  def __call__(self, x):
    x = nnx.relu(self.again(nnx.relu(self.core(self.embed(x)))))
    return self.head(jnp.stack([nnx.relu(b(x)) for b in self.branches]).mean(0))


class Recurrent(nnx.Module):
  def __init__(self, rngs):
    self.rnn, self.head = nnx.RNN(nnx.GRUCell(3, 7, rngs=rngs), rngs=False), nnx.Linear(7, 4, rngs=rngs)

  def __call__(self, x):
    return self.head(self.rnn(x, initial_carry=jnp.zeros((len(x), 7)))[:, -1])


def split(cls, *args):
  graph, state = nnx.split(nnx.eval_shape(lambda: cls(nnx.Rngs(0))))
  return model(lambda state, *args: nnx.merge(graph, state)(*args), state, *args)


MODELS = {'nnx_residual': lambda: split(Residual, images(8)), 'nnx_encoder': lambda: split(Encoder, sequence()),
          'nnx_shared': lambda: split(Shared, sequence()), 'nnx_gru': lambda: split(Recurrent, sequence())}
