"""How the shipped weights of the family `mini` were made: from labeled images and sounds, without videos."""
