"""Measurement: what an answer did, with its interval. Start at `effect`."""
