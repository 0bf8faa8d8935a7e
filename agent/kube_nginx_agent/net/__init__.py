"""Connections to one address, each with a deadline. Never decides what an answer means."""
