"""Desired -> live nginx: renders, applies, proves, heals. Never decides who is well."""
