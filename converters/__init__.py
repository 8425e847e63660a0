"""The words of the house: boxes, taxonomy, annotations, datasets, and every format they are read from or written to."""
