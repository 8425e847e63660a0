"""Very many pictures in shards: planned once, worked off here or by any number of workers, never done twice."""
