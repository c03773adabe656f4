"""Where the writes of nodes with a `CachePolicy` are kept: the contract in `base`, implementations beside it."""
