"""The demonstration: a batch pipeline over Python source, run on threads and on processes."""
