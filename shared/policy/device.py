"""Device records: what the line's order system says of a device before it enrolls."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """One known device; ``serial`` is what requests call the device id. Empty text: not said.

    ``metadata`` holds at most ``limits.METADATA_PAIRS_MAX`` text pairs.
    """

    serial: str
    product: str = ""
    order: str = ""
    line: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])

    def value(self, name: str) -> str | None:
        """Give ``product``, ``order``, ``line``, ``serial`` or a metadata value; None: not said."""
        if name in {"serial", "product", "order", "line"}:
            return getattr(self, name) or None
        return self.metadata.get(name)
