"""The reference program's command line: its flags, its arithmetic, its files."""
