"""The TOML file: defaults, refusals that say what to do, and a manual that names every setting."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway import config
from shared.kernel.errors import BadRequestError

MANUAL = Path(__file__).resolve().parents[3] / "docs" / "gateway.md"


def loaded(tmp_path: Path, text: str) -> config.GatewaySettings:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    return config.load(path)


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_of(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.description or ""


def test_an_empty_file_is_a_whole_configuration(tmp_path):
    settings = loaded(tmp_path, "")
    assert (settings.web.port, settings.web.machine_port, settings.web.status_port) == (
        9443,
        9444,
        9080,
    )
    assert settings.token_socket == Path("/var/lib/tma-gateway/run/hsmd.sock")
    assert settings.status_url == "http://localhost:9080"


def test_paths_may_be_absolute_and_names_may_be_ipv6(tmp_path):
    settings = loaded(
        tmp_path,
        'witness = "/mnt/second/witness"\n[token]\nsocket = "/run/hsmd.sock"\n'
        '[web]\nnames = ["2001:db8::7"]\n',
    )
    assert settings.witness_path == Path("/mnt/second/witness")
    assert settings.token_socket == Path("/run/hsmd.sock")
    assert settings.status_url == "http://[2001:db8::7]:9080"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[web]\nport = 0\n", "web.port"),
        ("[web]\nport = 9080\n", "different numbers"),
        ("[web]\nprot = 9443\n", "web.prot"),
        ("[web]\nnames = []\n", "web.names"),
        ("[disk]\nreserve_mb = 2000\n", "larger than reserve_mb"),
        ("state = 5\n", "state"),
        ("= nonsense", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_cure(tmp_path, text, named):
    with pytest.raises(BadRequestError) as refusal:
        loaded(tmp_path, text)
    assert named in refusal.value.message


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(BadRequestError) as refusal:
        config.load(tmp_path / "absent.toml")
    assert "--config" in refusal.value.remedy


def test_the_manual_describes_every_setting_with_its_default():
    text = MANUAL.read_text()
    for name, description in settings_of(config.GatewaySettings):
        assert f"`{name}`" in text, name
        assert description, name
        assert description in text, name
