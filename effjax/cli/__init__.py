"""The command line: `effjax joint`, `effjax verify`, `effjax profile`, `effjax models`."""
from effjax.cli.main import main

__all__ = ['main']
