"""The loop: batches by index, progress, metrics, checkpoints, and exact resumption."""
import json
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path as File
from typing import Any

import jax
from tqdm import tqdm

from effjax.errors import EffjaxError
from effjax.train import checkpoint
from effjax.train.state import TrainState
from effjax.train.step import Step


def fit(step: Step, state: TrainState, batches: Callable[[int], Any], *, steps: int,
        directory: str | os.PathLike | None = None, every_steps: int = 1000,
        metrics_file: str | os.PathLike | None = None, log_every: int = 20, progress: bool = True,
        name: str = '', observe: Callable[[TrainState], dict[str, Any]] | None = None) -> TrainState:
  """Runs a compiled step until `state.step == steps`, from the newest checkpoint if there is one.

  Batches depend on their index alone and the state holds everything else, so a run that was killed ends bitwise where
  it would have ended. The next batch is made in a background thread. Metrics leave the device every `log_every` steps
  only; nothing else waits for it.

  Args:
    step: from `compile_step`; donates its state, so the one passed in must not be used again.
    state: where to start if `directory` holds no checkpoint.
    batches: index -> batch, or -> (batch, held_out) for a bilevel step.
    steps: in total, those before resuming included.
    directory: of the checkpoints, written every `every_steps` steps and at the end; None: none.
    metrics_file: JSON lines, `{"name": ..., "step": ..., "loss": ..., ...}` every `log_every` steps and at the end.
      Appended to; lines of this `name` later than the step resumed from are dropped first.
    progress: a bar with loss, accuracy and costs.
    name: of this phase, in the bar and in the lines.
    observe: what else to keep of a state, numbers and lists by name: a line of the metrics file before each checkpoint.

  Raises:
    EffjaxError: something to observe and no file for it; a corrupt checkpoint or one of another model, one later than
      `steps`, a loss that is not finite.

  >>> count = lambda state, batch: (state._replace(step=state.step + batch), {'loss': 0.})
  >>> state = TrainState(None, None, None, None, None, step=jax.numpy.int32(0), key=None)
  >>> int(fit(count, state, lambda i: 1, steps=3, progress=False).step)
  3
  """
  if observe is not None and metrics_file is None:
    raise EffjaxError('fit: what observe returns goes into metrics_file, got None: give it a file')
  state, start = _resume(state, directory, steps)
  log = _log(metrics_file, name, start)
  with ThreadPoolExecutor(1) as pool, tqdm(total=steps, initial=start, desc=name, disable=not progress) as bar:
    following = pool.submit(batches, start)
    for done in range(start + 1, steps + 1):
      batch = following.result()
      following = pool.submit(batches, done) if done < steps else None
      state, metrics = step(state, *(batch if isinstance(batch, tuple) else (batch,)))
      if done % log_every == 0 or done == steps:
        log(done, bar, jax.device_get(metrics))
      if observe is not None and (done % every_steps == 0 or done == steps):
        _write(metrics_file, {'name': name, 'step': done} | observe(state))
      if directory is not None and (done % every_steps == 0 or done == steps):
        checkpoint.save(directory, done, state)
      bar.update()
  return state


def _resume(state, directory, steps):
  latest = None if directory is None else checkpoint.latest_step(directory)
  if latest is not None:
    state = checkpoint.restore(directory, state, latest)
  start = int(state.step)
  if start > steps:
    raise EffjaxError(f'fit: the state of {directory or "this run"} is at step {start}, wanted {steps} in all: '
                      'ask for more steps or start in another folder')
  return state, start


def _log(metrics_file, name, start):
  if metrics_file is not None:
    _truncate(File(metrics_file), name, start)

  def log(step, bar, metrics):
    record = {key: float(value) for key, value in sorted(metrics.items())}
    bar.set_postfix({key: f'{value:.4g}' for key, value in record.items() if _shown(key)}, refresh=False)
    if metrics_file is not None:
      _write(metrics_file, {'name': name, 'step': step} | record)
    if not math.isfinite(record['loss']):
      raise EffjaxError(f'fit: {name or "training"} has loss {record["loss"]} at step {step}: lower the learning '
                        'rates, or start from the last checkpoint with another seed')

  return log


def _write(file, record):
  with open(file, 'a') as lines:
    lines.write(json.dumps(record) + '\n')


def _shown(key):
  return key in ('loss', 'accuracy') or key.startswith('cost/')


def _truncate(file, name, start):
  """Drops this phase's lines after `start`, and a line that was being written when the run was killed."""
  lines = file.read_text().splitlines(keepends=True) if file.exists() else []
  kept = [line for line in lines if _stays(line, name, start)]
  temporary = file.with_name(file.name + '.new')
  temporary.write_text(''.join(kept))
  os.replace(temporary, file)


def _stays(line, name, start):
  try:
    record = json.loads(line)
  except json.JSONDecodeError:
    return False
  return line.endswith('\n') and (record['name'] != name or record['step'] <= start)
