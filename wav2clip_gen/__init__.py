"""Sound in, film out: Wav2CLIP hears a track, VQGAN-CLIP paints what it heard."""

__version__ = "0.1.0"
