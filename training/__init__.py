"""Training jobs: datasets in, gated bundles out. Torch and TensorFlow live here and nowhere else."""
