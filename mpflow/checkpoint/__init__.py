"""Where runs are remembered: the saver contract in `base`, its implementations beside it."""
