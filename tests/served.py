"""A server over a tiny model for three people, asked by Starlette's client."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import uvicorn
from maps import hand_made_map
from starlette.testclient import TestClient

from dps_local.assistant import Settings
from dps_local.engine.model import Model
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.cached_map import CachedMap
from dps_local.scoring.options import ScoringOptions
from dps_local.server.app import Api, make_app
from dps_local.server.guard import Access
from dps_local.server.person import Person
from dps_local.server.service import Service
from dps_local.server.worker import Worker

SETTINGS = Settings(n_ctx=512, n_threads=1, prefix_cache=False)
ADA = Profile("Ada", preferences=("short",), history=(HistoryItem("Aye, so be it.", "say so"),))
BEN = Profile("Ben", about="A sailor.", history=(HistoryItem("Ahoy!", "greet"),))
CAT = Profile("Cat", preferences=("long",), history=(HistoryItem("Meow.", "speak"),))
ASK = "Where is the harbour?"
HOST = "http://127.0.0.1"


def steering_map(model: Model, head: tuple[int, int]) -> HeadMap:
    weights = np.zeros((model.n_layer, model.n_head_max), np.float32)
    weights[head] = 1
    return replace(
        hand_made_map(model), scope="generated", selected=(head,), weights=weights, gamma=1.5, mode="contrast"
    )


class Served:
    """A server over a tiny model for ada and ben, who are scored, and cat, who is not."""

    def __init__(self, path: Any, n_waiting: int = 16) -> None:
        self.path = path
        self.worker = Worker(self.load, n_waiting)
        self.api = Api(self.worker, "tiny", ["ada", "ben", "cat"])
        self.worker.start()
        assert self.worker.ready.wait(60)
        self.client = self.guarded(Access())

    @contextmanager
    def listening(self, access: Access | None = None) -> Iterator[int]:
        """Serve at a port, in a thread of its own, as `dps-local serve` does; return the port."""
        listener = socket.create_server(("127.0.0.1", 0))
        app = make_app(self.api, access or Access())
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
            listener.close()

    def guarded(self, access: Access) -> TestClient:
        return TestClient(make_app(self.api, access), base_url=HOST)

    def load(self) -> Service:
        model = Model(self.path)
        people = {}
        for name, profile, head in (("ada", ADA, (1, 2)), ("ben", BEN, (0, 3)), ("cat", CAT, None)):
            prompter = Prompter.of(model, profile, n_ctx=512)
            own = CachedMap(prompter, ScoringOptions())
            people[name] = Person(prompter, own, steering_map(model, head) if head else None)
        return Service(model, people, SETTINGS, {"cat": "dps-local score -p cat.json"})

    def chat(self, model: str = "tiny@ada", messages: Any = ASK, status: int = 200, **options: Any) -> Any:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        body = {"model": model, "messages": messages, "max_tokens": 8, "temperature": 0} | options
        response = self.client.post("/v1/chat/completions", json=body)
        assert response.status_code == status, response.text
        return response.json()

    def text(self, *arguments: Any, **options: Any) -> str:
        return str(self.chat(*arguments, **options)["choices"][0]["message"]["content"])
