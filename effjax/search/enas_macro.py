"""The macro space of ENAS: a chain of layers, each with an operator and any of the skip connections into it."""
import dataclasses
import functools

import flax.linen as nn
from jaxtyping import Array, Float

from effjax.errors import EffjaxError
from effjax.layers.avg_pool import avg_pool
from effjax.layers.batch_norm import BatchNorm
from effjax.layers.block import Block
from effjax.layers.conv_bn import ConvBN
from effjax.layers.dense import Dense
from effjax.layers.factorized_reduce import FactorizedReduce
from effjax.layers.max_pool import max_pool
from effjax.layers.operations import OPERATIONS, Pooling
from effjax.layers.separable_conv import SeparableConv
from effjax.search.choice import Choice

OPERATORS = ('conv_3x3', 'sep_conv_3x3', 'conv_5x5', 'sep_conv_5x5', 'avg_pool_3x3', 'max_pool_3x3')
SKIPS = ('none', 'skip_connect')


class ENASMacro(Block):
  """Images to logits: stem, layers, mean, dense layer; all is halved after a third and two thirds of the layers.

  `x_k = BatchNorm(op_k(x_{k-1}) + sum_{i < k - 1} s_ki x_i)`, x_0 the stem; x_1 is its operator alone. The operator of
  layer k is the choice `layer1/choice` ..., and whether it adds x_i the choice `layer3_skip0/choice` ... between 'none'
  and 'skip_connect': `6^layers 2^(layers (layers - 1) / 2)` architectures.
  Other parameters under `stem`, `layer1/conv_3x3` ..., `layer2_bn` ..., `reduce1_state0` ..., `classifier`. The
  network of one architecture is `Derived(ENASMacro(...), architecture)`; its parameters are some of these.

  Args:
    num_classes: logits.
    features: channels everywhere.
    layers: how many.
    operators: on offer, in the order of each vector's entries.
    paths: as in `Choice`, of the operators.
    others: as in `Block`.

  Raises:
    EffjaxError: an unknown operator; no layers.

  Differs from the paper: skips are added, as in its search code; the networks that it trains concatenate them before a
  1x1 convolution, and have twice as many channels after each reduction. A state is halved whether or not a layer
  behind adds it.

  Source: Pham, Guan, Zoph, Le, Dean, "Efficient neural architecture search via parameter sharing", ICML 2018,
  arXiv:1802.03268, survey [65].

  >>> import jax, jax.numpy as jnp
  >>> net, x = ENASMacro(10, features=4, layers=2), jnp.ones((1, 8, 8, 3))
  >>> params = jax.eval_shape(lambda key: net.init(key, x, False), jax.random.key(0))['params']
  >>> {name: leaf['choice'].shape for name, leaf in params.items() if 'choice' in leaf}
  {'layer1': (6,), 'layer2': (6,), 'layer2_skip0': (2,)}
  """
  num_classes: int = 10
  features: int = 36
  layers: int = 12
  operators: tuple[str, ...] = OPERATORS
  paths: int | None = None
  epsilon: float = dataclasses.field(default=1e-5, kw_only=True)

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w c'], train: bool) -> Float[Array, 'n classes']:
    self._check()
    states = [ConvBN(self.features, 3, activation=None, name='stem', **self.same)(x, train)]
    for k in range(1, self.layers + 1):
      states.append(self._layer(k, states, train))
      if k in (self.layers // 3, 2 * (self.layers // 3)):
        half = functools.partial(FactorizedReduce, self.features, **self.same)
        states = [half(name=f'reduce{k // (self.layers // 3)}_state{i}')(x, train) for i, x in enumerate(states)]
    return Dense(self.num_classes, name='classifier', **self.same)(states[-1].mean((1, 2)))

  def _layer(self, k, states, train):
    ops = tuple(MacroOperator(self.features, name, name=name, parent=None, **self.same) for name in self.operators)
    y = Choice(ops, self.paths, name=f'layer{k}')(states[-1], train)
    if k == 1:
      return y
    for i, x in enumerate(states[:-1]):
      skips = tuple(OPERATIONS[name](self.features, 1, name=name, parent=None, **self.same) for name in SKIPS)
      y = y + Choice(skips, name=f'layer{k}_skip{i}')(x, train)
    return BatchNorm(name=f'layer{k}_bn', **self.same)(y, train)

  def _check(self):
    if unknown := [name for name in self.operators if name not in OPERATORS]:
      raise EffjaxError(f'ENASMacro: unknown operators {unknown}: known are {OPERATORS}')
    if self.layers < 1:
      raise EffjaxError(f'ENASMacro: {self.layers} layers, wanted 1 or more, 3 for two reductions')


class MacroOperator(Block):
  """`y = op(g(x))`, g a 1x1 convolution, BatchNorm and ReLU; op a convolution with both again, or a pool.

  `[n, h, w, cin] -> [n, h, w, features]`. Parameters under `fit` and `conv`.

  Args:
    features: output channels.
    operator: one of `OPERATORS`; 'sep_conv' is depthwise, then pointwise.
    others: as in `Block`.

  >>> import jax, jax.numpy as jnp
  >>> op = MacroOperator(4, 'sep_conv_5x5')
  >>> op.init_with_output(jax.random.key(0), jnp.ones((1, 8, 8, 3)), False)[0].shape
  (1, 8, 8, 4)
  """
  features: int
  operator: str

  @nn.compact
  def __call__(self, x: Float[Array, 'n h w cin'], train: bool) -> Float[Array, 'n h w features']:
    x = ConvBN(self.features, 1, activation=nn.relu, name='fit', **self.same)(x, train)
    if self.operator.endswith('pool_3x3'):
      return Pooling(avg_pool if self.operator.startswith('avg') else max_pool, name='pool', **self.same)(x, train)
    make = SeparableConv if self.operator.startswith('sep') else ConvBN
    return make(self.features, kernel=int(self.operator[-1]), activation=nn.relu, name='conv', **self.same)(x, train)
