"""Central's pages for people: dashboard, certificates, gateways, audit log."""
