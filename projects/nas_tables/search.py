"""Estimators of a search's gradient on tables of whole search spaces: `python search.py --tables DIR`.

DIR holds nasbench201.npz and nasbench_macro.npz, arrays `arch` [n, choices] and accuracies. With independent choices of
probabilities p the expected accuracy is the table contracted with p: a polynomial whose gradient is exact, which each
estimator approximates from one draw a step. Printed per estimator: how far the mean of 4,000 estimates is from the
exact gradient, and their variance, both relative, at random logits; and where 300 steps of Adam from equal logits end,
over seeds: the test accuracy of the most probable architecture, and the part of the table that is better. A draw of
`softmax` is p itself, so it follows the exact gradient. Random search takes the best of 300 by validation accuracy.
"""
import argparse
import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from effjax import search

STEPS, RATE, ESTIMATES = 300, .1, 4000
cold = lambda step: jnp.maximum(2. * (1. - step / STEPS), .1)  # the temperature of concrete draws falls
RULES = {'exact (softmax)': search.softmax(), 'binary_gates': search.binary_gates(),
         'binary_gates, 2 paths': search.binary_gates(paths=2), 'gumbel': search.gumbel(temperature=cold),
         'straight_through_gumbel': search.straight_through_gumbel(temperature=cold),
         'dirichlet': search.dirichlet()}


class Table(NamedTuple):
  """One axis per choice, in percent. accuracy: what a search sees; reported: of what it found."""
  name: str
  accuracy: np.ndarray
  reported: np.ndarray


def tables(folder):
  """NAS-Bench-201 after 12 epochs on CIFAR-10, validation and test; NAS-Bench-Macro, the mean of three runs."""
  with np.load(folder / 'nasbench201.npz') as file:
    columns = [list(file['accuracy_columns']).index(name) for name in ('c10_val', 'c10_test')]
    yield table('NAS-Bench-201', file['arch'], *file['accuracy'][:, columns].T)
  with np.load(folder / 'nasbench_macro.npz') as file:
    yield table('NAS-Bench-Macro', file['arch'], *[file['acc3'].mean(1)] * 2)


def table(name, arch, *accuracies):
  """The accuracies at their places."""
  placed = [np.empty((arch.max() + 1,) * arch.shape[1]) for _ in accuracies]
  for values, given in zip(placed, accuracies):
    values[tuple(arch.T)] = given
  return Table(name, *placed)


def expected(accuracy: np.ndarray) -> Callable:
  """`E_p` of p [choices, operators], as one product of matrices over two halves of the choices."""
  n, half = accuracy.shape[0], accuracy.ndim // 2
  matrix = jnp.asarray(accuracy.reshape(n**half, -1) - accuracy.mean(), jnp.float32)
  joint = lambda p: functools.reduce(lambda a, b: jnp.outer(a, b).ravel(), p)
  return lambda p: joint(p[:half]) @ matrix @ joint(p[half:])


def by_rule(rule, here):
  """`(logits, state, step, key) -> gradient, state` through the draws of a rule."""
  value = expected(here.accuracy)

  def gradient(logits, state, step, key):
    def drawn(logits):
      one = lambda a, key: rule.apply(None, {'logits': a}, {'step': step}, key)
      return value(jax.vmap(one)(logits, jax.random.split(key, len(logits))))
    return jax.grad(drawn)(logits), state
  return gradient


def by_reward(here, with_baseline):
  """The same by REINFORCE, which only sees the accuracy of the architecture that is drawn."""
  accuracy = jnp.asarray(here.accuracy - here.accuracy.mean() * with_baseline, jnp.float32)

  def gradient(logits, state, step, key):
    drawn = jax.random.categorical(key, logits)
    one_hot = jax.nn.one_hot(drawn, logits.shape[1])[None]
    found, new = search.score_function(logits, one_hot, accuracy[tuple(drawn)][None], state)
    return found, new if with_baseline else state
  return gradient


def estimators(here):
  """By name."""
  rules = {name: by_rule(rule, here) for name, rule in RULES.items()}
  return rules | {'score_function': by_reward(here, False), 'score_function, baseline': by_reward(here, True)}


def compared(gradient, exact, here):
  """(|mean - exact| / |exact|, total variance / |exact|^2) at random logits, in the first step's temperature."""
  choices, n = here.accuracy.ndim, here.accuracy.shape[0]
  logits = jnp.asarray(np.random.default_rng(0).normal(size=(choices, n)), jnp.float32)
  state = search.Baseline(jnp.float32(expected(here.accuracy)(jax.nn.softmax(logits))), jnp.int32(10**4))
  of = lambda gradient, state: lambda key: gradient(logits, state, jnp.int32(0), key)[0]
  draws = np.asarray(jax.jit(jax.vmap(of(gradient, state)))(jax.random.split(jax.random.key(0), ESTIMATES)), np.float64)
  truth = np.asarray(of(exact, state)(jax.random.key(0)), np.float64)
  size = np.linalg.norm(truth)
  return np.linalg.norm(draws.mean(0) - truth) / size, draws.var(0).sum() / size**2


def ascents(gradient, here, seeds):
  """The flat index of the most probable architecture after `STEPS` of Adam, for each seed."""
  optimizer, start = optax.adam(RATE), jnp.zeros((here.accuracy.ndim, here.accuracy.shape[0]), jnp.float32)

  def run(key):
    def step(carry, step):
      logits, state, memory = carry
      found, state = gradient(logits, state, step, jax.random.fold_in(key, step))
      change, memory = optimizer.update(jax.tree.map(jnp.negative, found), memory)
      return (optax.apply_updates(logits, change), state, memory), None
    begin = start, search.baseline(), optimizer.init(start)
    return jax.lax.scan(step, begin, jnp.arange(STEPS))[0][0].argmax(-1)

  found = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), seeds)))
  return np.ravel_multi_index(tuple(found.T), here.accuracy.shape)


def row(name, bias, variance, chosen, here):
  """One line of the table."""
  values = here.reported.ravel()
  above = 100 * np.mean(values > values[chosen][:, None], 1)
  far = f'{bias:.3f} | {variance:.3g}' if bias is not None else '| '
  print(f'| {name} | {far} | {values[chosen].mean():.2f} +- {values[chosen].std():.2f} | {np.median(above):.2f} % |')


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--tables', type=pathlib.Path, required=True, metavar='DIR')
  parser.add_argument('--seeds', type=int, default=30)
  options = parser.parse_args()
  for here in tables(options.tables):
    seen, found = here.accuracy.ravel(), estimators(here)
    print(f'\n{here.name}: {len(seen)} architectures, best {here.reported.max():.2f} %\n')
    print('| estimator | distance of the mean | variance | accuracy found (seeds) | better ones, median |')
    print('|---|---|---|---|---|')
    for name, gradient in found.items():
      row(name, *compared(gradient, found['exact (softmax)'], here), ascents(gradient, here, options.seeds), here)
    random = np.random.default_rng(0)
    drawn = [random.choice(len(seen), STEPS, replace=False) for _ in range(options.seeds)]
    row('random search', None, None, np.array([few[seen[few].argmax()] for few in drawn]), here)


if __name__ == '__main__':
  main()
