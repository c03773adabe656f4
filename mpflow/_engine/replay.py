"""A run that goes back in time, as the graphs within it see it."""

from __future__ import annotations


class Replay:
    """Where the graphs within a run that goes back in time start from: each at its first visit from before then (SA-12)."""

    def __init__(self, checkpoint_id: str) -> None:
        self.checkpoint_id = checkpoint_id
        self._visited: set[str] = set()

    def is_first_visit(self, ns: str) -> bool:
        """Once for each graph, whatever the id of the task that runs it."""
        stable = ns.rsplit(":", 1)[0]
        if stable in self._visited:
            return False
        self._visited.add(stable)
        return True
