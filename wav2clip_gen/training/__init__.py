"""Training of the networks: the paper's distillation, and what all trainers share."""
