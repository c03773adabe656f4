"""What a worker was given and has not answered, by number. Numbers grow with every task that it is given.

Spans stay whole for as long as they are answered or taken back in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from mpflow._columns import Attempts, Piece, Span
from mpflow._messages import Attempt


class Window:
    """Attempts by number, in order."""

    __slots__ = ("_in_spans", "_single", "_spans")

    def __init__(self) -> None:
        self._single: dict[int, Attempt] = {}
        self._spans: deque[tuple[int, Span]] = deque()
        """With the number of the first attempt of each."""
        self._in_spans = 0

    def __len__(self) -> int:
        return len(self._single) + self._in_spans

    def __bool__(self) -> bool:
        return bool(self._single or self._spans)

    def __contains__(self, number: int) -> bool:
        return number in self._single or self._span_with(number) is not None

    def __iter__(self) -> Iterator[int]:
        self._spread()
        return iter(self._single)

    @property
    def is_unwatched(self) -> bool:
        """Whether nobody waits for a single one of them: all are of spans."""
        return not self._single

    def add(self, first: int, attempts: Attempts) -> None:
        """Attempts that were given under the numbers from `first` on."""
        if type(attempts) is Span:
            self._spans.append((first, attempts))
            self._in_spans += len(attempts)
        else:
            self._single.update(zip(range(first, first + len(attempts)), attempts, strict=True))

    def first(self) -> int:
        """The lowest number."""
        firsts = [self._spans[0][0]] if self._spans else []
        if self._single:
            firsts.append(next(iter(self._single)))
        return min(firsts)

    def last(self) -> int:
        """The highest number, 0 if there is none."""
        last = next(reversed(self._single), 0)
        return max(last, self._spans[-1][0] + len(self._spans[-1][1]) - 1) if self._spans else last

    def get(self, number: int) -> Attempt | None:
        found = self._single.get(number)
        if found is None and (held := self._span_with(number)) is not None:
            first, span = held
            found = span[number - first]
        return found

    def pop(self, number: int) -> Attempt | None:
        """Take one out; None if it is not there."""
        if self._span_with(number) is not None:
            self._spread()
        return self._single.pop(number, None)

    def limits_s(self) -> list[float]:
        """How long each of those may take that may not take for ever."""
        return [attempt.timeout_s for attempt in self._single.values() if attempt.timeout_s is not None]

    def answered(self, numbers: Sequence[int]) -> Span | list[Attempt | None]:
        """The attempts of these ascending numbers, None for those that are not there. They stay until `drop`."""
        if self._begins_with(numbers):
            return self._spans[0][1][: len(numbers)]
        return list(map(self.get, numbers))

    def drop(self, numbers: Sequence[int]) -> None:
        """Take out what was answered."""
        if self._begins_with(numbers):
            first, span = self._spans.popleft()
            self._in_spans -= len(numbers)
            if len(span) > len(numbers):
                self._spans.appendleft((first + len(numbers), span[len(numbers) :]))
            return
        for number in numbers:
            self.pop(number)

    def cut(self, number: int) -> list[Piece]:
        """Take out all from `number` on, in order."""
        if number <= self.first():
            return self.clear()
        if self._single and self._spans:
            self._spread()
        cut: list[Piece] = [self._single.pop(key) for key in [key for key in self._single if key >= number]]
        kept: deque[tuple[int, Span]] = deque()
        for first, span in self._spans:
            here = min(max(number - first, 0), len(span))
            if here:
                kept.append((first, span[:here]))
            if here < len(span):
                cut.append(span[here:])
        self._spans = kept
        self._in_spans = sum(len(span) for _, span in kept)
        return cut

    def clear(self) -> list[Piece]:
        """Take out all, in order."""
        if self._single and self._spans:
            self._spread()
        cut: list[Piece] = [*self._single.values(), *(span for _, span in self._spans)]
        self._single.clear()
        self._spans.clear()
        self._in_spans = 0
        return cut

    def items(self) -> list[tuple[int, Attempt]]:
        self._spread()
        return list(self._single.items())

    def values(self) -> list[Attempt]:
        self._spread()
        return list(self._single.values())

    def _begins_with(self, numbers: Sequence[int]) -> bool:
        """Whether `numbers` are the first ones of the first span, without a gap."""
        if not self._spans or self._spans[0][0] != numbers[0]:
            return False
        count = len(numbers)
        return count <= len(self._spans[0][1]) and numbers[-1] - numbers[0] == count - 1

    def _span_with(self, number: int) -> tuple[int, Span] | None:
        for first, span in tuple(self._spans):  # from any thread
            if first <= number < first + len(span):
                return first, span
        return None

    def _spread(self) -> None:
        """Hold each attempt by itself."""
        if self._spans:
            for first, span in self._spans:
                self._single.update(zip(range(first, first + len(span)), span, strict=True))
            self._spans.clear()
            self._in_spans = 0
            self._single = dict(sorted(self._single.items()))
