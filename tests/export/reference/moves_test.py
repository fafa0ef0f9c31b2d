import pytest

SHAPE = (1, 2, 3, 4, 5, 2)
NONE = (0, 0)


def cut(shape, start, strides):
  made = tuple(-(-(n - a) // step) for n, a, step in zip(shape, start, strides))
  return 'slice', [shape], made, {'start': start, 'limit': shape, 'strides': strides}


def padded(shape, padding, **lowest):
  return 'pad', [shape], tuple(n + a + b for n, (a, b) in zip(shape, padding)), {'padding': padding, **lowest}


def moved(shape, permutation):
  return 'transpose', [shape], tuple(shape[i] for i in permutation), {'permutation': permutation}


def joined(count, shape, axis):
  made = tuple(n * count if i == axis else n for i, n in enumerate(shape))
  return 'concat', [shape] * count, made, {'axis': axis}


CASES = [
    ('reshape', [(1, 4, 6)], (1, 24), {'shape': (24,)}), ('reshape', [(1, 240)], SHAPE, {'shape': SHAPE[1:]}),
    moved((1, 3, 5), (0, 2, 1)), moved((1, 3, 5, 4), (0, 3, 1, 2)), moved(SHAPE[:5], (0, 4, 2, 1, 3)),
    moved(SHAPE, (0, 5, 3, 1, 4, 2)),
    cut((1, 9), (0, 2), (1, 1)), cut((1, 7, 9, 3), (0, 1, 2, 0), (1, 1, 1, 1)), cut(SHAPE, (0, 1, 1, 2, 1, 0), (1,) * 6),
    cut((1, 9), (0, 2), (1, 3)), cut((1, 7, 9, 3), (0, 1, 2, 0), (1, 2, 3, 1)), cut(SHAPE[:5], (0, 0, 1, 1, 0), (1, 2, 2, 2, 3)),
    padded((1, 5), (NONE, (1, 2))), padded((1, 5, 6, 3), (NONE, (1, 2), (3, 0), NONE)),
    padded(SHAPE[:5], (NONE, (1, 0), NONE, (2, 1), (0, 1))),
    padded((1, 5, 6, 3), (NONE, (1, 2), (3, 0), NONE), lowest=True), padded(SHAPE[:5], (NONE, (1, 0), NONE, (2, 1), (0, 1)), lowest=True),
    joined(2, (1, 5, 4), 1), joined(3, (1, 3, 5, 6), 3), joined(4, SHAPE, 4), joined(7, (1, 3, 4), 2)]


@pytest.mark.parametrize('kernels', ['xnnpack', 'builtin'])
@pytest.mark.parametrize(('op', 'shapes', 'made', 'settings'), CASES)
def test_every_code_is_that_of_the_file(one_node, tensor, op, shapes, made, settings, kernels):
  node = one_node(op, [tensor(shape, .03, 9) for shape in shapes], tensor(made, .03, 9), settings)
  assert node.different(kernels) == 0
