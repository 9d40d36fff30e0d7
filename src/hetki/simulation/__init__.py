"""Simulation: seeded customers, channels and faults with known truth."""
