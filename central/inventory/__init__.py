"""Central's view of every certificate, gateway and open question: read models for the pages."""
