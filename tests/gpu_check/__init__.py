"""What a GPU computes, and how fast, checked by whoever has one: `make gpu-check`."""
