"""Desired -> live nginx."""
