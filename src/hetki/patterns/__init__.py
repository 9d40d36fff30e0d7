"""Patterns: conditions and sequences over one customer. Start at `pattern`, then `matcher`."""
