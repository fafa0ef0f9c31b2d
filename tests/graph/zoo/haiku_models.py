"""Haiku: pure functions of its parameters; the state of BatchNorm is a constant."""
import haiku as hk
import jax
import jax.numpy as jnp

from zoo import fill, images, model, sequence, tokens


def mobile(x):
  """An inverted residual: 1x1, depthwise, 1x1, each with BatchNorm."""
  norm = lambda x: hk.BatchNorm(True, True, .9)(x, is_training=hk.running_init())
  x = jax.nn.relu(norm(hk.Conv2D(6, 3, 2, with_bias=False)(x)))
  y = jax.nn.relu6(norm(hk.Conv2D(13, 1, with_bias=False)(x)))
  y = jax.nn.relu6(norm(hk.DepthwiseConv2D(1, 3, with_bias=False)(y)))
  x = x + norm(hk.Conv2D(6, 1, with_bias=False)(y))
  return hk.Linear(10)(hk.Flatten()(hk.avg_pool(x, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')))


def transformer(norm):
  """A causal language model of one layer."""
  def call(ids):
    x = hk.Embed(11, 8)(ids) + hk.get_parameter('positions', (ids.shape[1], 8), init=jnp.zeros)
    mask = jnp.tril(jnp.ones((1, 1, ids.shape[1], ids.shape[1])))
    y = norm()(x)
    x = x + hk.MultiHeadAttention(3, 4, w_init=jnp.zeros, model_size=8)(y, y, y, mask)
    x = x + hk.Linear(8)(jax.nn.gelu(hk.Linear(10)(norm()(x))))
    return hk.Linear(11)(norm()(x))
  return call


def recurrent(x):
  cell = hk.LSTM(7)
  states, _ = hk.dynamic_unroll(cell, hk.Linear(5)(x).swapaxes(0, 1), cell.initial_state(x.shape[0]))
  return hk.Linear(4)(jax.nn.relu(hk.BatchApply(hk.Linear(6))(states)).mean(0))


def pure(call, *args):
  init, apply = hk.without_apply_rng(hk.transform_with_state(call))
  params, state = jax.eval_shape(init, jax.random.key(0), *args)
  state = fill(state)
  return model(lambda params, *args: apply(params, state, *args)[0], params, *args)


layer_norm = lambda: hk.LayerNorm(-1, True, True)
MODELS = {'haiku_mobile': lambda: pure(mobile, images(8)),
          'haiku_transformer': lambda: pure(transformer(layer_norm), tokens()),
          'haiku_transformer_rms': lambda: pure(transformer(lambda: hk.RMSNorm(-1)), tokens()),
          'haiku_lstm': lambda: pure(recurrent, sequence())}
