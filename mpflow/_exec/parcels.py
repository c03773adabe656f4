"""What travels with a batch: the program, the facts of its step, the inputs. Each encoded once, however often it is sent.

Must not know which worker gets it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mpflow._columns import Attempts, Piece, inputs_of, lead
from mpflow._exec import batches
from mpflow._exec.cpu import cpu_count
from mpflow._exec.facts import encode_facts
from mpflow._exec.functions import Shipment, Shipments
from mpflow._exec.shelf import Sheet, Shelf
from mpflow._messages import Attempt, StepFacts
from mpflow._wire.codec import REFERS, Codec, EncodeError
from mpflow._wire.shm import Arena
from mpflow.errors import NodeNotPicklableError

_KEPT_FACTS = 64
_COPYING_THREADS = 4
"""More do not make a copy faster: a few cores use up what memory can move."""


class Inputs(NamedTuple):
    """The inputs of a batch as they travel: one by one in `each`, or all in `whole` if no code runs at their decoding."""

    attempts: Attempts
    each: list[bytes] | list[Sheet]
    whole: bytes
    refers: bool
    """Whether they refer to blocks of the arena."""
    refused: list[tuple[Attempt, NodeNotPicklableError]]
    """The attempts whose input cannot travel."""


class Parcels:
    """The parent's encoder and what it has encoded so far."""

    def __init__(self, budget_bytes: int | None, rang: Callable[[], None]) -> None:
        self.codec = Codec(trust=True)
        """For what stays inline: facts, and everything decoded."""
        self.arena = Arena(budget_bytes, copying_threads=min(_COPYING_THREADS, cpu_count()))
        self._inputs_codec = Codec(trust=True, arena=self.arena)
        self.shelf = Shelf(self._inputs_codec.encode_flagged, self.arena, rang)
        self.shipments = Shipments()
        self.facts_data: dict[int, bytes] = {}
        self._facts: dict[int, tuple[StepFacts, int]] = {}
        self._facts_count = 0

    def program(self, attempt: Piece) -> Shipment:
        """The program of an attempt, or of several, ready to be sent. Raises NodeNotPicklableError."""
        return self.shipments.packed(attempt.program, attempt.facts.config)

    def inputs(self, batch: Attempts, shipment: Shipment, next_one: Piece | None) -> Inputs:
        """Encode the inputs of a batch. Large buffers go to the arena within `Arena.scope`, once each.

        `next_one` is what will be sent after it, as far as is known: what they share is kept on the shelf.
        """
        encode = self._inputs_codec.encode_flagged
        values = inputs_of(batch)
        try:
            sheets = self.shelf.sheets(lead(batch), values, next_one)
            if sheets is not None:
                return Inputs(batch, sheets, b"", any(sheet.flags & REFERS for sheet in sheets), [])
            if shipment.has_plain_inputs and len(batch) > 1:
                whole, flags = encode(values)
                if not flags and len(whole) <= batches.WHOLE_BYTES:
                    return Inputs(batch, [], whole, False, [])
                # With pickles, classes or sizes of note, each must be decoded on its own.
                shipment.has_plain_inputs = False
            encoded = list(map(encode, values))
            return Inputs(batch, [data for data, _ in encoded], b"", any(flags & REFERS for _, flags in encoded), [])
        except EncodeError as error:
            _reraise_interrupt(error)
        good: list[Attempt] = []
        inputs: list[bytes] = []
        refers = 0
        refused: list[tuple[Attempt, NodeNotPicklableError]] = []
        for attempt in batch:
            name = attempt.program.name
            try:
                data, flags = encode(attempt.input, path=f"the input of node '{name}'")
            except EncodeError as error:
                _reraise_interrupt(error)
                refusal = NodeNotPicklableError(name, error.path, error.reason)
                refusal.__cause__ = error
                refused.append((attempt, refusal))
            else:
                good.append(attempt)
                inputs.append(data)
                refers |= flags & REFERS
        return Inputs(good, inputs, b"", bool(refers), refused)

    def facts_number(self, facts: StepFacts) -> int:
        """The number under which workers know these facts; `facts_data` has their bytes."""
        known = self._facts.get(id(facts))
        if known is None:
            self._facts_count += 1
            number = self._facts_count
            self.facts_data[number] = encode_facts(facts, self.codec.encode)
            # Held, so that the identity is never that of another.
            known = self._facts[id(facts)] = (facts, number)
        return known[1]

    def drop_oldest_facts(self) -> None:
        """A batch was sent, which may have needed more of them at once."""
        while len(self._facts) > _KEPT_FACTS:
            _, old = self._facts.pop(next(iter(self._facts)))
            del self.facts_data[old]

    def rest(self) -> None:
        """Nothing is under way: hold on to no run's facts."""
        self._facts.clear()
        self.facts_data.clear()
        self.shelf.rest()


def _reraise_interrupt(error: EncodeError) -> None:
    if isinstance(error.__cause__, KeyboardInterrupt):
        raise error.__cause__
