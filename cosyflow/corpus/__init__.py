"""The corpus: fetching and unpacking LibriTTS, Kaldi files, and the table of what cannot be used."""
