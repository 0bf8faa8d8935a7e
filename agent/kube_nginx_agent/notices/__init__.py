"""What may be said: kinds of events, problems, the journal. Never finds out anything itself."""
