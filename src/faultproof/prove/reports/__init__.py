"""What a proof's verdict looks like: `facts.py` is what is told, the other modules tell it. Data in, text out."""
