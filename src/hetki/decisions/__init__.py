"""Decisions: which answer, and why. Start at `question`, then `decide`."""
