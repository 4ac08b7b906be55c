"""Metadata of objects: pairs of text that people keep of CAs, gateways, stations and others."""
