"""The server: root of trust, inventory of every certificate, and the fleet of gateways."""
