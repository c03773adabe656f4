"""How a command says no."""

from __future__ import annotations

from typing import IO, Any

import click


class Refused(click.ClickException):
    """What was asked for cannot be done as asked; one line says why."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"mpflow: {self.format_message()}", err=True)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
