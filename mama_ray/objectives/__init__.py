"""Per-sample losses: contrastive with an angular margin, and the gathering of features across ranks."""
