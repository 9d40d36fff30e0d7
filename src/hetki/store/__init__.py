"""Store: the ports and the disks behind them. Start at `ports`."""
