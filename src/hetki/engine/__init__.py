"""Engine: load, call the rooms, save. Start at `advance`."""
