import io

import pytest
from rich.console import Console

from effjax.report import tables
from effjax.report.schema import METRICS, plain


def test_networks_side_by_side(results):
  rows = {row[0]: row[1:] for row in tables.networks(plain(results))}
  assert rows[METRICS['accuracy']] == ['98.75', '98.50', '98.00', '-0.50 points']
  assert rows[METRICS['flash_bytes']] == ['100,000', '27,000', '7,000', '25.9 %']
  assert rows[METRICS['latency_ms']] == ['-', '-', '0.0346', '-']


def test_budgets_say_what_was_met(results):
  assert [row[1:] for row in tables.budgets(plain(results))[1:]] == [
      ['8,100', '7,000', '86.4 %', 'yes'], ['1,000,000', '2,000,000', '200.0 %', 'NO']]


def test_layers_and_operators(results):
  assert tables.layers(results)[2] == ['block1/conv', '4', '12 of 32']
  assert tables.operators(results)[1] == ['block0', 'inverted 3x3 e3', '0.70', 'skip, inverted 3x3 e3, inverted 5x5 e6']


@pytest.mark.parametrize('rows', [tables.networks, tables.budgets, tables.checks, tables.layers, tables.operators])
def test_markdown_is_a_grid(results, rows):
  lines = tables.markdown(rows(plain(results))).splitlines()
  assert len({line.count('|') for line in lines}) == 1
  assert set(lines[1]) == {'|', '-'}


def test_the_terminal_shows_the_same_numbers(results):
  console = Console(file=io.StringIO(), width=120)
  for table in tables.terminal(results):
    console.print(table)
  shown = console.file.getvalue()
  for rows in (tables.networks, tables.budgets, tables.checks):
    assert all(cell in shown for row in rows(plain(results)) for cell in row)
