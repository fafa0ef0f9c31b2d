"""Equinox: modules for one example, `vmap`ped over the batch; channels come first."""
import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import nn

from zoo import fill, images, model, sequence

KEY = jax.random.key(0)  # the values are drawn anew


class Convolutions(eqx.Module):
  """A residual network without normalisation; a PReLU."""
  stem: nn.Conv2d
  inner: nn.Conv2d
  outer: nn.Conv2d
  slope: nn.PReLU
  head: nn.Linear

  def __init__(self):
    self.stem, self.inner = nn.Conv2d(3, 6, 3, 2, 1, key=KEY), nn.Conv2d(6, 5, 3, padding=1, key=KEY)
    self.outer, self.head = nn.Conv2d(5, 6, 1, key=KEY), nn.Linear(6 * 4, 10, key=KEY)
    self.slope = nn.PReLU(.25)

  def __call__(self, x):
    x = jax.nn.relu(self.stem(jnp.moveaxis(x, -1, 0)))
    x = x + self.outer(self.slope(self.inner(x)))
    return self.head(nn.MaxPool2d(2, 2)(x).ravel())


class Attention(eqx.Module):
  """One pre-norm block of three heads of width four, with rotary queries and keys."""
  embed: nn.Linear
  norm1: eqx.Module
  norm2: eqx.Module
  attention: nn.MultiheadAttention
  mlp: nn.MLP
  rotary: nn.RotaryPositionalEmbedding
  head: nn.Linear

  def __init__(self, norm):
    self.embed, self.head = nn.Linear(3, 12, key=KEY), nn.Linear(12, 4, key=KEY)
    self.norm1, self.norm2, self.rotary = norm(12), norm(12), nn.RotaryPositionalEmbedding(4)
    self.attention, self.mlp = nn.MultiheadAttention(3, 12, key=KEY), nn.MLP(12, 12, 10, 1, key=KEY)

  def __call__(self, x):
    x = jax.vmap(self.embed)(x)
    turn = jax.vmap(self.rotary, 1, 1)
    y = jax.vmap(self.norm1)(x)
    mask = jnp.tril(jnp.ones((len(x), len(x)), bool))
    x = x + self.attention(y, y, y, mask, process_heads=lambda q, k, v: (turn(q), turn(k), v))
    x = x + jax.vmap(self.mlp)(jax.vmap(self.norm2)(x))
    return self.head(x.mean(0))


class Recurrent(eqx.Module):
  cell: eqx.Module
  head: nn.Linear

  def __init__(self, cell):
    self.cell, self.head = cell(3, 7, key=KEY), nn.Linear(7, 4, key=KEY)

  def __call__(self, x):
    lstm = isinstance(self.cell, nn.LSTMCell)
    start = (jnp.zeros(7), jnp.zeros(7)) if lstm else jnp.zeros(7)
    end, _ = jax.lax.scan(lambda carry, x: (self.cell(x, carry), None), start, x)
    return self.head(end[0] if lstm else end)


class Mixer(eqx.Module):
  """A mixer block that normalises over channels and places together, as in Equinox's examples."""
  patches: nn.Conv2d
  norm: nn.LayerNorm
  places: nn.MLP
  channels: nn.MLP
  head: nn.Linear

  def __init__(self):
    self.patches, self.norm = nn.Conv2d(3, 9, 4, 4, key=KEY), nn.LayerNorm((9, 4))
    self.places, self.channels = nn.MLP(4, 4, 6, 1, key=KEY), nn.MLP(9, 9, 10, 1, key=KEY)
    self.head = nn.Linear(9, 10, key=KEY)

  def __call__(self, x):
    x = self.patches(jnp.moveaxis(x, -1, 0)).reshape(9, 4)
    x = x + jax.vmap(self.places)(self.norm(x))
    x = x + jax.vmap(self.channels, 1, 1)(x)
    return self.head(x.mean(1))


def partition(make, *args):
  params, static = eqx.partition(fill(eqx.filter_eval_shape(make), out=0), eqx.is_inexact_array)
  return model(lambda params, *args: jax.vmap(eqx.combine(params, static))(*args), params, *args, out=0)


MODELS = {
    'equinox_convolutions': lambda: partition(Convolutions, images(8)),
    'equinox_attention': lambda: partition(lambda: Attention(nn.LayerNorm), sequence()),
    'equinox_attention_rms': lambda: partition(lambda: Attention(nn.RMSNorm), sequence()),
    'equinox_lstm': lambda: partition(lambda: Recurrent(nn.LSTMCell), sequence()),
    'equinox_gru': lambda: partition(lambda: Recurrent(nn.GRUCell), sequence()),
    'equinox_mixer': lambda: partition(Mixer, images(8))}
