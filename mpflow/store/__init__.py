"""Memory that outlives threads: the store contract in `base`, its implementations beside it."""
