"""The loop: a run killed in the middle ends bitwise where it would have ended; metrics, progress, mistakes."""
import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from effjax import relax, reparam
from effjax.errors import EffjaxError
from effjax.reparam import Fact, Rule, Slots
from effjax.train import (
  Budget,
  compile_step,
  cross_entropy,
  fit,
  init_state,
  latest_step,
  make_step,
  objective,
  optimizer,
  save,
)

KEY = jax.random.key(0)


def gates():
  """Gates on the rows of a matrix, with Gumbel-like noise and a memory: everything that a resumed run must restore."""
  return Rule(init=lambda key, w: Slots(w, {'logits': jnp.zeros(w.shape[0])}, {'steps': jnp.zeros((), jnp.int32)}),
              apply=lambda theta, phi, state, key: theta * relax.hard_concrete(key, phi['logits'])[:, None],
              facts=lambda slots, hard: Fact(keep=relax.hard_concrete_open(slots.phi['logits'])),
              update=lambda slots, gradient: {'steps': slots.state['steps'] + jnp.int32(1)},
              decisions=frozenset({'logits'}))


def batches(i):
  keys = jax.random.split(jax.random.fold_in(KEY, i))
  image = jax.random.normal(keys[0], (8, 5))
  return {'image': image, 'label': (image[:, 0] > 0).astype(jnp.int32)}


def setup(rate=.05, how='jit'):
  forward = lambda weights, model_state, batch, key: ({'logits': batch['image'] @ weights}, model_state)
  task = objective(forward, [cross_entropy()], budgets={'keep': Budget(lambda facts: facts[''].keep.sum(), 2.)})
  r = reparam.at('', gates())
  slots = r.init(KEY, jax.random.normal(KEY, (5, 2)))
  opt = optimizer(r, slots, weights=optax.adam(rate), decisions=optax.adam(rate))
  return compile_step(make_step(task, r, opt), how), init_state(task, r, opt, slots, {}, batches(0), KEY)


@pytest.fixture(autouse=True)
def _standard_promotion():
  with jax.numpy_dtype_promotion('standard'):  # optax.adam raises a float to an integer power
    yield


def bits(state):
  state = state._replace(key=jax.random.key_data(state.key))
  return [np.asarray(x).tobytes() for x in jax.tree.leaves(state)]


def run(tmp_path, batches=batches, steps=20, how='jit', **options):
  step, state = setup(how=how)
  options = {'every_steps': 6, 'log_every': 4, 'progress': False} | options
  return fit(step, state, batches, steps=steps, directory=tmp_path / 'checkpoints',
             metrics_file=tmp_path / 'metrics.jsonl', name='search', **options)


def killed_at(index):
  def until(i):
    if i == index:
      raise KeyboardInterrupt
    return batches(i)
  return until


@pytest.mark.parametrize(('index', 'how'), [(3, 'jit'), (6, 'jit'), (15, 'mesh')])
def test_a_killed_run_resumes_bitwise(tmp_path, index, how):
  whole, halves = tmp_path / 'whole', tmp_path / 'halves'
  whole.mkdir(), halves.mkdir()
  wanted = run(whole, how=how)
  with pytest.raises(KeyboardInterrupt):
    run(halves, killed_at(index), how=how)
  assert latest_step(halves / 'checkpoints') == {3: None, 6: 6, 15: 12}[index]
  got = run(halves, how=how)
  assert bits(got) == bits(wanted)
  assert (halves / 'metrics.jsonl').read_text() == (whole / 'metrics.jsonl').read_text()


def test_metrics_are_lines_of_json(tmp_path):
  run(tmp_path, steps=10)
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines] == [4, 8, 10]
  assert set(lines[0]) == {'name', 'step', 'loss', 'accuracy', 'cross_entropy', 'cost/keep', 'multiplier/keep'}
  assert lines[0]['name'] == 'search'


def test_lines_of_other_phases_stay_and_a_torn_line_goes(tmp_path):
  other = json.dumps({'name': 'baseline', 'step': 400}) + '\n'
  file = tmp_path / 'metrics.jsonl'
  file.write_text(other + json.dumps({'name': 'search', 'step': 3}) + '\n{"name": "sea')
  run(tmp_path, steps=4)
  lines = file.read_text().splitlines(keepends=True)
  assert lines[0] == other
  assert [json.loads(line)['step'] for line in lines[1:]] == [4]


def test_a_finished_run_is_left_as_it_is(tmp_path):
  wanted = run(tmp_path)
  before = (tmp_path / 'metrics.jsonl').read_bytes()

  def none(i):
    raise AssertionError('no batch is needed')

  assert bits(run(tmp_path, none)) == bits(wanted)
  assert (tmp_path / 'metrics.jsonl').read_bytes() == before


def test_batches_may_come_with_a_held_out_one():
  def step(state, batch, held_out):
    return state._replace(step=state.step + jnp.int32(held_out - batch)), {'loss': jnp.float32(0.)}

  _, state = setup()
  assert int(fit(step, state, lambda i: (i, i + 1), steps=3, progress=False).step) == 3


def test_the_next_batch_is_made_in_the_background_and_no_more_than_needed():
  made = []

  def recorded(i):
    made.append((i, threading.get_ident()))
    return batches(i)

  step, state = setup()
  fit(step, state, recorded, steps=3, progress=False)
  assert [i for i, _ in made] == [0, 1, 2]
  assert threading.get_ident() not in {thread for _, thread in made}


def test_progress_shows_loss_accuracy_and_costs(tmp_path, capsys):
  run(tmp_path, progress=True, steps=8)
  shown = capsys.readouterr().err
  assert all(part in shown for part in ('search', '8/8', 'loss=', 'accuracy=', 'cost/keep='))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
  poison = lambda i: batches(i) | ({'image': jnp.full((8, 5), jnp.nan)} if i >= 5 else {})
  with pytest.raises(EffjaxError, match='search has loss nan at step 8: lower the learning rates'):
    run(tmp_path, poison)


def test_a_checkpoint_beyond_the_steps_asked_for(tmp_path):
  _, state = setup()
  save(tmp_path / 'checkpoints', 30, state._replace(step=jnp.int32(30)))
  with pytest.raises(EffjaxError, match='is at step 30, wanted 20 in all'):
    run(tmp_path)


def test_what_is_observed_is_a_line_at_each_checkpoint(tmp_path):
  observe = lambda state: {'step_of_state': int(state.step), 'rows': [1., 2.]}
  run(tmp_path, observe=observe)
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  seen = [line for line in lines if 'rows' in line]
  assert [line['step'] for line in seen] == [line['step_of_state'] for line in seen] == [6, 12, 18, 20]
  assert all(line['name'] == 'search' and line['rows'] == [1., 2.] for line in seen)


def test_what_is_observed_needs_a_file():
  step, state = setup()
  with pytest.raises(EffjaxError, match='fit: what observe returns goes into metrics_file, got None: give it a file'):
    fit(step, state, batches, steps=2, observe=lambda state: {}, progress=False)
