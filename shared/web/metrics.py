"""``GET /metrics`` in the text format of Prometheus, for a token that may read all gateways.

Labels name gateways, kinds and states: never a certificate, a device or a person.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from shared.policy.rights import Permission
from shared.web.auth import Authenticator

#: Label values (one for each label) and the value.
Samples = Iterable[tuple[tuple[str, ...], float]]


def gauge(name: str, what: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """Make a metric that rises and falls."""
    family = GaugeMetricFamily(name, what, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def counter(name: str, what: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """Make a metric that only rises; the format adds ``_total`` to its name."""
    family = CounterMetricFamily(name, what, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def one(name: str, what: str, value: float) -> Metric:
    """Make a gauge without labels."""
    return gauge(name, what, (), [((), value)])


def by_label(values: Mapping[str, float]) -> Samples:
    """Give samples of one label."""
    return [((name,), value) for name, value in sorted(values.items())]


class _Collected:
    """What a registry asks for the metrics that were read just now."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def routes(
    authenticator: Authenticator, collect: Callable[[], Awaitable[list[Metric]]]
) -> list[web.RouteDef]:
    """Give the route; ``collect`` reads the metrics anew."""

    async def metrics(request: web.Request) -> web.Response:
        principal = await authenticator.principal(request)
        principal.require(Permission.GATEWAY_READ)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected(await collect()))
        headers = {"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"}
        return web.Response(body=generate_latest(registry), headers=headers)

    return [web.get("/metrics", authenticator.guarded(Permission.GATEWAY_READ, metrics))]
