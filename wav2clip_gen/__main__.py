"""`python -m wav2clip_gen`."""

from wav2clip_gen.cli.app import main

if __name__ == "__main__":  # not in worker processes
    main()
