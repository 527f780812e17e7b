"""MAMA and LaViLa on Ray: caption, train with meta-learned sample weights, search and evaluate video-text models."""
