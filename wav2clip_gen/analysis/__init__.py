"""What a track is heard as, for a person or another program: measured, put into words, written, drawn."""
