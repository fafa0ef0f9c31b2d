"""The area under a front, against a sum over a fine grid; the share that a way cannot reach."""
import importlib.util
import pathlib

import numpy as np
import pytest

PATH = pathlib.Path(__file__).parents[2] / 'projects/joint_pareto/sweep.py'
spec = importlib.util.spec_from_file_location('joint_pareto', PATH)
project = importlib.util.module_from_spec(spec)
spec.loader.exec_module(project)


@pytest.mark.parametrize('seed', range(5))
def test_the_area_is_that_of_the_best_at_no_more_bytes(seed):
  random = np.random.default_rng(seed)
  points = [{'flash_bytes': b, 'accuracy': a} for b, a in zip(random.uniform(1, 130, 6), random.random(6))]
  grid = np.exp(np.linspace(np.log(100 / 16), np.log(100), 200_001))
  best = np.array([max([p['accuracy'] for p in points if p['flash_bytes'] <= b], default=0.) for b in grid])
  assert project.area(points, 100.) == pytest.approx(best.mean(), abs=1e-4)


def test_no_points_and_a_point_that_dominates():
  assert project.area([], 100.) == 0
  assert project.area([{'flash_bytes': 1., 'accuracy': .7}], 100.) == pytest.approx(.7)


def test_ways_end_with_every_part_they_name_once():
  assert all(len(sum(stages, ())) == len(set(sum(stages, ()))) for stages in project.WAYS.values())
  assert sorted(sum(project.WAYS['sequence'], ())) == sorted(sum(project.WAYS['joint'], ()))


def test_the_table():
  assert list(project.table({'joint': [.5, .7]}))[-1] == '| joint | 50.00, 70.00 | 60.00 |'


def test_the_stages_of_a_way_end_at_its_share_and_each_saves_something():
  assert project.limits(project.WAYS['joint'], .25) == [.25]
  first, second, last = project.limits(project.WAYS['sequence'], .25)
  assert 1 > first > second > last == .25
  assert first ** 2 == pytest.approx(second) and last / second == pytest.approx(.75)
