"""Studies of any config: image sizes, and what the attention does."""
