"""Both sides of a comparison in turn, in one process: what the benchmarks share."""
import statistics
import time


def measure(contenders, rounds):
  """Milliseconds of each call in every round, in turn; two rounds to warm up are not counted."""
  times = {name: [] for name in contenders}
  for i in range(rounds + 2):
    for name, run in contenders.items():
      start = time.perf_counter()
      run()
      if i > 1:
        times[name].append(1e3 * (time.perf_counter() - start))
  return times


def first_calls(contenders):
  """Seconds of the first call of each, which compiles."""
  def one(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
  return {name: one(run) for name, run in contenders.items()}


def ratio(over, under):
  """Median of the ratios of the rounds, and a text with their quartiles."""
  low, middle, high = statistics.quantiles([a / b for a, b in zip(over, under, strict=True)], n=4)
  return middle, f'{middle:6.2f} ({low:.2f} to {high:.2f})'
