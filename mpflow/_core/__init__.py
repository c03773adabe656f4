"""The scheduler: pure functions and one state machine. No I/O, clock, thread, randomness or logging."""
