"""Arguments, exit codes: 0 done, 1 a file that is not its network, 2 a mistake of the caller's."""
import argparse
import math
import pathlib
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from effjax import report
from effjax.cli import inspect, models, profile, quantizers
from effjax.cli.joint import Options, joint
from effjax.errors import EffjaxError
from effjax.train.memory import keep_memory


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
  run = commands.add_parser('joint', help='float baseline -> joint search -> int8 .tflite')
  run.set_defaults(run=_joint)
  defaults = Options()

  def add(name, help, **more):  # what is not given is not in args, so that --resume can tell
    default = getattr(defaults, name)
    run.add_argument(f'--{name.replace("_", "-")}', default=argparse.SUPPRESS,
                     help=help if default is None else f'{help}; default {default}', **more)

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
  run.add_argument('--out', help='new folder of the run; default runs/DATA-seedSEED-TIME')
  run.add_argument('--resume', metavar='RUN', help='continue the killed run in this folder, with its own options')
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


def _joint(args):
  given = {name: value for name, value in vars(args).items() if name in Options._fields}
  if args.resume:
    folder = pathlib.Path(args.resume)
    options = inspect.options_of(folder)
    _check_resumed(folder, options, given | ({'out': args.out} if args.out else {}))
  else:
    options = Options(**given)
    folder = report.free(args.out or f'runs/{options.data.replace("/", "-")}-seed{options.seed}-'
                         f'{time.strftime("%Y%m%d-%H%M%S")}')
  keep_memory()
  results = joint(options, folder)
  for table in report.terminal(results):
    Console().print(table)
  print(f'{folder}: model.tflite, report.md, report.json')
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


def _check_resumed(folder, options, given):
  if (folder / 'report.json').exists():
    raise EffjaxError(f'run folder {str(folder)!r} is finished: see its report.md, or start another run with --out')
  had = options._asdict() | {'out': str(folder)}
  other = [f'--{name.replace("_", "-")} {value} (the run has {had[name]})'
           for name, value in given.items() if value != had[name]]
  if other:
    raise EffjaxError(f'joint: --resume goes on with the options of the run, got {", ".join(other)}: leave them out, '
                      'or start another run')
