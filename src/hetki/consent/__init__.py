"""Consent: what we may do with whose data, per purpose. Start at `purpose`, then `statements`."""
