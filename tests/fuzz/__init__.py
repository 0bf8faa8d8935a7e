"""What strangers send, made up by a fuzzer: nothing of it may end the agent or reach a terminal."""
