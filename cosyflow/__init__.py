"""CosyFlow: training of CosyVoice-class speech synthesis, on one machine or as a Kubeflow pipeline."""

__version__ = "0.1.0"
