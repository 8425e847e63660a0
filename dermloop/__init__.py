"""The front door: the `dermloop` command, the local stack, and the loop from images to the next model."""
