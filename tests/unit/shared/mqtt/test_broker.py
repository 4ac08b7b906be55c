from pathlib import Path

import pytest

from shared.mqtt.broker import BrokerFiles, acl, configuration


def _files(**changes: Path) -> BrokerFiles:
    names = ("transport_root", "transport_crl", "certificate", "key", "acl")
    return BrokerFiles(**{name: Path("/etc/tma") / name for name in names} | changes)


def test_the_broker_trusts_one_root_and_keeps_nothing() -> None:
    settings = dict(line.split(" ", 1) for line in configuration(_files(), port=8883).splitlines())
    assert settings["cafile"] == "/etc/tma/transport_root"
    assert "capath" not in settings
    for name, value in {
        "listener": "8883",
        "tls_version": "tlsv1.3",
        "require_certificate": "true",
        "use_identity_as_username": "true",
        "use_username_as_clientid": "true",
        "persistence": "false",
        "set_tcp_nodelay": "true",
        "crlfile": "/etc/tma/transport_crl",
        "acl_file": "/etc/tma/acl",
    }.items():
        assert settings[name] == value
    assert "user" not in settings


@pytest.mark.parametrize("host", ["127.0.0.1\nallow_anonymous true", "a\rb"])
def test_no_value_can_begin_another_setting(host: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        configuration(_files(), port=1, host=host)
    with pytest.raises(ValueError, match="control character"):
        configuration(_files(key=Path(f"/{host}")), port=1)


def test_each_has_its_topics() -> None:
    assert acl() == (
        "user _central\n"
        "topic read tma/v1/+/up/#\n"
        "topic write tma/v1/+/dn/#\n"
        "\n"
        "pattern write tma/v1/%u/up/#\n"
        "pattern read tma/v1/%u/dn/#\n"
    )
