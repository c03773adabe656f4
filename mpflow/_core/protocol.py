"""What the scheduler is told and what it answers: stimuli, instructions, and the phases of a run. Names only.

Both are plain tuples, first the kind. Outcomes of attempts (`mpflow._messages`) are stimuli too, and have the low numbers.
"""

from __future__ import annotations

from typing import Any

Stimulus = tuple[Any, ...]
Instruction = tuple[Any, ...]

# Stimuli besides the outcomes of attempts (`CLOSED`, `CLOSED_MANY`, `FAILED`, `LOST`, `CANCELLED`; first the kind, then the
# attempt).
BEGIN = 10  # (BEGIN, input, given): the input as writes, None to resume; and writes that belong to no task
ADVANCE = 11  # (ADVANCE, facts, kept[, error]): start the next superstep; of its tasks, those in `kept` have finished
# before; with `error`, break the run with it instead, if there is anything left to run
DUE = 12  # (DUE, task): a retry interval has passed
STOP = 13  # (STOP, error, kill): give the run up, with this error
SPAWN = 14  # (SPAWN, attempt, node, input, number, waiter[, begun]): a running task calls another one; `begun` is the attempt
# at it that has begun elsewhere, with its task
DROP = 15  # (DROP, attempt, waiter): nobody waits for the result of a call any more
GO_ON = 19  # (GO_ON,): dispatch what is still ready

# Instructions.
DISPATCH = "dispatch"  # (DISPATCH, attempts)
MORE = "more"  # (MORE,): there is more to dispatch; answer with GO_ON
CANCEL = "cancel"  # (CANCEL, attempts, kill): drop what has not started; with kill, end what runs
RETRY = "retry"  # (RETRY, task, delay_s): answer with DUE after the delay
ENDED_TASK = "ended"  # (ENDED_TASK, *tasks): tasks reached their last state; only told where somebody asked to be
MERGED = "merged"  # (MERGED, tasks, merge): the step is over and its writes are in the state
OVER = "over"  # (OVER,): nothing is due; the run has its result
PAUSED = "paused"  # (PAUSED, tasks): the step ended with questions, or the run came to a breakpoint
BROKEN = "broken"  # (BROKEN, error): the run has failed; nothing runs any more
SPAWNED = "spawned"  # (SPAWNED, task): a called task joined the step
ANSWER = "answer"  # (ANSWER, task, waiter): tell the waiter what became of the task
REFUSED = "refused"  # (REFUSED, waiter): a call came too late

# Phases of the run.
NEW, BETWEEN, STEPPING, ENDING, FINAL = "new", "between steps", "in a step", "ending", "final"
