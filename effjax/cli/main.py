"""Arguments, exit codes: 0 done, 1 a file that is not its network, 2 a mistake of the caller's."""
import argparse
import math
import pathlib
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from effjax import report
from effjax.cli import inspect, joint, models, profile, quantizers, search
from effjax.errors import EffjaxError
from effjax.train.memory import keep_memory

RUNS = {'joint': 'DATA', 'search': 'search-DATA'}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; a user's mistake is one line on stderr and exit code 2."""
  args = _parser().parse_args(argv)
  try:
    return args.run(args)
  except EffjaxError as error:
    print(f'effjax: {error}', file=sys.stderr)
    return 2


def _parser():
  parser = argparse.ArgumentParser('effjax', description='Architecture, bits, masks and distillation in one loss, out '
                                                         'as an int8 TFLite file that is the network that was trained.')
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  add = _run_command(commands, 'joint', 'float baseline -> joint search -> int8 .tflite', joint)
  add('data', 'digits, or an image classification set of TensorFlow Datasets')
  add('data_dir', 'where prepared TensorFlow Datasets lie')
  add('flash', 'budget in bytes of weights; default 30 %% of the int8 baseline', type=_amount)
  add('macs', 'budget in multiply-accumulates; default 40 %% of the baseline', type=_amount)
  add('seed', 'of everything random', type=_seed)
  add('steps', 'of the search; the other phases scale with it', type=_positive)
  add('batch_size', 'examples per step', type=_positive)
  add('bilevel', 'train decisions on held-out batches', choices=['first', 'second', 'finite_differences'])
  add('model', 'package.module:Class, a Linen network called as Class(num_classes), (x, train)')
  add('where', 'regular expression: paths of the weights that get bits')
  add('parallel', 'how several devices are used', choices=['jit', 'mesh', 'pmap'])
  add('devices', 'number of devices', type=_positive)
  add('every_steps', 'steps between checkpoints', type=_positive)
  _add_search(_run_command(commands, 'search', 'supernet -> architecture -> trained network, with a report', search))
  verify = commands.add_parser('verify', help='run the file again and compare it with its network')
  verify.add_argument('path', metavar='RUN|FILE.tflite', type=pathlib.Path,
                      help='the folder of a run; or a file with the network that export.save wrote beside it (.npz)')
  verify.add_argument('--micro', action='store_true', help='run it in TFLite Micro, too (needs effjax[micro])')
  verify.set_defaults(run=lambda args: inspect.verify(args.path, args.micro))
  _add_profile(commands.add_parser('profile', help='what each layer of a run costs, or each operation of a network or '
                                                   'of any function'))
  listed = commands.add_parser('models', help='the networks of effjax.models and what they cost')
  listed.add_argument('names', metavar='NAME', nargs='*', help="names or patterns such as 'mobilenet*'; default all")
  listed.add_argument('--format', choices=['table', 'json', 'markdown'], default='table')
  listed.set_defaults(run=lambda args: models.show(args.names, args.format))
  methods = commands.add_parser('quantizers', help='the quantizers of effjax.quantize and what the target can run')
  methods.add_argument('--format', choices=['table', 'markdown'], default='table')
  methods.set_defaults(run=lambda args: quantizers.show(args.format))
  return parser


def _run_command(commands, name, help, module):
  """A command whose runs are folders, with the function that adds one of its options."""
  command = commands.add_parser(name, help=help)
  command.set_defaults(run=lambda args: _run(name, module, args))
  command.add_argument('--out', help=f'new folder of the run; default runs/{RUNS[name]}-seedSEED-TIME')
  command.add_argument('--resume', metavar='RUN', help='continue the killed run in this folder, with its own options')

  def add(option, help, **more):  # what is not given is not in args, so that --resume can tell
    default = getattr(module.Options(), option)
    shown = help if default is None or default is False else f'{help}; default {default}'
    command.add_argument(f'--{option.replace("_", "-")}', default=argparse.SUPPRESS, help=shown, **more)
  return add


