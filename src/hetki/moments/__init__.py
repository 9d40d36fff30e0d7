"""Moments: what calls for an answer. Start at `moment`, then `fold`."""
