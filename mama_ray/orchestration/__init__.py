"""The only package that imports ray: one module per job, plus the cluster, the storage and the jobs' entry."""
