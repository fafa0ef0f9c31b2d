"""Every quantizer of effjax.quantize, and what the target can run: `effjax quantizers`."""
import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from effjax import export, quantize
from effjax.errors import EffjaxError
from effjax.quantize.lsq_plus import ActivationQuantizer
from effjax.reparam import Fact, Rule
from effjax.report.tables import markdown, table

COLUMNS = {'name': 'quantizer', 'source': 'source [survey]', 'bits': 'bits', 'trains': 'trains', 'runs': 'on integers',
           'gradient': 'gradient'}
WIDE = 200  # columns of a table that is not printed on a terminal
PAGE = '''# The quantizers

This page is what `effjax quantizers --format markdown` prints: every factory of `effjax.quantize` with its default
arguments (`fixed_point(4, 4)`), put on a kernel of 3x3x8x16 weights, or on an activation.
`help(effjax.quantize.NAME)` has the equations.

- Bits are those of the codes that are deployed. Trains: what the method adds to the weights, `phi`.
- On integers: what the file stores the codes in, or why no integer kernel runs them. Kernels read 4 or 8 bits; 2 bits
  are stored in 4 where a kernel does not take them.
- Gradient: what the docstring says of it first.

## Weights

{weights}

## Activations

{activations}

## What is solved, coded or transformed

{others}'''


def show(format: str = 'table') -> int:
  """Prints the quantizers of weights, of activations, and the other functions."""
  weights, activations, others = described()
  if format == 'markdown':
    cells = lambda rows: markdown(_cells(rows))
    print(PAGE.format(weights=cells(weights), activations=cells(activations), others=cells(others)))
  else:
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    for rows in (weights, activations, others):
      console.print(table(_cells(rows)))
  return 0


def described() -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
  """Rows of the rules, of the quantizers of activations, and of all other functions that name a source."""
  functions = {name: getattr(quantize, name) for name in sorted(quantize.__all__)}
  returns = {name: inspect.signature(f).return_annotation for name, f in functions.items() if inspect.isfunction(f)}
  pick = lambda kind: {name: functions[name] for name, found in returns.items() if found is kind}
  rules, activations = pick(Rule), pick(ActivationQuantizer)
  others = {name: functions[name] for name in returns if name not in rules and name not in activations}
  return ([_of_rule(*each) for each in rules.items()], [_of_activation(*each) for each in activations.items()],
          [{'name': name, 'source': _source(f)} for name, f in others.items() if _source(f)])


def _of_rule(name: str, factory: Callable) -> dict[str, Any]:
  rule, w = _made(factory), jax.random.normal(jax.random.key(0), (3, 3, 8, 16))
  slots = rule.init(jax.random.key(1), w)
  fact = rule.facts(slots, True)
  return {'name': name, 'source': _source(factory), 'bits': f'{float(np.max(fact.bits)):g}',
          'trains': ', '.join(sorted(slots.phi)) or '-', 'runs': _runs(rule.apply(*slots, None), fact),
          'gradient': _gradient(factory)}


def _of_activation(name: str, factory: Callable) -> dict[str, Any]:
  quantizer = _made(factory)
  phi = quantizer.init(jax.random.normal(jax.random.key(0), (16, 8)))
  return {'name': name, 'source': _source(factory), 'bits': str(quantizer.bits),
          'trains': ', '.join(sorted(phi)) or '-', 'gradient': _gradient(factory),
          'runs': 'int8' if 2 <= quantizer.bits <= 8 else f'no: {quantizer.bits} bit'}


def _made(factory: Callable) -> Any:
  """With default arguments."""
  return factory(**({'integer_bits': 4, 'fraction_bits': 4} if factory is quantize.fixed_point else {}))


def _runs(weights: jax.Array, fact: Fact) -> str:
  """How export stores it, or why it does not."""
  if fact.scale is None:
    return 'no: its values have no scale'
  try:
    bits = export.kernels.codes_of('export', 'w', weights, fact)[1]
    export.finalize(lambda p, x: x @ p['w'].reshape(-1, p['w'].shape[-1]), {'w': weights}, {'w': fact},
                    {'input': (.1, 0, 8), 'w': (.1, 0, 8)}, jnp.ones((1, weights.size // weights.shape[-1])))
  except EffjaxError as error:
    return 'no: ' + re.sub(r"^.*codes of 'w' are |^[^:]*: ", '', str(error)).split(',')[0]
  return 'int4' if bits <= 4 else 'int8'


def _source(function: Callable) -> str:
  """First author, year, and the number in the survey, from the docstring; empty if it names no source."""
  _, named, text = (inspect.getdoc(function) or '').partition('Source:')
  if not named:
    return ''
  text = ' '.join(text.split('>>>')[0].split())
  first, year = re.split(r', | et al| and ', text)[0], re.search(r'\b(19|20)\d\d\b', text)
  survey = re.search(r'\[\d+\]', text)
  return ' '.join(filter(None, [first, year and year.group(0), survey and survey.group(0)]))


def _gradient(function: Callable) -> str:
  text = ' '.join((inspect.getdoc(function) or '').split())
  found = re.search(r'Gradient[^:.]*: (.*?)(?:\.(?: |$)| Args:)', text)
  return found.group(1).replace('|', '\\|') if found else ''


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
  columns = {key: title for key, title in COLUMNS.items() if rows and key in rows[0]}
  return [list(columns.values()), *([row[key] for key in columns] for row in rows)]
