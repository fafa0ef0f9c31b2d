"""What a run found, as the plain numbers that `effjax.report` writes."""
import importlib.metadata
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from effjax import cost, graph, train
from effjax.reparam import Fact
from effjax.tree import Path, PyTree

PACKAGES = ('effjax', 'jax', 'flax', 'optax', 'litert-converter', 'ai-edge-litert')


def row(profile: graph.Profile, facts: dict[Path, Fact], activation_bits: int, entry_bytes: int) -> dict[str, float]:
  """The costs of one network."""
  return {'macs': float(cost.macs(profile, facts)),
          'bitops': float(cost.bitops(profile, facts, activation_bits=activation_bits)),
          'flash_bytes': float(cost.flash_bytes(profile, facts)),
          'peak_ram_bytes': float(cost.peak_ram(profile, facts, bytes_per_entry=entry_bytes))}


def count(params: PyTree) -> int:
  """Parameters in all leaves."""
  return sum(w.size for w in jax.tree.leaves(params))


def layers(profile: graph.Profile, hard: train.Hardened) -> list[dict[str, Any]]:
  """Bits and kept output channels of each layer that is left, of the supernet's rows."""
  every = np.append(hard.keep, True)  # -1, the last, is what no gate can remove
  return [{'name': r.path.rsplit('/', 1)[0], 'bits': hard.bits[r.path], 'kept': int(every[r.weight_axes[-1]].sum()),
           'channels': len(r.weight_axes[-1])} for r in profile.rows if r.path in hard.bits]


def operators(hard: train.Hardened, soft: dict[Path, Fact], channels: graph.Channels,
              names: Sequence[str]) -> list[dict[str, Any]]:
  """Each choice: its operators' probabilities at the end of the search, and the one that was taken."""
  offered = lambda n: [name for name in names if n == len(names) or name != 'skip']
  return [{'block': path.rsplit('/', 1)[0], 'names': offered(n), 'chosen': hard.choices[path],
           'probabilities': np.asarray(soft[path].choice)} for path, n in channels.choices.items()]


def history(folder: pathlib.Path, costs: Iterable[str]) -> dict[str, list]:
  """Accuracy and costs over the steps of the search, from the metrics file."""
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  lines = [line for line in lines if line['name'] == 'search']
  return {'step': [line['step'] for line in lines], 'accuracy': [line['accuracy'] for line in lines],
          **{name: [line[f'cost/{name}'] for line in lines] for name in costs}}


def versions() -> dict[str, str]:
  """Of the packages that the figures depend on."""
  return {name: importlib.metadata.version(name) for name in PACKAGES}
