"""Sample weights: the weight net, baseline weightings, the hypergradient and the weighted step."""
