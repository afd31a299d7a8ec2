"""The three networks and their weights."""
