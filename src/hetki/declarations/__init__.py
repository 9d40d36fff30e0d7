"""Declarations: reading YAML with places and faults, durations, JSON Schema. Start at `read`."""
