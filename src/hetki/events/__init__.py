"""Events: what arrives. Start at `event`."""
