"""The command line: ``mpflow run | batch | bench | draw | demo``. It loads what it is told to run and speaks JSON.

Exit codes: 0; 1 for a run that failed or output that could not be written; 2 for arguments that cannot be used, said in
one line; 130 after Ctrl-C. Nothing heavier than click is imported before a command starts.
"""

from mpflow.cli.commands import main as main
