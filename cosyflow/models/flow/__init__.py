"""Flow matching: speech tokens in, mel spectrogram out."""
