"""The log: checkpoints kept as what each step changed. All of it but the storage, which is a driver's (`driver.Driver`).

A thread's log has a line of *rows* for each namespace. A row is one of two things:

- a **step** (`records.Step`): a checkpoint as what changed since its parent: operations on channels, versions, what nodes
  have seen, its metadata; and the results of its tasks that were not saved before it. What steps of one kind have in
  common, such as the rounds of a loop, is a *frame* (`records.Frame`), made and packed once. A step that is *whole* needs
  no parent; one comes in between when the rows since the last have grown heavy against the state (`weight.Tip`).
- a **result** (`records.Result`): what a task wrote, kept beside the checkpoint its step started from, where it must be
  saved before the step has ended. The step refers to its values instead of repeating them.

Rows are only ever added. Reading folds the rows from a whole step on (`folding`), without the graph, its reducers or any
other code of the user's. Of several results of a task the first counts, of its special writes (error, interrupt, resume)
the last; a step names the very results it was made of by their numbers.

How it is put together: `saver.LogSaver` is LangGraph's saver protocol and the engine's shorter way (`load`, `append`,
`post`, `flush`) over a `driver.Driver`. Its operations are generators that yield the driver's calls, so that a driver may
be awaited as well. `envelope` makes rows of records and back (`sealing` with a key), `coding` packs the values in them, `writer` commits many
runs' rows in one go. A new storage needs a driver, and a saver class that opens and closes it; `memory` is the smallest.
"""
