"""Central's end of replication: what gateways report is applied, what central orders goes out."""
