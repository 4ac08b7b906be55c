"""What holds for every test."""

from hypothesis import HealthCheck, settings

# The machines are shared and slow at times: a slow example says nothing about the code.
settings.register_profile(
    "shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared-machine")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their parameter: signatures are random, and xdist compares the names."""
    return argname if isinstance(val, bytes) else None
