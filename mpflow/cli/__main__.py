"""``python -m mpflow.cli``."""

from mpflow.cli.commands import main

if __name__ == "__main__":
    main()
