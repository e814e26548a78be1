"""The API's resources, one thin class each: a call becomes a wire request, an answer becomes a model."""
