"""`python -m wav2clip_gen`."""

from wav2clip_gen.cli.app import main

main()
