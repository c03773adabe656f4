"""An error handler as it travels: a node whose input comes with the failure that it is to handle (EH-1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpflow._exec.program import Diff, NodeProgram

if TYPE_CHECKING:
    from mpflow._messages import Handled
    from mpflow._scope import TaskScope


class HandlerProgram(NodeProgram):
    """The program of an error handler; the failure is what its parameter ``error`` gets."""

    __slots__ = ()

    def run(self, input: Handled, scope: TaskScope) -> Diff:
        scope.extras = input.error
        return super().run(input.input, scope)

    async def arun(self, input: Handled, scope: TaskScope) -> Diff:
        scope.extras = input.error
        return await super().arun(input.input, scope)
