"""The only place that imports ray: actors that hold tiers, and the dispatch of shards to them."""
