"""The converter's private interface, and the process in which it runs if asked: started by this file's path.

Nothing else is imported, neither effjax nor JAX.
"""
import json
import os
import pathlib
import sys
from collections.abc import Sequence


def converted(vhlo: bytes, inputs: Sequence[str], outputs: Sequence[str], quantized: bool) -> bytes:
  """A .tflite file from serialised StableHLO, its ends named; see `litert.convert`."""
  from litert_converter.mlir import ir, passmanager
  from litert_converter.mlir._mlir_libs import converter_api_ext as capi
  context = ir.Context()
  capi.prepare_mlir_context(context)
  with context:
    module = ir.Module.parse(vhlo)
    legalize = 'builtin.module(vhlo-legalize-stablehlo,reconcile-unrealized-casts)'
    passmanager.PassManager.parse(legalize).run(module.operation)
    capi.set_signature(module.operation, 'serving_default', list(inputs), list(outputs))
    config = capi.ConvertToTFLConfig()
    config.strict_qdq_mode = quantized
    capi.run_convert_to_tfl_passes(module, passmanager.PassManager(), config)
    return bytes(capi.export_flatbuffer_to_bytes(module.operation))


def main(folder: str) -> str:
  """Converts `program` as `settings.json` says into `model.tflite`; what was wrong, '' if nothing was."""
  here = pathlib.Path(folder)
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
  try:
    content = converted((here / 'program').read_bytes(), **json.loads((here / 'settings.json').read_text()))
  except Exception as error:
    return str(error)
  (here / 'model.tflite').write_bytes(content)
  return ''


if __name__ == '__main__':
  sys.exit(main(sys.argv[1]) or 0)
