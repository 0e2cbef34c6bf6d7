"""What several tests use: oracles, servers, configs, crashes."""
