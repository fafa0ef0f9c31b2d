"""What a person looks at after a run: report.json, report.md, tables and pictures, from plain results."""
from effjax.report.pictures import pictures
from effjax.report.tables import markdown, terminal
from effjax.report.write import claim, write

__all__ = ['claim', 'markdown', 'pictures', 'terminal', 'write']
