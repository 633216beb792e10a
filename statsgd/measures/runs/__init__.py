"""Runs as samples: means with errors over replicas and stretches, measures over ensembles."""
