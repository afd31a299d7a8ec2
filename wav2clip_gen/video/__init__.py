"""From pictures to a film."""
