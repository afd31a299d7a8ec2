"""From embeddings to pictures."""
