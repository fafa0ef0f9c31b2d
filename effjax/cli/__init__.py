"""The command line: `effjax joint`, `effjax verify`, `effjax profile`."""
from effjax.cli.main import main

__all__ = ['main']
