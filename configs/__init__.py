"""ml_collections configuration files: `get_config(size)` of each training stage and of the evaluation."""
