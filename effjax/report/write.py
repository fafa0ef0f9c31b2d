"""The files of a report, each whole or not there."""
import json
import os
import pathlib

from effjax.errors import EffjaxError
from effjax.report import tables
from effjax.report.pictures import History, pictures
from effjax.report.schema import Results, check, plain

NO_PICTURES = "No pictures: matplotlib is not installed. `pip install -e '.[plots]'` and run again."
CAPTIONS = {
    'pareto.png': 'Accuracy over the bytes of the weights',
    'trajectory.png': 'Accuracy, and each cost relative to its budget, over the joint search',
    'operators.png': 'Probability of each operator at the end of the search, and what was chosen',
    'layers.png': 'Bits and kept channels of each layer'}


def free(run_dir: str | os.PathLike) -> pathlib.Path:
  """The folder for a new run: one that does not exist yet, or an empty one. Nothing is made.

  Raises:
    EffjaxError: it holds anything, or is a file.
  """
  folder = pathlib.Path(run_dir)
  if folder.exists() and not folder.is_dir():
    raise EffjaxError(f'run folder {str(folder)!r} is a file: choose another folder with --out')
  found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
  if found:
    raise EffjaxError(f'run folder {str(folder)!r} holds another run (found {", ".join(found[:5])}): choose another '
                      'with --out, or continue that run with --resume')
  return folder


def write(run_dir: str | os.PathLike, results: Results, history: History) -> None:
  """Writes report.md, the pictures and, last, report.json into the folder of a run.

  Args:
    run_dir: the run's own folder, made if need be. What else lies there is left alone.
    results: as `effjax.report.schema` says; arrays are written as numbers.
    history: 'step', and measured at these steps (NaN: not then) 'accuracy' and each cost that has a budget.

  Raises:
    EffjaxError: the folder holds another run's report.json (nothing is written), or the results lack something.
  """
  folder, results = pathlib.Path(run_dir), plain(results)
  check(results)
  if (folder / 'report.json').exists():
    raise EffjaxError(f'run folder {str(folder)!r} holds another run (found report.json): choose another with --out')
  folder.mkdir(parents=True, exist_ok=True)
  drawn = _pictures(results, history)
  files = drawn | {'report.md': _text(results, drawn).encode(), 'report.json': as_json(results)}
  for name, content in files.items():
    replace(folder / name, content)


def _pictures(results, history):
  try:
    return pictures(results, history)
  except ImportError:
    return {}


def as_json(results: Results) -> bytes:
  """What `report.json` holds of plain results.

  >>> as_json({'a': 1})
  b'{\\n  "a": 1\\n}\\n'
  """
  return (json.dumps(results, indent=2, allow_nan=False) + '\n').encode()


def _text(results, drawn):
  parts = [
      f'# {results["data"]}, seed {results["seed"]}',
      tables.markdown(tables.networks(results)), tables.markdown(tables.budgets(results)),
      tables.markdown(tables.checks(results))]
  parts += [f'![{CAPTIONS[name]}]({name})\n\n{CAPTIONS[name]}.' for name in CAPTIONS if name in drawn]
  parts += [] if drawn else [NO_PICTURES]
  parts += [tables.markdown(rows(results)) for rows, key in ((tables.operators, 'operators'), (tables.layers, 'layers'))
            if results[key]]
  versions = ', '.join(f'{name} {version}' for name, version in results['versions'].items())
  return '\n\n'.join([*parts, f'{results["seconds"]:.0f} s in all; {versions}.']) + '\n'


def replace(path: pathlib.Path, content: bytes) -> None:
  """Writes beside `path` and renames: a reader sees all of it or nothing."""
  beside = path.with_name(f'.{path.name}.part')
  beside.write_bytes(content)
  os.replace(beside, path)
