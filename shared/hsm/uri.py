"""Where keys are, as a URI: ``pkcs11:`` by RFC 7512, or ``software:`` for wrapped key files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from shared.kernel.errors import BadRequestError

_URI_CHARS_MAX = 1024
_PATH_ATTRIBUTES = frozenset({"token", "serial", "manufacturer", "model"})
_QUERY_ATTRIBUTES = frozenset({"module-path", "pin-source"})


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """A token by what it says of itself; None matches any. ``pin_source``: see read_secret."""

    module: Path
    pin_source: str
    token: str | None
    serial: str | None
    manufacturer: str | None
    model: str | None


@dataclass(frozen=True, slots=True)
class SoftwareUri:
    """A directory of wrapped keys and the source of the box secret that opens them."""

    directory: Path
    pin_source: str


def parse(uri: str, modules: Sequence[Path]) -> Pkcs11Uri | SoftwareUri:
    """Read a URI whose module, if any, is on the allow-list; raises BadRequestError."""
    if len(uri) > _URI_CHARS_MAX:
        raise BadRequestError(f"The token URI has at most {_URI_CHARS_MAX} characters.")
    scheme, _, rest = uri.partition(":")
    path, _, query = rest.partition("?")
    settings = _attributes(query, "&", _QUERY_ATTRIBUTES)
    if "pin-source" not in settings:
        raise BadRequestError("The token URI must name a pin-source; a PIN never stands in it.")
    if scheme == "software":
        return SoftwareUri(Path(_decoded(path)), settings["pin-source"])
    if scheme != "pkcs11":
        raise BadRequestError("The token URI must begin with pkcs11: or software:.")
    token = _attributes(path, ";", _PATH_ATTRIBUTES)
    if not token.keys() & {"token", "serial"}:
        raise BadRequestError("The token URI must name the token or its serial number.")
    module = Path(settings.get("module-path", ""))
    if module not in modules:
        raise BadRequestError(
            f"The PKCS#11 module {module} is not on the list of allowed modules.",
            remedy="Add its path to token.modules in the configuration if you trust it.",
        )
    return Pkcs11Uri(
        module,
        settings["pin-source"],
        *(token.get(name) for name in ("token", "serial", "manufacturer", "model")),
    )


def _attributes(text: str, separator: str, known: frozenset[str]) -> dict[str, str]:
    """Split ``name=value`` pairs and undo percent-encoding (RFC 7512 §2.3)."""
    pairs: dict[str, str] = {}
    for item in filter(None, text.split(separator)):
        name, equals, value = item.partition("=")
        if not equals or name not in known or name in pairs:
            raise BadRequestError(f"The token URI has an attribute that is not understood: {name}.")
        pairs[name] = _decoded(value)
    return pairs


def _decoded(value: str) -> str:
    text = unquote(value)
    if not text.isprintable() or "\ufffd" in text:  # what is no UTF-8 decodes to U+FFFD
        raise BadRequestError("The token URI has a percent-encoding that is no printable text.")
    return text
