"""What a family is worth, in figures: each measure with its counts, its chance level and what was held out."""
