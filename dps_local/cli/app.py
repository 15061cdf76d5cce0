"""The command line: puts the commands together, and prints errors. Commands read options, call the library, print."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import dps_local
from dps_local.cli.bake import bake
from dps_local.cli.bench import bench_app
from dps_local.cli.chat import chat
from dps_local.cli.config import config_app, settings_of
from dps_local.cli.conversations import conversations_app
from dps_local.cli.doctor import doctor
from dps_local.cli.eval import evaluate
from dps_local.cli.feedback import feedback_app
from dps_local.cli.generate import generate
from dps_local.cli.init import init
from dps_local.cli.inspect import inspect
from dps_local.cli.learn import learn
from dps_local.cli.man_page import man
from dps_local.cli.models import models_app
from dps_local.cli.prior import prior_app
from dps_local.cli.privacy import privacy_app
from dps_local.cli.profile import profile_app
from dps_local.cli.remedies import explained
from dps_local.cli.rpc_server import rpc_server
from dps_local.cli.score import score
from dps_local.cli.serve import serve
from dps_local.cli.terminal import open_streams, readable_usage_errors, show_traceback, terminal
from dps_local.errors import DpsError


class _Commands(TyperGroup):
    """All commands: reads the command line, and runs one."""

    def make_context(self, *arguments: Any, **extra: Any) -> Any:
        with readable_usage_errors():
            return super().make_context(*arguments, **extra)

    def invoke(self, *arguments: Any) -> Any:
        with readable_usage_errors():
            return super().invoke(*arguments)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Private, on-device personalization for llama.cpp. Finds the attention heads that favour what you wrote, "
    "and steers a local model with them (Differential Preference Steering, arXiv 2604.22345).",
)
for command in (init, chat, generate, serve, score, learn, inspect, bake):  # in the order of --help
    app.command()(command)
app.command("eval")(evaluate)
app.command("rpc-server")(rpc_server)
app.command()(doctor)
app.command()(man)
app.add_typer(profile_app, name="profile")
app.add_typer(conversations_app, name="conversations")
app.add_typer(feedback_app, name="feedback")
app.add_typer(models_app, name="models")
app.add_typer(prior_app, name="prior")
app.add_typer(privacy_app, name="privacy")
app.add_typer(config_app, name="config")
app.add_typer(bench_app, name="bench")


def _version(show: bool) -> None:
    if show:
        terminal.write(f"dps-local {dps_local.__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Let options that are not given come from the file of settings; `config` itself must go on with a wrong one."""
    del version
    if context.invoked_subcommand != "config":
        context.default_map = settings_of(context).default_map()


def main() -> None:
    """Run the program: an error is one line on stderr and exit code 1, a usage error 2, Ctrl-C 130."""
    open_streams()
    sys.excepthook = show_traceback
    try:
        app(prog_name="dps-local")
    except DpsError as exc:
        terminal.error(explained(exc))
    except KeyboardInterrupt:
        terminal.notice("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader of stdout is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, MemoryError) as exc:
        terminal.error(f"{type(exc).__name__}: {exc}")
    sys.exit(1)
