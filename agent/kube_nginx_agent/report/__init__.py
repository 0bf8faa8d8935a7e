"""Reads every part and tells: the status file, systemd. Never changes anything."""
