"""The network of an architecture: some of the supernet's parameters, and the function of its one-hot."""
import jax
import numpy as np
import pytest

from effjax import search, tree
from effjax.errors import EffjaxError
from effjax.search import encoding

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 8, 8, 3))
NETS = {'Choice': search.MBConvNet(10, 4, blocks=((4, 1), (6, 2)), operators=('sep_k3', 'mb2_k3', 'skip'), head=8),
        'Mixed': search.NASBench201(10, features=2, cells=1, operators=('none', 'nor_conv_1x1', 'skip_connect')),
        'DARTS': search.DARTSSpace(10, features=2, cells=1, operators=('none', 'skip_connect', 'sep_conv_3x3'))}


@pytest.mark.parametrize('name', NETS)
def test_parameters_and_function_are_those_of_the_one_hot(name):
  net = NETS[name]
  space = encoding.space_of(net, X, False)
  architecture = encoding.draw(jax.random.key(3), space)
  derived = search.Derived(net, architecture).check(X, False)
  variables = jax.jit(lambda key: net.init(key, X, False))(KEY)
  inherited = derived.inherited(variables, X, False)
  assert set(tree.leaves(inherited)) < set(tree.leaves(variables)) and not set(space) & set(tree.leaves(inherited))
  one_hot = {**variables, 'params': encoding.put(variables['params'], encoding.one_hot(space, architecture))}
  run = lambda net: jax.jit(lambda v: net.apply(v, X, True, mutable=['batch_stats']))
  mine, stats = run(derived)(inherited)
  theirs, all_stats = run(net)(one_hot)
  np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
  for path, x in tree.leaves(stats).items():
    np.testing.assert_allclose(x, tree.leaves(all_stats)[path], rtol=1e-5, atol=1e-6)


def test_only_the_operators_that_were_chosen_are_traced():
  net = NETS['Choice']
  architecture = {'block1/choice': 'skip', 'block2/choice': 'sep_k3'}
  derived = search.Derived(net, architecture)
  convolutions = lambda net: str(jax.make_jaxpr(lambda v: net.apply(v, X, False))(
      jax.eval_shape(lambda key: net.init(key, X, False), KEY))).count('conv_general_dilated[')
  assert convolutions(derived) == 4 < convolutions(net)  # stem, depthwise, pointwise, head


def test_an_architecture_of_another_space_is_refused_by_name():
  with pytest.raises(EffjaxError, match=r"architecture: choice 'block9/choice' is not in the space: nearest are \['block"):
    search.Derived(NETS['Choice'], {'block9/choice': 'skip'}).check(X, False)
  with pytest.raises(EffjaxError, match=r"architecture: choice 'block1/choice' has no operator 'mb9_k9': nearest are"):
    search.Derived(NETS['Choice'], {'block1/choice': 'mb9_k9', 'block2/choice': 'sep_k3'}).check(X, False)


def test_variables_of_another_network_are_refused():
  derived = search.Derived(NETS['Choice'], {'block1/choice': 'sep_k3', 'block2/choice': 'sep_k3'})
  variables = jax.eval_shape(lambda: NETS['Choice'].clone(stem=5).init(KEY, X, False))
  with pytest.raises(EffjaxError, match="Derived: the variables have no '.*' of the shape wanted: are they of the supernet "
                                        'MBConvNet with these options'):
    derived.inherited(variables, X, False)


def test_a_choice_that_is_not_made_or_has_no_such_operator_is_named():
  init = lambda architecture: search.Derived(NETS['Choice'], architecture).init(KEY, X, False)
  with pytest.raises(EffjaxError, match="Derived: the architecture does not make choice 'block1/choice', whose operators are "
                                        r"\('sep_k3', 'mb2_k3', 'skip'\)"):
    init({})
  with pytest.raises(EffjaxError, match="Derived: choice 'block1/choice' has no operator 'conv': known are "):
    init({'block1/choice': 'conv'})
