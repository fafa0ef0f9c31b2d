"""Whatever effjax offers says what it is."""
import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted((ROOT / 'effjax').rglob('*.py'))


def undocumented(node, prefix=''):
  """The public modules, functions, classes and methods below `node` without a docstring."""
  for child in node.body:
    if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith('_'):
      if not ast.get_docstring(child):
        yield f'line {child.lineno}: {prefix}{child.name}'
      if isinstance(child, ast.ClassDef):
        yield from undocumented(child, f'{child.name}.')


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_have_docstrings(path):
  tree = ast.parse(path.read_text())
  assert ast.get_docstring(tree) or not tree.body, 'no docstring of the module'
  assert list(undocumented(tree)) == []
