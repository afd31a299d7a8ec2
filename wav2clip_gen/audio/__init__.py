"""Sound: from a file to windows."""
