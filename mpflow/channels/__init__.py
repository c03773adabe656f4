"""Channels: one cell of state each, and how writes to it merge."""

from mpflow.channels.any_value import AnyValue
from mpflow.channels.base import BaseChannel
from mpflow.channels.binop import BinaryOperatorAggregate
from mpflow.channels.delta import DeltaChannel
from mpflow.channels.ephemeral_value import EphemeralValue
from mpflow.channels.last_value import LastValue, LastValueAfterFinish
from mpflow.channels.named_barrier_value import NamedBarrierValue, NamedBarrierValueAfterFinish
from mpflow.channels.topic import Topic
from mpflow.channels.untracked_value import UntrackedValue

__all__ = (
    "AnyValue",
    "BaseChannel",
    "BinaryOperatorAggregate",
    "DeltaChannel",
    "EphemeralValue",
    "LastValue",
    "LastValueAfterFinish",
    "NamedBarrierValue",
    "NamedBarrierValueAfterFinish",
    "Topic",
    "UntrackedValue",
)
