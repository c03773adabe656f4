"""Where a node that says nothing runs: measuring its calls, finding out whether moving it could change a result, deciding."""
