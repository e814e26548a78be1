"""What `heygen_async.models` exports."""
