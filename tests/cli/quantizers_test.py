"""`effjax quantizers`: the table in docs/ is what it prints, and says what export does."""
import inspect
import pathlib

from effjax import quantize
from effjax.cli import main, quantizers

DOCUMENT = pathlib.Path(__file__).parents[2] / 'docs' / 'quantizers.md'


def test_the_document_is_what_the_command_prints(capsys):
  assert main(['quantizers', '--format', 'markdown']) == 0
  assert capsys.readouterr().out == DOCUMENT.read_text()


def test_what_runs_and_what_does_not():
  weights, activations, others = quantizers.described()
  runs = {row['name']: row['runs'] for row in (*weights, *activations)}
  assert runs['lsq'] == 'int8' and runs['ternary'] == runs['xnor'] == 'int4'
  assert runs['apot'] == 'no: numbers of levels' and runs['sign_activation'] == 'no: 1 bit'
  named = {row['name'] for row in (*weights, *activations, *others)}
  sources = {name for name in quantize.__all__ if 'Source:' in (inspect.getdoc(getattr(quantize, name)) or '')}
  assert named >= sources and len(weights) >= 18
  assert all(row['source'] for row in (*weights, *activations))
