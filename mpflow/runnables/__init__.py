"""Things that are invoked: the protocol, and how callables and objects become it."""
