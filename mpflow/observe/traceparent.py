"""The trace that a run belongs to, as its tasks in workers go on with it: W3C headers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextvars import Context
from typing import Any


def pack(context: Context) -> dict[str, str]:
    """The headers ``traceparent``, ``tracestate`` and ``baggage`` of the span that is current there; empty if there is none."""
    headers: dict[str, str] = {}
    if "opentelemetry.trace" in sys.modules:  # else nobody has begun a span
        for propagator in _propagators():
            context.run(propagator.inject, headers)
    return headers


def unpack(headers: Mapping[str, str], scope: Any = None) -> None:
    """Make the span of these headers the current one of this context, for whatever a task traces."""
    from opentelemetry.context import attach, get_current

    found = get_current()
    for propagator in _propagators():
        found = propagator.extract(headers, found)
    attach(found)


def _propagators() -> tuple[Any, ...]:
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator(), W3CBaggagePropagator()
