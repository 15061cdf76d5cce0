"""`dps-local serve`."""

from __future__ import annotations

import os
import signal
import socket
import stat
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dps_local.assistant import Settings
from dps_local.cli.loading import load_model, make_prompter
from dps_local.cli.options import ModelOptions, ScoreOptions, option_groups
from dps_local.cli.terminal import terminal
from dps_local.engine import registry
from dps_local.errors import MissingPackageError, SettingsError
from dps_local.prompting.profile import Profile
from dps_local.scoring.cached_map import CachedMap
from dps_local.system.loopback import is_loopback

if TYPE_CHECKING:
    from dps_local.server.service import Service


@option_groups
def serve(
    model: ModelOptions,
    profile: Annotated[
        list[str] | None, typer.Option("--profile", "-p", help="A profile (JSON) to answer for; may be given again.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; beyond this machine only with --api-key-file.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    uds: Annotated[Path | None, typer.Option(help="Listen at a socket file of yours instead.")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A key a line, and behind it the profiles that it may use; none: all.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Let web pages of this origin ask, such as http://localhost:3000.")
    ] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Another name that the server is asked by.")] = None,
    keep_alive: Annotated[
        float | None, typer.Option(min=0, help="Seconds without a request after which the model is unloaded.")
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; others are told to come again.")] = 16,
    conversations: Annotated[int, typer.Option(min=2, help="Conversations whose contexts are kept.")] = 2,
) -> None:
    """Serve the model, steered for each profile, to all programs that speak OpenAI's API, and as a page to chat in.

    The model's name there is NAME for the model alone, and NAME@PROFILE for a person. A link opens the page once.
    """
    try:
        import uvicorn

        from dps_local.server.api_keys import ApiKeys
        from dps_local.server.app import Api, make_app
        from dps_local.server.guard import LOOPBACK, Access
        from dps_local.server.page_link import PageLink
        from dps_local.server.worker import Worker
    except ModuleNotFoundError as exc:
        raise MissingPackageError(f"serving needs {exc.name}: pip install 'dps-local[server]'") from exc
    if not uds and not is_loopback(host) and not api_key_file:
        raise typer.BadParameter(f"--host {host} is open to other machines: give --api-key-file too")
    people = _people(profile or [])
    keys = ApiKeys.load(api_key_file, set(people)) if api_key_file else None
    name = model.model or registry.default_name()
    name = name if name in registry.load() else Path(name).stem
    hosts = None if uds else LOOPBACK | {host, *(allow_host or [])}
    listener = _listener(host, port, uds)
    worker = Worker(_loader(model, people, conversations), queue, keep_alive)
    url = _url(listener, uds)
    link = None if uds else PageLink(url, lambda link: terminal.notice(f"a page to chat in, once: {link}"))
    access = Access(hosts, frozenset(allow_origin or []), keys, link)
    app = make_app(Api(worker, name, list(people), _say_where), access)
    # nothing of requests is logged: what fails is said by _say_where
    quiet: dict[str, Any] = {"log_config": None, "log_level": "critical", "access_log": False}
    config = uvicorn.Config(app, **quiet, lifespan="off", timeout_graceful_shutdown=1)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            worker.end()  # or uvicorn breaks off answers that are being given, and prints where
            await super().shutdown(sockets)

    server = Server(config)

    def end(*_: object) -> None:
        server.should_exit = True

    worker.on_failure = end
    previous = signal.signal(signal.SIGTERM, end)  # uvicorn raises the signal again when it has ended
    try:
        worker.start()
        terminal.write(f"{url}\n")
        if link:
            link.renew()
        server.run([listener])
    finally:
        worker.close()
        listener.close()
        signal.signal(signal.SIGTERM, previous)
        if uds:
            uds.unlink(missing_ok=True)
    if worker.failure:
        raise worker.failure


def _people(profiles: list[str]) -> dict[str, tuple[str, Profile]]:
    """Read profiles, by their names: the stems of their files."""
    people: dict[str, tuple[str, Profile]] = {}
    for given in profiles:
        if (name := Path(given).stem) in people:
            raise typer.BadParameter(f"two profiles are called {name}: rename a file")
        people[name] = given, Profile.load(given)
    return people


def _loader(model: ModelOptions, people: dict[str, tuple[str, Profile]], n_kept: int) -> Callable[[], Service]:
    """Return what loads the model and its people, as `generate` does."""
    from dps_local.server.person import Person, scoring_command
    from dps_local.server.service import Service

    score = ScoreOptions()
    settings = Settings(n_ctx=model.ctx_size, n_threads=model.threads)

    def load() -> Service:
        loaded = load_model(model)
        found, commands = {}, {}
        for name, (given, user) in people.items():
            prompter = make_prompter(loaded, user, settings)
            own = CachedMap.of(prompter, score.scoring(model))
            found[name] = Person.load(prompter, own, terminal.notice)
            commands[name] = scoring_command(given, model.model, model.ctx_size)
            if not found[name].scored():
                terminal.notice(f"{name} is not scored with this model: run `{commands[name]}`")
        return Service(loaded, found, settings, commands, n_kept)

    return load


def _listener(host: str, port: int, uds: Path | None) -> socket.socket:
    """Return a socket that listens; a socket file is for its owner alone."""
    try:
        if uds is None:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.socket(family)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        else:
            with suppress(FileNotFoundError):
                if stat.S_ISSOCK(uds.lstat().st_mode):
                    uds.unlink()  # of a server that was killed
            listener = socket.socket(socket.AF_UNIX)
            mask = os.umask(0o177)
            try:
                listener.bind(str(uds))
            finally:
                os.umask(mask)
        listener.listen(128)
    except OSError as exc:
        raise SettingsError(f"cannot listen at {uds or f'{host}:{port}'}: {exc.strerror or exc}") from exc
    return listener


def _url(listener: socket.socket, uds: Path | None) -> str:
    if uds:
        return f"http+unix://{uds}"
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _say_where(error: BaseException) -> None:
    """Say of an error that nobody expected what it is and where, but not its text, which may be a request's."""
    where = traceback.extract_tb(error.__traceback__)[-1:]
    at = "".join(f" at {Path(frame.filename).name}:{frame.lineno}" for frame in where)
    terminal.notice(f"a request failed: {type(error).__name__}{at}")