def _add_search(add):
  add('space', 'nb201, macro, darts, mbconv, or package.module:Class, a Linen network with choices in it, called as '
               'Class(num_classes) and then (x, train)')
  add('data', 'digits, or an image classification set of TensorFlow Datasets')
  add('data_dir', 'where prepared TensorFlow Datasets lie')
  add('features', 'channels of the space; default its own', type=_positive)
  add('cells', 'cells of the space, in each stage of nb201; default its own', type=_positive)
  add('weighting', 'how choices are relaxed', choices=list(search.WEIGHTINGS))
  add('bilevel', 'how decisions follow held-out batches; none: one loss for all on all data', type=_bilevel)
  add('auxiliary_skip', 'add a skip beside every choice, that vanishes', action='store_true')
  add('select', 'what decides on operators at the end', choices=search.SELECTIONS)
  add('max_skips', 'of the normal cell of darts', type=_seed)
  add('macs', 'budget in multiply-accumulates of the supernet, in expectation', type=_amount)
  add('steps', 'of the search', type=_positive)
  add('retrain_steps', 'of the network that was found', type=_positive)
  add('random', 'so many random architectures trained like the one found', type=_seed)
  add('rate', 'peak learning rate of the weights, Adam', type=_amount)
  add('decision_rate', 'learning rate of the decisions, Adam', type=_amount)
  add('seed', 'of everything random', type=_seed)
  add('batch_size', 'examples per step', type=_positive)
  add('parallel', 'how several devices are used', choices=['jit', 'mesh', 'pmap'])
  add('devices', 'number of devices', type=_positive)
  add('every_steps', 'steps between checkpoints, and looks at the decisions', type=_positive)


def _bilevel(text):
  kinds = ('none', 'first', 'second', 'finite_differences')
  if text not in kinds:
    raise argparse.ArgumentTypeError(f'wants one of {", ".join(kinds)}, got {text}')
  return None if text == 'none' else text


def _add_profile(command):
  command.set_defaults(run=_profile)
  command.add_argument('what', metavar='RUN|NETWORK|MODULE:FUNCTION',
                       help='the folder of a run, a network that effjax models lists, or a function that is called '
                            'without arguments and returns (fn, params, *args); params and args may be shapes')
  given = dict(default=argparse.SUPPRESS)  # what is not given is not in args
  command.add_argument('--format', choices=['table', 'json'], help='of a network or function; default table', **given)
  command.add_argument('--bits', type=_bits, help='of its weights and activations, for bytes; default 32', **given)
  command.add_argument('--plot', metavar='FILE.png', help='draw it into a new file (needs effjax[plots])', **given)


def _positive(text):
  return _number(int, text, lambda value: value >= 1, 'a positive whole number')


def _seed(text):
  return _number(int, text, lambda value: value >= 0, 'a whole number from 0')


def _bits(text):
  return _number(int, text, lambda value: 1 <= value <= 64, 'a whole number from 1 to 64')


def _amount(text):
  return _number(float, text, lambda value: 0 < value < math.inf, 'a positive number')


def _number(kind, text, good, wanted):
  try:
    value = kind(text)
  except ValueError:
    value = None
  if value is None or not good(value):
    raise argparse.ArgumentTypeError(f'wants {wanted}, got {text}')
  return value


def _run(command, module, args):
  given = {name: value for name, value in vars(args).items() if name in module.Options._fields}
  if args.resume:
    folder = pathlib.Path(args.resume)
    options = inspect.options_of(folder, module.Options)
    _check_resumed(command, folder, options, given | ({'out': args.out} if args.out else {}))
  else:
    options = module.Options(**given)
    name = RUNS[command].replace('DATA', options.data.replace('/', '-'))
    folder = report.free(args.out or f'runs/{name}-seed{options.seed}-{time.strftime("%Y%m%d-%H%M%S")}')
  keep_memory()
  tables = report.terminal if command == 'joint' else report.terminal_search
  for table in tables(module.run(options, folder)):
    Console().print(table)
  print(f'{folder}: {"model.tflite, " if command == "joint" else ""}report.md, report.json')
  return 0


def _profile(args):
  options = {name: value for name, value in vars(args).items() if name in ('format', 'bits', 'plot')}
  folder = pathlib.Path(args.what)
  if not folder.exists() and (':' in args.what or len(folder.parts) == 1):
    return profile.show(args.what, **options)
  if options:
    raise EffjaxError(f'profile: {", ".join(f"--{name}" for name in options)}: only for networks and module:function, '
                      f'got {args.what!r}, which is profiled as the folder of a run: leave out what does nothing there')
  return inspect.profile(folder)


def _check_resumed(command, folder, options, given):
  if (folder / 'report.json').exists():
    raise EffjaxError(f'run folder {str(folder)!r} is finished: see its report.md, or start another run with --out')
  had = options._asdict() | {'out': str(folder)}
  other = [f'--{name.replace("_", "-")} {value} (the run has {had[name]})'
           for name, value in given.items() if value != had[name]]
  if other:
    raise EffjaxError(f'{command}: --resume goes on with the options of the run, got {", ".join(other)}: leave them '
                      'out, or start another run')
