"""Other ways to write what statsgd does, for the benchmark to race against."""
