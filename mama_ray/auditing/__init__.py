"""What training says of each pair of clip and caption: records of weights, fit, exclusions, corrections."""
