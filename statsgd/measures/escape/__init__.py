"""Escape: which basin a run is in, how long it stays, how far it climbs."""
