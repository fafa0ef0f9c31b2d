"""`python -m effjax` is the command `effjax`."""
import sys

from effjax.cli.main import main

sys.exit(main())
