"""What a person looks at after a run: report.json, report.md, tables and pictures, from plain results."""
from effjax.report.pictures import pictures
from effjax.report.searched import terminal_search, write_search
from effjax.report.tables import markdown, terminal
from effjax.report.write import free, write

__all__ = ['free', 'markdown', 'pictures', 'terminal', 'terminal_search', 'write', 'write_search']
