"""The sample corpus "talking picture book": pictures, questions about them, short spoken answers, and text."""
