"""The loop that obeys the scheduler: one generator, a sync and an async driver, and the streams of a run."""
