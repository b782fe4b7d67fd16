"""Plans a run without its hardware: compiles the real step for a topology and reads the program."""
