"""Media files through ffmpeg: the fence round the program, and what is in a file."""
