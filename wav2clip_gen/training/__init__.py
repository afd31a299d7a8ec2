"""How the small family is made."""
