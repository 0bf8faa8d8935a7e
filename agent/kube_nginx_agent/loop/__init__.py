"""The one loop that owns all state, and the signals that reach it."""
