"""Numbers about models and films."""
