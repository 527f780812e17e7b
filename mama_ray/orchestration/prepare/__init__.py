"""The prepare job: videos or foreign shards become shards with an index."""
