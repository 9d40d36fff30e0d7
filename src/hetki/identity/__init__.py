"""Identity: one customer out of fragments, as a view over evidence. Start at `identifier`, then `resolve`."""
