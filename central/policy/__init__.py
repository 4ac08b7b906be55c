"""Authoring, checking, publishing and rolling out of profiles, rules and grants."""
