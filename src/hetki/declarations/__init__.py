"""Declarations: reading YAML with positions, faults and JSON Schema; what all declarations share. Start at `read`."""
