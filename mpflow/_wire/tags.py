"""The numbered tags of the typed codec: one table for the wire and the disk. Must never renumber a tag once released.

A typed container is a msgpack array whose first element is an *empty* extension (``c7 00 <tag>``); what follows are
its items, packed in the same stream. Everything msgpack has natively (None, bool, int up to 64 bit, float, str, bytes,
list, dict) carries no tag. A tag's layout never changes: a new layout gets a new number. Free numbers are at the end of
each group.

===  ===============  ==================================================================================================
tag  name             items after the marker
===  ===============  ==================================================================================================
  1  TUPLE            the items
  2  SET              the items
  3  FROZENSET        the items
  4  BYTEARRAY        buffer
  5  INT              two's complement, little endian bytes (more than 64 bits)
  6  COMPLEX          real, imag
  7  RANGE            start, stop, step
  8  SLICE            start, stop, step
  9  ELLIPSIS         (none)
 10  ORDERED_DICT     dict
 11  DEFAULT_DICT     code of the default factory, dict (see `scalars.FACTORIES`)
 12  DEQUE            maxlen or None, the items
 13  COUNTER          dict
 14  MEMORYVIEW       format, shape, buffer
 15  NOT_IMPLEMENTED  (none)
 16  BATCH            code of tuple, set or frozenset, the length of each or a list of lengths, the items of all: a list
 20  DATETIME         year, month, day, hour, minute, second, microsecond, fold, tzinfo or None
 21  DATE             year, month, day
 22  TIME             hour, minute, second, microsecond, fold, tzinfo or None
 23  TIMEDELTA        days, seconds, microseconds
 24  TIMEZONE         days, seconds, microseconds of the offset, name or None
 25  ZONEINFO         key
 26  PYTZ             what pytz's own reduction holds: zone, and for one of its periods offset, dst and name
 30  DECIMAL          text
 31  FRACTION         numerator, denominator
 32  UUID             16 bytes
 33  PATH             code of the flavour, text (see `scalars.PATHS`)
 34  PATTERN          text or bytes, flags
 40  CLASS            name, field names: defines the next class number of the message
 41  CLASS_BY_VALUE   id, pickled class, field names: the same, private to a parent and its workers
 42  OBJECT           class, values in the order of the field names
 43  OBJECT_STATE     class, dict of attributes
 44  ENUM             class, member name, or value of a flag without a name
 45  NAMEDTUPLE       class, the items
 46  MODEL            class, dict of fields, names of fields set or None for all, extra or None, private or None
 47  EXCEPTION        record (see `failures`)
 48  TYPE             class: the class itself as a value
 49  OBJECTS          class, values in the order of the field names, object after object: a list
 50  NDARRAY          dtype, shape, order "C" or "F", buffer
 51  NDARRAY_OBJECT   shape, order, the items as a list
 52  NUMPY_SCALAR     dtype, bytes
 53  NUMPY_DTYPE      dtype
 60  PANDAS_SERIES    see `tables`
 61  PANDAS_FRAME     see `tables`
 62  PANDAS_INDEX     see `tables`
 63  PANDAS_ARRAY     see `tables`
 64  PANDAS_SCALAR    see `tables`
 65  ARROW            code of the kind, IPC stream buffer
 70  SEND             node, arg, timeout
100  PICKLE           pickle, out-of-band buffers (never on disk)
101  SHARED           file, offset, size, generation of a block of shared memory (never on disk)
102  CHUNKS           buffers to be joined (one above 4 GiB)
===  ===============  ==================================================================================================

*class* is a CLASS or CLASS_BY_VALUE at the first use in a message, and from then on its number, counted from 0.
*buffer* is msgpack bin, SHARED or CHUNKS.
"""

from __future__ import annotations

from typing import Final

TUPLE: Final = 1
SET: Final = 2
FROZENSET: Final = 3
BYTEARRAY: Final = 4
INT: Final = 5
COMPLEX: Final = 6
RANGE: Final = 7
SLICE: Final = 8
ELLIPSIS: Final = 9
ORDERED_DICT: Final = 10
DEFAULT_DICT: Final = 11
DEQUE: Final = 12
COUNTER: Final = 13
MEMORYVIEW: Final = 14
NOT_IMPLEMENTED: Final = 15
BATCH: Final = 16

DATETIME: Final = 20
DATE: Final = 21
TIME: Final = 22
TIMEDELTA: Final = 23
TIMEZONE: Final = 24
ZONEINFO: Final = 25
PYTZ: Final = 26

DECIMAL: Final = 30
FRACTION: Final = 31
UUID: Final = 32
PATH: Final = 33
PATTERN: Final = 34

CLASS: Final = 40
CLASS_BY_VALUE: Final = 41
OBJECT: Final = 42
OBJECT_STATE: Final = 43
ENUM: Final = 44
NAMEDTUPLE: Final = 45
MODEL: Final = 46
EXCEPTION: Final = 47
TYPE: Final = 48
OBJECTS: Final = 49

NDARRAY: Final = 50
NDARRAY_OBJECT: Final = 51
NUMPY_SCALAR: Final = 52
NUMPY_DTYPE: Final = 53

PANDAS_SERIES: Final = 60
PANDAS_FRAME: Final = 61
PANDAS_INDEX: Final = 62
PANDAS_ARRAY: Final = 63
PANDAS_SCALAR: Final = 64
ARROW: Final = 65

SEND: Final = 70

PICKLE: Final = 100
SHARED: Final = 101
CHUNKS: Final = 102

# What is in an encoded message, as bits. Portable is: none of the first two.
PICKLED: Final = 1
"""It holds pickle bytes (also of a class by value)."""
REFERS: Final = 2
"""It refers to shared memory."""
NAMES: Final = 4
"""It names classes that were not among the codec's ``types``: a fresh process may not know them."""
