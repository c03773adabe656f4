"""Bytes: the typed msgpack codec, frames over a socket, shared memory. Knows nothing of graphs, tasks or schedulers."""
