"""The results, as plain numbers, in tables: Markdown for the report, `rich` for the terminal."""
from rich.table import Table
from rich.text import Text

from effjax.report.schema import CHECKS, METRICS, NETWORKS, PERCENT, Results, plain

Rows = list[list[str]]


def number(key: str, value: float | None) -> str:
  """A value as a table shows it: fractions as per cent, whole numbers with thousands apart, None as a dash.

  >>> number('accuracy', .98333), number('macs', 1234567), number('latency_ms', .04321), number('latency_ms', None)
  ('98.33', '1,234,567', '0.0432', '-')
  """
  if value is None:
    return '-'
  if key in PERCENT:
    return f'{100 * value:.2f}'
  return f'{value:,.0f}' if float(value).is_integer() or abs(value) >= 1000 else f'{value:.3g}'


def networks(results: Results) -> Rows:
  """One row a metric: the three networks, and the result compared with the int8 baseline."""
  rows = [['', *NETWORKS.values(), 'result / int8 baseline']]
  for key, label in METRICS.items():
    values = [results[network][key] for network in NETWORKS]
    rows.append([label, *(number(key, value) for value in values), _compared(key, *values[1:])])
  return rows


def budgets(results: Results) -> Rows:
  """One row a budget: asked, reached, whether it was met."""
  return [['budget', 'asked', 'reached', 'of the budget', 'met']] + [
      [METRICS.get(name, name), number(name, budget['asked']), number(name, budget['reached']),
       f'{100 * budget["reached"] / budget["asked"]:.1f} %', 'yes' if budget['reached'] <= budget['asked'] else 'NO']
      for name, budget in results['budgets'].items()]


def checks(results: Results) -> Rows:
  """One row for each check of the file."""
  return [['the file', '']] + [[label, number(key, results['verify'][key])] for key, label in CHECKS.items()]


def layers(results: Results) -> Rows:
  """One row a layer: its bits and the channels it kept."""
  return [['layer', 'bits', 'kept channels']] + [
      [layer['name'], number('bits', layer['bits']), f'{layer["kept"]} of {layer["channels"]}']
      for layer in results['layers']]


def operators(results: Results) -> Rows:
  """One row a block: the operator that was chosen and how probable it had become."""
  return [['block', 'chosen', 'probability', 'of']] + [
      [block['block'], block['names'][block['chosen']], f'{block["probabilities"][block["chosen"]]:.2f}',
       ', '.join(block['names'])] for block in results['operators']]


def markdown(rows: Rows) -> str:
  """Rows, the first of which is the head, as a Markdown table.

  >>> print(markdown([['', 'a'], ['x', '1']]))
  |  | a |
  |---|---|
  | x | 1 |
  """
  head, *body = ('| ' + ' | '.join(row) + ' |' for row in rows)
  return '\n'.join([head, '|' + '---|' * len(rows[0]), *body])


def table(rows: Rows) -> Table:
  """Rows, the first of which is the head, as a table for the terminal."""
  head, *body = rows
  made = Table()
  for name in head:
    made.add_column(Text(name), justify='right' if name != head[0] else 'left')
  for row in body:
    made.add_row(*map(Text, row))  # Text: brackets are not markup
  return made


def terminal(results: Results) -> list[Table]:
  """The tables that the command line prints."""
  return [table(rows(plain(results))) for rows in (networks, budgets, checks)]


def _compared(key, before, after):
  if before is None or after is None or not before:
    return '-'
  return f'{100 * (after - before):+.2f} points' if key in PERCENT else f'{100 * after / before:.1f} %'
