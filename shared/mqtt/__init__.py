"""MQTT 5: the connection on the asyncio loop, the session that drives replication, the broker."""
