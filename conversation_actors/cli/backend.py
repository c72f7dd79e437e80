"""The commands of a back end and their options. A command imports what it needs when it runs."""

import asyncio
import sys

import typer

app = typer.Typer(name="backend", no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def backend() -> None:
    """Tell what a back end of your own is to be like, and try the one in CONVERSATION_BACKEND_URL."""


@app.command()
def openapi() -> None:
    """Print the OpenAPI document that a back end has to fit, as JSON.

    Example: [bold]conversation-actors backend openapi > backend.openapi.json[/bold]
    """
    from conversation_actors.backend.openapi import text  # noqa: PLC0415  # see above

    sys.stdout.write(text())


@app.command()
def check() -> None:
    """Ask the back end for the messages of a conversation that there is not, and say what is wrong.

    Changes nothing there. Exits with 1 if the back end does not answer as the document says.

    Example: [bold]conversation-actors backend check[/bold]
    """
    from conversation_actors.cli.backend_check import run  # noqa: PLC0415  # see above

    asyncio.run(run())
