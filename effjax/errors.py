"""The one exception type for a user's mistake: what, where, got, wanted, the fix, in one line."""


class EffjaxError(ValueError):
  """A mistake of the caller's. The command line prints it and exits with code 2.

  >>> raise EffjaxError('lsq: bits must be 2 to 8, got 9: choose from 2..8')
  Traceback (most recent call last):
  effjax.errors.EffjaxError: lsq: bits must be 2 to 8, got 9: choose from 2..8
  """
