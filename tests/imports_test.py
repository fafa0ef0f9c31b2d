"""The levels of docs/design.md: imports only go down."""
import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# Each file or folder of effjax, lowest first. It may import itself and what stands in an earlier set.
LEVELS = (
    {'errors'},
    {'tree', 'ste', 'relax'}, {'schedule', 'term'},                                  # level 0
    {'graph'}, {'reparam'},                                                          # level 1
    {'quantize', 'sparsify', 'factorize', 'distill', 'layers', 'cost', 'data'},      # level 2
    {'search', 'models'},                                                            # level 3
    {'train', 'export'},                                                             # level 4
    {'report'}, {'cli'}, {'__main__', '__init__'},                                   # level 5
)
LEVEL = {unit: i for i, units in enumerate(LEVELS) for unit in units}
OUTSIDE = {'projects', 'colabs', 'tests'}

# Modules by dotted name: a folder's `__init__` has the folder's name.
FILES = {'.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
         for path in sorted((ROOT / 'effjax').rglob('*.py'))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def unit(module):
  """The file or folder of effjax that a module belongs to."""
  return module.split('.')[1] if '.' in module else '__init__'


def imports(root):
  """The dotted names that the import statements below an `ast` node name: `a.b` for `from a import b`."""
  for node in ast.walk(root):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'line {node.lineno}: a relative import: write the full path'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def modules(root):
  """The modules of effjax that are imported below a node."""
  for name in imports(root):
    if name.split('.')[0] == 'effjax':
      yield name if name in FILES else name.rpartition('.')[0]


@pytest.mark.parametrize('module', FILES)
def test_imports_only_go_down(module):
  own = unit(module)
  assert own in LEVEL, f'effjax/{own} stands on no level: add it to LEVELS and to docs/design.md'
  for name in modules(TREES[module]):
    assert name in FILES, f'{module} imports {name}, which does not exist'
    assert unit(name) == own or LEVEL[unit(name)] < LEVEL[own], f'{module} imports {name}: imports only go down'


@pytest.mark.parametrize('module', FILES)
def test_no_function_imports_effjax(module):
  for node in ast.walk(TREES[module]):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
      assert not list(modules(node)), f'{module}, line {node.lineno}: an import inside a function dodges a cycle'


def test_no_cycles():
  graph = {name: set(modules(root)) - {name} for name, root in TREES.items()}
  graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize('module', FILES)
def test_nothing_imports_what_lies_outside(module):
  assert not OUTSIDE & {name.split('.')[0] for name in imports(TREES[module])}


def test_projects_import_only_effjax():
  for path in (ROOT / 'projects').rglob('*.py'):
    assert not {'tests', 'colabs'} & {name.split('.')[0] for name in imports(ast.parse(path.read_text()))}, path
