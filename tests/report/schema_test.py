import jax.numpy as jnp
import numpy as np
import pytest

from effjax.errors import EffjaxError
from effjax.report.schema import check, plain


def test_plain_numbers():
  value = plain({'a': jnp.float32(2), 'b': (np.int64(1), [True, None, 'x']), 'c': np.array([1., np.inf]), 3: np.nan})
  assert value == {'a': 2., 'b': [1, [True, None, 'x']], 'c': [1., None], '3': None}
  assert [type(part) for part in (value['a'], value['b'][0])] == [float, int]


def test_complete_results_pass(results):
  check(results)


@pytest.mark.parametrize(('part', 'key'), [('result', 'macs'), ('verify', 'codes_equal')])
def test_a_missing_number_is_named(results, part, key):
  del results[part][key]
  with pytest.raises(EffjaxError, match=rf"results\['{part}'\] lacks \['{key}'\], got .*: give every key"):
    check(results)


def test_a_missing_part_is_named(results):
  del results['seed']
  with pytest.raises(EffjaxError, match=r"report: results lacks \['seed'\]"):
    check(results)
