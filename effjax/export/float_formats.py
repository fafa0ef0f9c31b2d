"""Float .tflite files: float32, float16 weights, and trained codes with float or dynamically quantized activations."""
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from effjax import tree
from effjax.errors import EffjaxError
from effjax.export import flatbuffer, float_check, float_codes, float_edits, litert
from effjax.export.rewrites import convertible
from effjax.export.tflite import write
from effjax.graph.trace import trace
from effjax.reparam import Fact
from effjax.tree import PyTree

# The largest difference of an output that is accepted, in parts of the output's largest entry.
TOLERANCE = {'float32': 1e-4, 'float16': .02, 'weight_only': 1e-4, 'dynamic': .2}
WITH_CODES = ('weight_only', 'dynamic')


def float_tflite(fn: Callable, params: PyTree, x: PyTree, path: str | Path, *, weights: str = 'float32',
                 facts: Mapping[tree.Path, Fact] | None = None, inputs: Sequence[str] | None = None,
                 outputs: Sequence[str] | None = None, isolated: bool = False) -> int:
  """Writes `fn(params, x)` as a .tflite file with float inputs and outputs for a batch of one; its size in bytes.

  The file is written only after it ran: its outputs for the first example and for random inputs, under XNNPACK and
  under the builtin kernels, are those of `fn` (see `TOLERANCE`).

  Args:
    fn: any JAX function in inference mode.
    params: its parameters; with `facts` those as deployed, every named leaf equal to code * scale.
    x: a pytree of examples, batch first, or of `jax.ShapeDtypeStruct`s; each leaf is an input.
    weights: 'float32'; 'float16': every constant of more than one element is stored so, the arithmetic is float32;
      'weight_only': the leaves in `facts` are stored as their trained codes, int4 up to 4 bits, else int8, with
      their trained scales, the arithmetic is float32; 'dynamic': convolutions and dense layers compute on these codes
      in integers, and quantize their inputs at each inference. What has no fast kernel for that (depthwise and
      transposed convolutions, products of batches) stays weight-only, depthwise kernels in int8.
    facts: bits and scale of each kernel by path, as `quantize.deployed` gives them.
    inputs, outputs: their names in the file's signature; None: input, input_1, ... and output, output_1, ...
    isolated: run the converter in a child process; always so with `facts`, as it can crash there.

  Raises:
    EffjaxError: the converter is missing, fails, or makes a file that differs from `fn`; `facts` without such a
      format, or such a format without `facts`; leaves that are not their codes; names that are too many or too few.

  >>> import tempfile
  >>> folder = tempfile.TemporaryDirectory()
  >>> layer, w = lambda p, x: jax.nn.relu(x @ p['w']), jnp.linspace(-1., 1., 512).reshape(16, 32)
  >>> sizes = [float_tflite(layer, {'w': w}, jnp.ones((1, 16)), f'{folder.name}/layer.tflite', weights=kind)
  ...          for kind in ('float32', 'float16')]
  >>> sizes[0] > sizes[1] > 512 * 2
  True
  >>> folder.cleanup()
  """
  kernels = _kernels(params, weights, facts)
  specs, structure = jax.tree.flatten(jax.tree.map(_one, x))
  run = lambda params, *leaves: jax.tree.leaves(fn(params, jax.tree.unflatten(structure, leaves)))
  with jax.default_device(jax.devices('cpu')[0]):
    params = jax.device_get(params)
    names = (_names('input', inputs, len(specs)),
             _names('output', outputs, len(jax.eval_shape(run, params, *specs))))
    made = flatbuffer.read(_converted(run, params, specs, kernels, names, isolated))
    _edit(made, weights, names)
    float_codes.check(made, kernels)
    content = flatbuffer.write(made)
    jitted = jax.jit(run)
    float_check.check(content, lambda *leaves: jitted(params, *leaves), float_check.samples(x, specs), names[1],
                      TOLERANCE[weights])
  return write(path, content)


def _kernels(params, weights, facts) -> dict[tree.Path, float_codes.Coded]:
  """The leaves that are stored as codes."""
  if weights not in TOLERANCE:
    raise EffjaxError(f'float_tflite: weights={weights!r} is no format: choose from {list(TOLERANCE)}')
  if weights not in WITH_CODES and facts is not None:
    raise EffjaxError(f'float_tflite: facts do nothing with weights={weights!r}: leave them out, or choose from '
                      f'{list(WITH_CODES)}')
  kernels = float_codes.coded(params, facts or {})
  if weights in WITH_CODES and not kernels:
    raise EffjaxError(f'float_tflite: weights={weights!r} needs facts, the trained bits and scales of the kernels: '
                      'quantize.deployed gives them')
  return kernels


def _one(leaf) -> jax.ShapeDtypeStruct:
  """An input of the file: a batch of one, floats in float32."""
  dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
  dtype = jnp.float32 if jnp.issubdtype(dtype, jnp.floating) else dtype
  return jax.ShapeDtypeStruct((1, *leaf.shape[1:]) if leaf.shape else (), dtype)


def _names(what, given, count) -> list[str]:
  if given is None:
    return [f'{what}_{i}' if i else what for i in range(count)]
  if len(given) != count or len(set(given)) != count:
    raise EffjaxError(f'float_tflite: {what}s={tuple(given)} for {count} {what}s: give {count} different names')
  return list(given)


def _converted(run, params, specs, kernels, names, isolated) -> bytes:
  """The converter's file.

  It crashes on a kernel with codes whose output is multiplied by 0 (BatchNorm with a gain of 0). Then the zeros of
  the other parameters become 2^-100, whose products vanish in float32.
  """
  convert = lambda params: litert.convert(_stablehlo(run, params, specs, kernels), *names, quantized=bool(kernels),
                                          isolated=isolated or bool(kernels))
  try:
    return convert(params)
  except litert.ConverterCrash:
    if not kernels:
      raise
  tiny = lambda path, w: np.where(w == 0, np.asarray(2.**-100, w.dtype), w)
  others = [path for path, w in tree.leaves(params).items() if path not in kernels and np.result_type(w) == np.float32]
  return convert(tree.map_at(tiny, params, others))


def _stablehlo(run, params, specs, kernels) -> bytes:
  """The serialised (VHLO) StableHLO, parameters as constants."""
  program = trace(run, params, *specs)

  def closed(*leaves):
    mark = lambda path, w: float_codes.composite(kernels[path], w) if path in kernels else w
    marked = [mark(path, jnp.asarray(w)) for path, w in tree.leaves(params).items()]
    return convertible(program, [*marked, *leaves])

  return bytes(export.export(jax.jit(closed, keep_unused=True), platforms=['cpu'])(*specs).mlir_module_serialized)


def _edit(made, weights, names) -> None:
  if len(made.subgraphs) > 1:
    found = sorted({flatbuffer.operator_name(made, operator) for operator in made.subgraphs[0].operators})
    raise EffjaxError('float_tflite: a part of the function became no plain operator, and devices have no kernel for '
                      f'it (it is among {found}): write sorts, conditions and sums over windows in another way')
  if weights == 'float16':
    float_edits.half(made)
  if weights in WITH_CODES:
    float_edits.fold(made)
  if weights == 'dynamic':
    float_edits.dynamic(made)
  float_edits.name(made, *names)
  flatbuffer.compact(made)
