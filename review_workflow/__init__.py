"""Three tiers of review: who may say what, in which order, and a record of everything that was said."""
