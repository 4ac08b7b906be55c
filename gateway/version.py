"""The version of what runs here."""

from importlib.metadata import version
from typing import Final

VERSION: Final = version("tma-edge")
