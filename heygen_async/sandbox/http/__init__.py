"""The sandbox over HTTP: the API's routes and the file host."""
