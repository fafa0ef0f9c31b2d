"""Attention, mixing, recurrence and stacks of layers, in Flax Linen."""
import flax.linen as nn
import jax.numpy as jnp

from zoo import images, sequence, tokens
from zoo.linen_resnets import linen


class ViT(nn.Module):
  """A class token, learnt positions, two blocks of three heads of width four."""
  @nn.compact
  def __call__(self, x):
    x = nn.Conv(11, (4, 4), 4, 'VALID')(x).reshape(x.shape[0], -1, 11)
    x = jnp.concatenate([jnp.tile(self.param('token', nn.initializers.zeros, (1, 1, 11)), (len(x), 1, 1)), x], 1)
    x = x + self.param('positions', nn.initializers.normal(), (1, x.shape[1], 11))
    for hidden in (10, 13):
      x = x + nn.MultiHeadDotProductAttention(3, qkv_features=12)(nn.LayerNorm()(x))
      x = x + nn.Dense(11)(nn.gelu(nn.Dense(hidden)(nn.LayerNorm()(x))))
    return nn.Dense(10)(nn.LayerNorm()(x)[:, 0])


class Mixer(nn.Module):
  """MLP-Mixer. `bias`: of the dense layers that mix places (a bias per place is added to every channel)."""
  bias: bool

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(9, (4, 4), 4, 'VALID')(x).reshape(x.shape[0], -1, 9)
    for places, hidden in ((6, 10), (7, 11)):
      y = nn.LayerNorm()(x).swapaxes(1, 2)
      y = nn.Dense(x.shape[1], use_bias=self.bias)(nn.gelu(nn.Dense(places, use_bias=self.bias)(y)))
      x = x + y.swapaxes(1, 2)
      x = x + nn.Dense(9)(nn.gelu(nn.Dense(hidden)(nn.LayerNorm()(x))))
    return nn.Dense(10)(nn.LayerNorm()(x).mean(1))


class Recurrent(nn.Module):
  """An LSTM over an embedding of features, and one over its hidden states, backwards."""
  @nn.compact
  def __call__(self, x):
    x = nn.RNN(nn.LSTMCell(7))(nn.Dense(5)(x))
    return nn.Dense(4)(nn.RNN(nn.OptimizedLSTMCell(6), reverse=True, keep_order=True)(x)[:, 0])


class Block(nn.Module):
  width: int = 6

  @nn.compact
  def __call__(self, x, _=None):
    return x + nn.Dense(self.width)(nn.gelu(nn.Dense(10)(nn.LayerNorm()(x)))), None


class Scanned(nn.Module):
  """One block over stacked parameters of three layers."""
  @nn.compact
  def __call__(self, x):
    stack = nn.scan(Block, variable_axes={'params': 0}, split_rngs={'params': True}, length=3)
    return nn.Dense(4)(stack()(nn.Dense(6)(x), None)[0].mean(1))


class Remat(nn.Module):
  """Three blocks whose activations are computed again; the stack of the last two is a rematerialised scan."""
  @nn.compact
  def __call__(self, x):
    x = nn.remat(Block)()(nn.Dense(6)(x))[0]
    block = nn.remat(Block, prevent_cse=False)
    stack = nn.scan(block, variable_axes={'params': 0}, split_rngs={'params': True}, length=2)
    return nn.Dense(4)(stack()(x, None)[0].mean(1))


class Shared(nn.Module):
  """Embedding, a dense layer that is called twice, the embedding again to score the tokens."""
  @nn.compact
  def __call__(self, x):
    embed, again = nn.Embed(11, 8), nn.Dense(8)
    x = nn.relu(again(nn.relu(again(embed(x)))))
    return embed.attend(x)


class Twins(nn.Module):
  """An image and a vector in, two answers out, one of which reads both."""
  @nn.compact
  def __call__(self, image, vector):
    image = nn.relu(nn.Conv(6, (3, 3), 2)(image)).mean((1, 2))
    vector = nn.relu(nn.Dense(7)(vector))
    both = nn.relu(nn.Dense(8)(jnp.concatenate([image, vector], -1)))
    return {'both': nn.Dense(3)(both), 'image': nn.Dense(2)(image)}


MODELS = {'vit': lambda: linen(ViT(), images(8)), 'mixer': lambda: linen(Mixer(True), images(8)),
          'mixer_without_bias': lambda: linen(Mixer(False), images(8)), 'lstm': lambda: linen(Recurrent(), sequence()),
          'scanned': lambda: linen(Scanned(), sequence()), 'remat': lambda: linen(Remat(), sequence()),
          'shared': lambda: linen(Shared(), tokens()), 'twins': lambda: linen(Twins(), images(8), sequence()[:, 0])}
