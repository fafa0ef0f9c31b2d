"""The process in which TFLite Micro runs a file: started by this file's path, so that nothing else is imported."""
import pathlib
import sys

import numpy as np

ARENA = 2 ** 28  # bytes of address space; only what is used becomes memory


def main(folder: str) -> str:
  """Runs `model.tflite` on the examples of `inputs.npz` into `outputs.npz`, and prints the arena on stderr.

  Returns:
    What was wrong, '' if nothing was; TFLite Micro's own words are on stderr.
  """
  from tflite_micro.python.tflite_micro import runtime
  here = pathlib.Path(folder)
  content = (here / 'model.tflite').read_bytes()
  with np.load(here / 'inputs.npz') as inputs:
    codes = [inputs[f'arr_{i}'] for i in range(len(inputs))]
  try:
    count = len(runtime.convert_bytearray_to_object(content).subgraphs[0].outputs)
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=ARENA)
    outputs = [_run(interpreter, [q[i:i + 1] for q in codes], count) for i in range(len(codes[0]))]
  except Exception as error:
    return f'{type(error).__name__}: {error}'
  np.savez(here / 'outputs.npz', *map(np.concatenate, zip(*outputs, strict=True)))
  interpreter.print_allocations()
  return ''


def _run(interpreter, example, count) -> list[np.ndarray]:
  for i, q in enumerate(example):
    interpreter.set_input(np.ascontiguousarray(q), i)
  interpreter.invoke()
  return [np.array(interpreter.get_output(i)) for i in range(count)]


if __name__ == '__main__':
  sys.exit(main(sys.argv[1]) or 0)
