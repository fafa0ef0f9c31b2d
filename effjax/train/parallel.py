"""One step on one device, on a mesh, or under `pmap`: the same calling convention and the same result."""
import functools
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from effjax.errors import EffjaxError
from effjax.train.step import Step
from effjax.tree import PyTree


def compile_step(step: Step, how: str = 'jit', devices: Sequence[jax.Device] | None = None) -> Step:
  """`step(state, batch, held_out=None) -> (state, metrics)`, compiled; the state passed in is donated.

  Args:
    step: from `make_step`; for 'pmap' made with an `axis_name`, else without.
    how: 'jit', one device; 'mesh', `jit` with the batch split over its first axis and the state on every device, XLA
      finding the reductions; 'pmap', one program per device and the reductions that the step asks for.
      Under 'pmap' BatchNorm sees its own device's examples unless the model gives it the `axis_name`.
    devices: default the first for 'jit', all for the others.

  Reductions over devices are reordered: float32 results agree to rounding, not bitwise, between numbers of devices.

  Raises:
    EffjaxError: an unknown `how`, a step made for another one, a batch that does not divide over the devices.

  >>> import jax.numpy as jnp
  >>> count = compile_step(lambda state, batch, held_out=None: (state + batch.sum(), {}), 'mesh')
  >>> float(count(jnp.zeros(()), jnp.ones(len(jax.devices())))[0]) == len(jax.devices())
  True
  """
  makers = {'jit': _jit, 'mesh': _mesh, 'pmap': _pmap}
  if how not in makers:
    raise EffjaxError(f"compile_step: how must be 'jit', 'mesh' or 'pmap', got {how!r}")
  axis_name = getattr(step, 'axis_name', None)
  if (how == 'pmap') != (axis_name is not None):
    wanted = "make_step(..., axis_name='devices')" if how == 'pmap' else 'make_step without axis_name'
    raise EffjaxError(f'compile_step: {how!r} wants a step from {wanted}, got axis_name={axis_name!r}')
  return makers[how](step, list(devices) if devices is not None else jax.devices()[:1 if how == 'jit' else None])


def check_devices(how: str, devices: int, batch_size: int) -> None:
  """What `compile_step` and its step will ask of the devices, before there is a step.

  Raises:
    EffjaxError: several devices for 'jit'; a batch that does not divide over them.
  """
  if how == 'jit' and devices != 1:
    raise EffjaxError(f"compile_step: 'jit' runs on one device, got {devices}: use 'mesh' or 'pmap'")
  if batch_size % devices:
    below = batch_size // devices
    raise EffjaxError(f'a batch of {batch_size} examples does not divide over {devices} devices: '
                      f'use {max(below, 1) * devices} or {(below + 1) * devices} examples')


def _jit(step, devices):
  check_devices('jit', len(devices), 1)
  compiled = jax.jit(step, donate_argnums=0)

  @functools.wraps(step)
  def run(state, batch, held_out=None):
    with jax.default_device(devices[0]):
      return compiled(state, batch, held_out)

  return run


def _mesh(step, devices):
  mesh = Mesh(np.array(devices), ('devices',), axis_types=(AxisType.Auto,))
  everywhere, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec('devices'))
  compiled = jax.jit(step, donate_argnums=0, out_shardings=everywhere)

  @functools.wraps(step)
  def run(state, batch, held_out=None):
    _check_divides((batch, held_out), len(devices))
    return compiled(_placed(state, everywhere), *jax.device_put((batch, held_out), split))

  return run


def _pmap(step, devices):
  mesh = Mesh(np.array(devices), (step.axis_name,), axis_types=(AxisType.Auto,))
  everywhere = NamedSharding(mesh, PartitionSpec())  # Where the first step leaves the state: so it is traced once.
  compiled = jax.pmap(step, step.axis_name, in_axes=(None, 0, 0), out_axes=None, devices=devices, donate_argnums=0)

  @functools.wraps(step)
  def run(state, batch, held_out=None):
    _check_divides((batch, held_out), len(devices))
    parts = jax.tree.map(lambda x: x.reshape(len(devices), -1, *x.shape[1:]), (batch, held_out))
    return compiled(_placed(state, everywhere), *parts)

  return run


def _placed(state: PyTree, sharding: NamedSharding) -> PyTree:
  """Only the first step has anything to move; `device_put` would look at every leaf for longer."""
  return state if all(x.sharding == sharding for x in jax.tree.leaves(state)) else jax.device_put(state, sharding)


def _check_divides(batches: PyTree, devices: int) -> None:
  for n in {x.shape[0] for x in jax.tree.leaves(batches)}:
    check_devices('several', devices, n)
