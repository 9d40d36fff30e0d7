"""Decisions: which answer, and why. Start at `decide`."""
