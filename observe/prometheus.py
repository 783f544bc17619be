"""Read all roles of a run from a Prometheus that scrapes them: what a cluster is seen through from outside, where no
role can be reached itself and the actors are scaled up and down.

    http://host:9090 -> instant queries, now and a window ago -> [Scrape], [Scrape]

The window needs no waiting: Prometheus remembers. Asked for: headrace_* by instance, up, the roles of the last hour.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headrace.common.errors import TransportError
from headrace.common.metrics_table import PREFIX
from headrace.observe.endpoints import Endpoint
from headrace.observe.scrape import Scrape

#: Several of the longest scrape intervals in use.
WINDOW_S = 30.0
MAX_BYTES = 64 << 20
_OURS = f'{{__name__=~"{PREFIX}.+",__name__!~".+_bucket"}}'
_ROLES = f"last_over_time({PREFIX}role_info[1h])"
#: Labels that Prometheus and our configurations of it put on every sample.
_TARGET = ("__name__", "instance", "job", "namespace", "pod", "node", "run")


def answers(url: str, timeout_s: float = 3.0) -> bool:
    """Whether a Prometheus answers at ``url``."""
    try:
        _query(url, "vector(1)", time.time(), timeout_s)
    except (TransportError, OSError, ValueError, http.client.HTTPException):
        return False
    return True


def looks(url: str, window_s: float, timeout_s: float = 10.0) -> tuple[list[Scrape], list[Scrape]]:
    """Every role that Prometheus knows, ``window_s`` ago and now, in the same order; one whose scrape failed has the
    error. Raises :class:`TransportError` for a Prometheus that refuses or does not answer."""
    now_s = time.time()
    try:
        targets = dict(sorted(_targets(url, now_s, timeout_s)))
        before = _scrapes(url, targets, now_s - window_s, timeout_s)
        return before, _scrapes(url, targets, now_s, timeout_s)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise TransportError(f"Prometheus at {url}: {error}") from error


def _targets(url: str, at_s: float, timeout_s: float) -> Iterator[tuple[tuple[str, str], bool]]:
    """(role, instance) -> whether its last scrape succeeded. What is no target any more was taken away on purpose."""
    up = {labels["instance"]: value for labels, value in _query(url, "up", at_s, timeout_s)}
    for labels, _ in _query(url, _ROLES, at_s, timeout_s):
        if labels["instance"] in up:
            yield (labels["role"], labels["instance"]), up[labels["instance"]] == 1


def _scrapes(url: str, targets: Mapping[tuple[str, str], bool], at_s: float, timeout_s: float) -> list[Scrape]:
    values: dict[str, dict[str, float]] = {}
    for labels, value in _query(url, _OURS, at_s, timeout_s):
        name = labels["__name__"].removeprefix(PREFIX)
        own = "".join("{" + text + "}" for key, text in labels.items() if key not in _TARGET)
        values.setdefault(labels["instance"], {})[name + own] = value
    found, counts = [], dict[str, int]()
    for (role, instance), well in targets.items():
        index = counts[role] = counts.get(role, -1) + 1
        shown = values.get(instance, {})
        error = "" if well and shown else f"Prometheus could not scrape {instance}"
        # The role's own clock: samples are as old as its last scrape.
        found.append(Scrape(Endpoint(role, index, 0, f"http://{instance}"), shown.get("up_seconds", 0.0), shown, error))
    return found


def _query(url: str, expression: str, at_s: float, timeout_s: float) -> Sequence[tuple[Mapping[str, str], float]]:
    query = urllib.parse.urlencode({"query": expression, "time": f"{at_s:.3f}"})
    request = urllib.request.Request(f"{url.rstrip('/')}/api/v1/query?{query}")
    with urllib.request.urlopen(request, timeout=timeout_s) as response:
        body = response.read(MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes in answer to {expression}")
    answer: Any = json.loads(body)
    if not isinstance(answer, dict) or answer.get("status") != "success":
        raise ValueError("no answer of a Prometheus")
    return [(row["metric"], float(row["value"][1])) for row in answer["data"]["result"]]
