import importlib.metadata

import pytest

from effjax.errors import EffjaxError
from effjax.export import litert


def test_missing_extra_is_named(monkeypatch):
  def missing(name):
    raise importlib.metadata.PackageNotFoundError(name)
  monkeypatch.setattr(importlib.metadata, 'version', missing)
  with pytest.raises(EffjaxError, match=r"export needs litert-converter, which is not installed .*'effjax\[export\]'"):
    litert.convert(b'', ['x'], ['y'], quantized=True)


@pytest.mark.parametrize('version', ['0.4.9', '0.7.0', '1.0'])
def test_untried_version_is_named(monkeypatch, version):
  monkeypatch.setattr(importlib.metadata, 'version', lambda name: version)
  with pytest.raises(EffjaxError, match=f'tried with litert-converter 0.5 to below 0.7, got {version}'):
    litert.convert(b'', ['x'], ['y'], quantized=True)


def test_a_broken_file_is_named():
  with pytest.raises(EffjaxError, match='LiteRT cannot run the file'):
    litert.Interpreter(b'\0\0\0\0TFL3' + bytes(64))
