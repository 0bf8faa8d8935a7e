"""nginx's connections to the backends, and their end. Never decides whose."""
