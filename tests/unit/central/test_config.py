"""The TOML file: defaults fit together, mistakes are named."""

import pytest

from central.config import CentralSettings, load
from shared.kernel.errors import BadRequestError


def test_defaults_hold_without_any_line():
    settings = CentralSettings()
    assert settings.join_address == "localhost:8446"
    assert settings.gateway_broker == ("localhost", 8883)
    assert settings.status_url == "http://localhost:8080"


def test_what_gateways_see_may_differ():
    settings = CentralSettings.model_validate(
        {
            "web": {"names": ["central.example", "2001:db8::1"]},
            "broker": {"host": "broker.example"},
            "gateways": {"host": "2001:db8::7", "port": 443, "broker_port": 8884},
        }
    )
    assert settings.join_address == "[2001:db8::7]:443"
    assert settings.gateway_broker == ("broker.example", 8884)
    assert settings.tls_names == (
        "central.example",
        "2001:db8::1",
        "broker.example",
        "2001:db8::7",
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[web]\nport = 8444", "must differ"),
        ("[web]\nnames = []", "web.names"),
        ("[grant]\noffline_days = 181", "offline_days"),
        ("[authority]\ncrl_hours = 48\ncrl_lifetime_days = 1", "crl_lifetime_days"),
        ("colour = 1", "colour"),
        ("= 1", "not valid TOML"),
    ],
)
def test_mistakes_are_named(tmp_path, text, named):
    path = tmp_path / "central.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(BadRequestError, match=named):
        load(path)
