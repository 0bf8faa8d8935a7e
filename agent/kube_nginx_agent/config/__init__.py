"""The bytes of backends.yaml -> Config: pure, with a position for each error."""
