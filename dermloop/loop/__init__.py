"""The whole loop without hands: people are played from a known truth, everything else is the real thing."""
