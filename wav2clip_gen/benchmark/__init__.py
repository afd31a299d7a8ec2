"""The paper's experiments on frozen embeddings of sound: probes, zero-shot, retrieval, captions, figures."""
