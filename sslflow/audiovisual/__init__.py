"""Learning from videos, in which picture and sound are two views of the same moment."""
