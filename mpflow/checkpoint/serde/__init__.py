"""Serializers as savers written to LangGraph's protocol use them, under its names; data only, backed by the typed codec."""
