"""How bytes get to the API and back, and when they are sent again."""
