"""Pictures of many small images, vector drawings, and how a page embeds them."""
