"""The live world: the same proof with processes of the operating system, on real databases, under real kills."""
